"""The manifest: what Pub/Sub has really accepted, so that tables can be checked against it.

One JSON object a line, appended when the service has confirmed the message and flushed at once, so that a crash of the
publisher leaves out only what was confirmed in that very moment. A line is a reading; several may be of one message:

    reading_id    equal for a reading and its duplicate; a message's attribute is that of its first reading
    message_id    Pub/Sub's
    sent          wall clock when the message was handed to the client, RFC 3339 in UTC; never before that of what was
                  handed over earlier
    confirmed     wall clock when the confirmation was there, RFC 3339 in UTC
    fault         late, duplicate, out_of_order, skew, dropout, burst, "malformed: WAY"; null if nothing was done to it
    device, sensor, value, event_time
                  what the data holds, event_time as it is in there; all null if it is malformed
    attributes    of the message
    data          the message's data as text, of an array the reading's own; null if that is not UTF-8, then it is in
    data_base64   (only then)
"""

import base64
import json
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from publisher.messages import Message
from publisher.sensors import EPOCH


class Manifest:
    """An open manifest; safe to use from many threads."""

    def __init__(self, path: Path):
        """Open `path` for appending; OSError if that is not possible."""
        self._file = path.open("a", encoding="utf-8")
        self._writing = threading.Lock()

    def record(self, message: Message, message_id: str, sent: float) -> None:
        """Append a message that was confirmed just now; `sent` is in seconds since 1970. OSError if disk is full."""
        common = {
            "message_id": message_id,
            "sent": _rfc3339(sent),
            "confirmed": _rfc3339(time.time()),
            "attributes": message.attributes,
        }
        lines = [json.dumps(_entry(one) | common, allow_nan=False) + "\n" for one in message.packed or (message,)]
        with self._writing:
            self._file.write("".join(lines))
            self._file.flush()


def _entry(message: Message) -> dict[str, Any]:
    """What a line says of one reading itself."""
    reading = message.reading
    entry = {
        "reading_id": message.attributes["reading_id"],
        "fault": message.fault,
        "device": reading and reading.device,
        "sensor": reading and reading.sensor,
        "value": reading and reading.value,
        "event_time": reading and reading.timestamp,
    }
    try:
        return {**entry, "data": message.data.decode()}
    except UnicodeDecodeError:
        return {**entry, "data": None, "data_base64": base64.b64encode(message.data).decode()}


def _rfc3339(seconds: float) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat(timespec="microseconds")[:-6] + "Z"
