"""Message bytes to readings, or to the reason why not.

A message is a UTF-8 JSON object, or a non-empty array of such objects:

    {"Timestamp": "2026-11-22T13:00:01.250Z", "Device": "device-1", "Temp": 21.4, "AtmP": 1013.2}

`Timestamp` is required and decides the window. At least one configured sensor must be present. `Device` is optional.
Other keys are counted and otherwise ignored. Of a duplicate key the last value counts.
"""

import re
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

TIMESTAMP = "Timestamp"
DEVICE = "Device"

# Characters; a name is a key in every shuffle, and in the state of every open interval.
MAX_DEVICE = 1024

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_YEAR_2000_S = 946_684_800
# Seconds reach this bound in the year 9999; milliseconds passed it in 1978. So size tells the two apart.
_SECONDS_BELOW = 253_402_300_800

# RFC 3339 with its offset (https://www.rfc-editor.org/rfc/rfc3339#section-5.6), or with a space and taken as UTC.
# `fromisoformat` alone would also accept week dates, bare dates and stamps without any offset.
_STAMP = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)| \d\d:\d\d:\d\d(?:\.\d+)?)", re.ASCII
).fullmatch


class Reading(NamedTuple):
    """One reading.

    Attributes:
      event_time: microseconds since the epoch.
      device: its name, or "" when the reading names none.
      values: sensor name to finite value; never empty.
      ignored_keys: how many keys were neither Timestamp, Device nor a configured sensor.
    """

    event_time: int
    device: str
    values: dict[str, float]
    ignored_keys: int


class Refusal(NamedTuple):
    """A message, or one item of an array message, that cannot become a reading.

    Attributes:
      reason: the exception that says why; its class is the error's name, its `stage` where it arose.
      payload: the message's bytes; for an item of an array, that item's own JSON.
    """

    reason: "Refused"
    payload: bytes


class Refused(ValueError):
    """Why a reading cannot be used. Subclasses name the errors found in the dead-letter table."""

    stage = "validate"


class NotJson(Refused):
    """The bytes are not one UTF-8 JSON document."""

    stage = "decode"


class NotAReading(Refused):
    """JSON, but neither an object nor a non-empty array of objects."""

    stage = "decode"


class BadTimestamp(Refused):
    """No Timestamp, an unreadable one, or one before the year 2000."""

    stage = "timestamp"


class FutureTimestamp(BadTimestamp):
    """A Timestamp further ahead of the clock than `max_future_skew`."""


class BadDevice(Refused):
    """Device is not a string of at most MAX_DEVICE characters."""


class BadValue(Refused):
    """A sensor's value is not a finite JSON number."""


class NoKnownSensor(Refused):
    """None of the configured sensors is present."""


def parse_timestamp(stamp: object) -> int:
    """Return the microseconds since the epoch that a JSON Timestamp stands for.

    Accepts RFC 3339 with an offset, `YYYY-MM-DD HH:MM:SS[.ffffff]` as UTC, and epoch seconds or milliseconds as a
    number (told apart by size). Digits beyond the microsecond are cut off.

    Raises:
      BadTimestamp: it is missing, of another form, not a date, or before the year 2000.
    """
    if type(stamp) is str:
        if not _STAMP(stamp):
            raise BadTimestamp("Timestamp is neither RFC 3339 with an offset nor YYYY-MM-DD HH:MM:SS")
        try:
            moment = datetime.fromisoformat(stamp.upper())
        except ValueError as error:
            raise BadTimestamp(f"Timestamp is not a moment: {error}") from None
        micros = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    elif type(stamp) is int or type(stamp) is float:
        # Whole and fractional part apart, because a product of floats would lose the last microsecond.
        whole = int(stamp)
        scale = 1_000_000 if abs(whole) < _SECONDS_BELOW else 1_000
        micros = whole * scale + round((stamp - whole) * scale)
    elif stamp is None:
        raise BadTimestamp("Timestamp is missing")
    else:
        raise BadTimestamp(f"Timestamp is {_json_type(stamp)}, not text or a number")
    if micros < _YEAR_2000_S * 1_000_000:
        raise BadTimestamp("Timestamp is before the year 2000; numbers must be epoch seconds or milliseconds")
    return micros


class Decoder:
    """Turns message bytes into readings and refusals; never raises.

    Args:
      sensors: the names to look for.
      max_future_skew: seconds a Timestamp may be ahead of `clock`.
      clock: returns the present in seconds since the epoch.
    """

    def __init__(self, sensors: Collection[str], max_future_skew: int, clock: Callable[[], float] = time.time):
        self._sensors = frozenset(sensors)
        self._max_future_skew = max_future_skew * 1_000_000
        self._clock = clock
        self._parse_json = msgspec.json.Decoder().decode

    def decode(self, payload: bytes) -> list[Reading | Refusal]:
        """Return one outcome per reading in `payload`, in order; at least one, whatever the bytes are."""
        latest = self._clock() * 1_000_000 + self._max_future_skew
        try:
            document = self._parse(payload)
            if type(document) is not list:
                return [self._reading(document, latest)]
            if not document:
                raise NotAReading("an empty array holds no reading")
            return [self._reading(item, latest) for item in document]
        except Refused as reason:
            return self._decode_items(payload, latest) or [Refusal(reason, payload)]

    def _decode_items(self, payload: bytes, latest: float) -> list[Reading | Refusal]:
        """Decode an array one item at a time, so that its good readings count; nothing if it is no array."""
        try:
            items = msgspec.json.decode(payload, type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        outcomes: list[Reading | Refusal] = []
        for index, item in enumerate(items):
            try:
                outcomes.append(self._reading(self._parse(item), latest))
            except Refused as reason:
                outcomes.append(Refusal(type(reason)(f"item {index}: {reason}"), bytes(item)))
        return outcomes

    def _parse(self, text: bytes | msgspec.Raw) -> object:
        try:
            return self._parse_json(text)
        except msgspec.ValidationError:
            raise BadValue("a number is too large for a 64-bit float") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotJson(str(error)) from None

    def _reading(self, fields: object, latest: float) -> Reading:
        if type(fields) is not dict:
            raise NotAReading(f"expected a JSON object, got {_json_type(fields)}")
        event_time = parse_timestamp(fields.get(TIMESTAMP))
        if event_time > latest:
            raise FutureTimestamp("Timestamp is further in the future than max_future_skew allows")
        device = fields.get(DEVICE, "")
        if type(device) is not str:
            raise BadDevice(f"Device is {_json_type(device)}, not a string")
        if len(device) > MAX_DEVICE:
            raise BadDevice(f"Device is longer than {MAX_DEVICE} characters")
        values = {}
        for name, value in fields.items():
            if name in self._sensors:
                values[name] = value if type(value) is float else _number(name, value)
        if not values:
            raise NoKnownSensor("no configured sensor in this reading")
        return Reading(event_time, device, values, len(fields) - len(values) - 1 - (DEVICE in fields))


def _number(name: str, value: object) -> float:
    if type(value) is not int:
        raise BadValue(f"{name} is {_json_type(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise BadValue(f"{name} is too large for a 64-bit float") from None


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
