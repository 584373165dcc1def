"""The manifest: a record of the readings that Pub/Sub accepted, against which tables can be checked.

One JSON object per line and reading. Lines are appended and flushed when the service has confirmed the message, so that
a crash of the publisher loses only lines of messages that were being confirmed. Fields:

    reading_id    equal for a reading and its duplicate; a packed message has that of its first reading
    message_id    Pub/Sub's id of the message
    sent          wall clock when the message was passed to the client, RFC 3339 in UTC; increases in the order of
                  sending
    confirmed     wall clock when the service confirmed the message, RFC 3339 in UTC
    fault         late, duplicate, out_of_order, skew, dropout, burst or "malformed: VARIANT"; null without a fault
    device, sensor, value, event_time
                  the content of the data, event_time as written there; all null if it is malformed
    attributes    attributes of the message
    data          the message's data as text, or of a packed message the reading's; null if it is not UTF-8
    data_base64   the data in base64; only if it is not UTF-8
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
    """A manifest that is open for appending; may be used from several threads.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")
        self._writing = threading.Lock()

    def record(self, message: Message, message_id: str, sent: float) -> None:
        """Append a message that was confirmed now; `sent` is in seconds since 1970. OSError if it cannot be written."""
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
    """Return the fields that differ among the readings of a message."""
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
