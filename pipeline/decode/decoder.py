"""Decodes message bytes to readings, or rejects them with a reason.

A message is a UTF-8 JSON object, or a non-empty array of such objects:

    {"Timestamp": "2026-11-22T13:00:01.250Z", "Device": "device-1", "Temp": 21.4, "AtmP": 1013.2}

`Timestamp` is required and decides the window. At least one configured sensor must be present. `Device` is optional.
Other keys are counted and otherwise ignored. If a key is repeated, its last value counts.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pipeline.decode.documents import ArrayItems, Documents, OneDocument
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import (
    BadDevice,
    BadTimestamp,
    InvalidReading,
    NoKnownSensor,
    NotAReading,
    Rejection,
    as_reason,
)
from pipeline.decode.formats import read_json, unwrapped
from pipeline.decode.json_types import json_type
from pipeline.decode.reading import DEVICE, MAX_DEVICE, TIMESTAMP, Reading
from pipeline.decode.rejections import BadValues, Rejections
from pipeline.decode.timestamps import EARLIEST, cached_fractions, cached_seconds, out_of_range, parse_timestamp
from pipeline.decode.values import no_number, too_large

# Bytes of the shortest item with a Timestamp, {"Timestamp":0}, and its comma.
_SHORTEST_ITEM = 16

# Items of a message that are counted as refused in one go.
_COUNTED_AT_ONCE = 1_000


class Decoder:
    """Turns message bytes into readings and rejections; never raises.

    Args:
      sensors: the names to look for.

    Attributes:
      readings: number of readings so far.
      ignored_keys: number of their keys that were neither Timestamp, Device nor a configured sensor.
      without_reading: always 0, because a document without a sensor is rejected.
    """

    def __init__(self, sensors: Collection[str]):
        self.readings = self.ignored_keys = self.without_reading = 0
        self._sensors = frozenset(sensors)
        self._parse_json = msgspec.json.Decoder().decode
        self._seconds = cached_seconds()
        self._fractions = cached_fractions()

    def decode(  # noqa: PLR0912
        self,
        payloads: Iterable[bytes],
        latest: int,
        rejections: list[Rejection],
        envelopes: Sequence[Envelope] = (),
    ) -> Iterator[Reading]:
        """Yield the readings, in order, and add rejections to `rejections`.

        Each payload gives at least one reading or rejection. No Timestamp may be after `latest`, microseconds since the
        epoch. The steps that every reading takes are in this one loop, because a call for each reading would take a
        tenth longer; steps that few readings need are in methods.
        """
        parse, seconds, fractions, sensors = self._parse_json, self._seconds, self._fractions, self._sensors
        count = 0
        rejected = Rejections(rejections)
        for number, payload in enumerate(payloads):
            documents: Documents | None = None
            items: Iterable[tuple[int, Any]]
            try:
                document = parse(payload)
            except Exception as error:
                documents, document = _documents(payload, error), None
            if type(document) is dict:
                items = ((0, document),)
            else:
                documents = documents or _parsed_documents(document, payload)
                items = self._items(number, payload, document, documents, rejected)
            for index, item in items:
                bad = None
                try:
                    fields = item if type(item) is dict else self._object(item)
                    stamp = fields.pop(TIMESTAMP, None)
                    try:
                        event_time = seconds[stamp[:19]] + fractions[stamp[19:]]
                    except (BadTimestamp, LookupError, TypeError):
                        event_time = parse_timestamp(stamp)
                    if not EARLIEST <= event_time <= latest:
                        raise out_of_range(event_time, stamp)
                    device = fields.pop(DEVICE, "")
                    if type(device) is not str or len(device) > MAX_DEVICE:
                        device = checked_device(device)
                    for name, value in fields.items():
                        if type(value) is not float or name not in sensors:
                            fields, bad = self._values(fields)
                            break
                    if not fields:
                        raise NoKnownSensor("no configured sensor in this reading")
                except Exception as error:
                    # If it were raised, each redelivery of the message would fail again, with all others of its bundle.
                    rejected.begin(number, payload, documents or OneDocument(document, payload))
                    rejected.add(index, error)
                    continue
                if bad:
                    rejected.begin(number, payload, documents or OneDocument(document, payload))
                    rejected.add_values(index, stamp, device, bad)
                count += 1
                yield event_time, device, fields
        rejected.end()
        self.readings += count

    def _items(
        self, number: int, payload: bytes, document: Any, documents: Documents, rejected: Rejections
    ) -> Iterable[tuple[int, Any]]:
        """Return the numbered items of a message that is not a single object."""
        if type(document) is list and document and len(document) * _SHORTEST_ITEM <= len(payload):
            return enumerate(document)
        rejected.begin(number, payload, documents)
        return self._plausible(enumerate(documents), documents, rejected)

    def _object(self, item: Any) -> dict[str, Any]:
        """Return an item that must be a JSON object.

        Raises:
          InvalidReading: the item is not one, or could not be read.
        """
        if isinstance(item, InvalidReading):
            raise type(item)(str(item))
        if item == []:
            raise NotAReading("an empty array holds no reading")
        if not isinstance(item, dict):
            raise NotAReading(f"expected a JSON object, got {json_type(item)}")
        return item

    def _plausible(
        self, items: Iterable[tuple[int, Any]], documents: Documents, rejected: Rejections
    ) -> Iterator[tuple[int, Any]]:
        """Yield the items; once `rejected` is full, only those that may be readings, and count the others in it.

        A message may have millions of items, and the others of its bundle wait meanwhile. So items are counted by
        the thousand, in two thirds of the time of one by one.
        """
        counted: list[bytes] = []
        errors: Counter[str] = Counter()
        for index, item in items:
            error = self._hopeless(item) if rejected.full else None
            if error is None or len(counted) == _COUNTED_AT_ONCE:
                rejected.count(counted, errors)
                counted, errors = [], Counter()
            if error is None:
                yield index, item
            else:
                errors[error.__name__] += 1
                counted.append(documents.own_bytes(index))
        rejected.count(counted, errors)

    def _hopeless(self, item: Any) -> type[InvalidReading] | None:
        """Return the error of an item that obviously is not a reading, otherwise None."""
        if isinstance(item, InvalidReading):
            return type(item)
        if type(item) is not dict:
            return NotAReading
        return None if TIMESTAMP in item else BadTimestamp

    def _values(self, fields: dict[str, Any]) -> tuple[dict[str, float], BadValues]:
        """Return the values of configured sensors, as floats, and the invalid values with their reasons.

        Raises:
          BadValue: all of them are invalid.
        """
        sensors = self._sensors
        bad: BadValues = {}
        found: dict[str, Any] = {
            name: value if type(value) is float else _value(name, value, bad)
            for name, value in fields.items()
            if name in sensors
        }
        values = found
        if None in found.values():
            values = {name: value for name, value in found.items() if value is not None}
        if values:
            self.ignored_keys += len(fields) - len(found)
        elif bad:
            raise as_reason(next(iter(bad.values()))[1])
        return values, bad


def _value(name: str, value: object, bad: BadValues) -> float | None:
    if value is None:
        return None
    # Reasons are not raised here, because a traceback would keep all messages of the batch in memory.
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            bad[name] = value, too_large(name)
    else:
        bad[name] = value, no_number(name, value)
    return None


def _parsed_documents(document: Any, payload: bytes) -> Documents:
    return ArrayItems(document, payload) if type(document) is list and document else OneDocument(document, payload)


def _documents(payload: bytes, error: Exception) -> Documents:
    """Return the documents of a message that is not one JSON text; if it is unreadable, the reason as the document."""
    try:
        if not isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
            raise error
        return unwrapped(read_json, payload)
    except Exception as reason:
        return OneDocument(as_reason(reason), payload)


def checked_device(device: object) -> str:
    """Return the name of a device; empty text for None.

    Raises:
      BadDevice: the name is not text, or is too long.
    """
    if device is None:
        return ""
    if type(device) is not str:
        raise BadDevice(f"Device is {json_type(device)}, not a string")
    if len(device) > MAX_DEVICE:
        raise BadDevice(f"Device is longer than {MAX_DEVICE} characters")
    return device
