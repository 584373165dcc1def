"""A reading as the Pub/Sub message that carries it, alone or packed with others."""

from collections.abc import Sequence
from typing import NamedTuple

from publisher.sensors import Reading, rfc3339


class Message(NamedTuple):
    """A Pub/Sub message.

    Attributes:
        data: the payload.
        attributes: the attributes of the message.
        due_ms: when to send it, in milliseconds since 1970 UTC.
        reading: the reading in `data`; None if it is malformed or holds several.
        fault: the injected fault, or None.
        alone: whether it must not be packed with others.
        readings: the number of readings in it; a malformed one counts too.
        packed: the messages that a packed message combines; empty for any other.
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
    """Return the message of one reading, due at its timestamp; `run_id` makes reading_id unique across runs."""
    number, device, sensor, time_ms, value = reading
    timestamp = rfc3339(time_ms)
    # Names of devices and sensors need no escaping, and the repr of a float is valid JSON.
    data = f'{{"Timestamp": "{timestamp}", "Device": "{device}", "{sensor}": {value!r}}}'.encode()
    attributes = {"timestamp": timestamp, "reading_id": f"{run_id}-{number}", "device": device}
    return Message(data, attributes, time_ms, reading)


def pack(messages: Sequence[Message]) -> Message:
    """Return one message with the readings of `messages`, none of which may be malformed, as a JSON array.

    Its timestamp is that of the earliest reading, so that the watermark does not pass any of them. Its reading_id is
    that of the first reading. It has the attribute device if all readings are of one device. A single message is
    returned unchanged.
    """
    if len(messages) == 1:
        return messages[0]
    first = messages[0]
    attributes = {
        # All have the same format, so the earliest is the least text.
        "timestamp": min([message.attributes["timestamp"] for message in messages]),
        "reading_id": first.attributes["reading_id"],
    }
    if len({message.attributes["device"] for message in messages}) == 1:
        attributes["device"] = first.attributes["device"]
    data = b"[" + b", ".join([message.data for message in messages]) + b"]"
    return Message(data, attributes, first.due_ms, None, readings=len(messages), packed=tuple(messages))
