"""A reading as the Pub/Sub message that carries it."""

import json
from dataclasses import dataclass

from publisher.sensors import Reading


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, and when.

    due_ms: when it shall leave, in milliseconds since 1970 UTC. fault: what is wrong with it, None if nothing is.
    reading: what a reader of `data` will find in it, None if it cannot be read.
    """

    data: bytes
    attributes: dict[str, str]
    due_ms: int
    reading: Reading | None
    fault: str | None = None


def encode(reading: Reading, run_id: str) -> Message:
    """The message of one reading, due at once; `run_id` keeps reading_id unique across runs."""
    timestamp = reading.timestamp
    data = json.dumps({"Timestamp": timestamp, "Device": reading.device, reading.sensor: reading.value}).encode()
    attributes = {"timestamp": timestamp, "reading_id": f"{run_id}-{reading.number}", "device": reading.device}
    return Message(data, attributes, reading.time_ms, reading)
