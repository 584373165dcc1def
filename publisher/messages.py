"""A reading as the Pub/Sub message that carries it, alone or packed with others."""

from collections.abc import Sequence
from typing import NamedTuple

from publisher.sensors import Reading, rfc3339


class Message(NamedTuple):
    """What is sent, and when.

    due_ms: when it shall leave, in milliseconds since 1970 UTC. fault: what is wrong with it, None if nothing is.
    reading: what a reader of `data` will find in it, None if it cannot be read or holds several readings.
    alone: not to be packed with others. readings: how many it carries; a malformed one counts too. packed: of several,
    the message that each would have been.
    """

    data: bytes
    attributes: dict[str, str]
    due_ms: int
    reading: Reading | None
    fault: str | None = None
    alone: bool = False
    readings: int = 1
    packed: tuple["Message", ...] = ()


def encode(reading: Reading, run_id: str) -> Message:
    """The message of one reading, due at once; `run_id` keeps reading_id unique across runs."""
    number, device, sensor, time_ms, value = reading
    timestamp = rfc3339(time_ms)
    # Names of devices and sensors need no escaping, and a float's repr is its JSON.
    data = f'{{"Timestamp": "{timestamp}", "Device": "{device}", "{sensor}": {value!r}}}'.encode()
    attributes = {"timestamp": timestamp, "reading_id": f"{run_id}-{number}", "device": device}
    return Message(data, attributes, time_ms, reading)


def pack(messages: Sequence[Message]) -> Message:
    """One message with a JSON array of the readings of `messages`, none of which may be malformed.

    Its timestamp is that of the earliest reading, so that the watermark passes none of them; its reading_id is that of
    the first; it has a device if they are all of the same one. A single message stays as it is.
    """
    if len(messages) == 1:
        return messages[0]
    first = messages[0]
    attributes = {
        # All of the same form, so the earliest is the smallest text.
        "timestamp": min([message.attributes["timestamp"] for message in messages]),
        "reading_id": first.attributes["reading_id"],
    }
    if len({message.attributes["device"] for message in messages}) == 1:
        attributes["device"] = first.attributes["device"]
    data = b"[" + b", ".join([message.data for message in messages]) + b"]"
    return Message(data, attributes, first.due_ms, None, readings=len(messages), packed=tuple(messages))
