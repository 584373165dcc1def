"""Message bytes to readings, or to the reason why not.

A message is a UTF-8 JSON object, or a non-empty array of such objects:

    {"Timestamp": "2026-11-22T13:00:01.250Z", "Device": "device-1", "Temp": 21.4, "AtmP": 1013.2}

`Timestamp` is required and decides the window. At least one configured sensor must be present. `Device` is optional.
Other keys are counted and otherwise ignored. Of a duplicate key the last value counts.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from pipeline.decode.bounded_cache import BoundedCache
from pipeline.errors import SensorStreamError

TIMESTAMP = "Timestamp"
DEVICE = "Device"

# Characters; a name is a key in every shuffle, and in the state of every open interval.
MAX_DEVICE = 1024

# Dead letters of one message. Those of all further items are one more, which counts and holds them: a message of 10 MB,
# the largest there is, has up to five million items.
MAX_REJECTIONS = 1_000

# Characters of a rejection's reason.
MAX_REASON = 1_000

# Bytes of the shortest item with a Timestamp, {"Timestamp":0}, and its comma.
_SHORTEST_ITEM = 16

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST = 946_684_800_000_000  # the year 2000, in microseconds
_MIDNIGHT = "2000-01-02T00:00:00"
_STAMPS = 5_000  # seconds, and as many fractions, remembered at most
# Characters after the seconds; a longer text is parsed each time, so that what is remembered stays small.
_LONGEST_FRACTION = 40

_YEAR_10000 = 253_402_300_800  # in seconds
# Units of a numeric Timestamp. The size of a number decides its unit: from 2000 to 9999 each unit's numbers are below
# those of the next, because the year 10000 in one unit (253e9) is less than the year 2000 in the next (946e9).
_PER_SECOND = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}

_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])

# RFC 3339 with its offset (https://www.rfc-editor.org/rfc/rfc3339#section-5.6), whose colon may be missing, or with a
# space and taken as UTC. `fromisoformat` alone would also accept week dates, bare dates, stamps without any offset, an
# offset of 99 minutes, and from Python 3.14 on the hour 24.
_HOUR_MINUTE = r"(?:[01]\d|2[0-3]){}[0-5]\d"
_TIME = _HOUR_MINUTE.format(":") + r":[0-5]\d(?:\.\d+)?"
_OFFSET = r"(?:[Zz]|[+-]" + _HOUR_MINUTE.format(":?") + ")"
_STAMP = re.compile(rf"\d{{4}}-\d\d-\d\d(?:[Tt ]{_TIME}{_OFFSET}| {_TIME})", re.ASCII).fullmatch
# At most as many digits as nanoseconds of the year 9999 have.
_NUMBER = re.compile(r"-?\d{1,21}(?:\.\d+)?", re.ASCII).fullmatch


# (event time in microseconds since the epoch, device or "", sensor name to finite value: never empty). A plain tuple,
# because making a named one takes as long as parsing the JSON.
Reading = tuple[int, str, dict[str, float]]


class Rejection(NamedTuple):
    """A message, or one item of an array message, that cannot become a reading.

    Attributes:
      reason: the exception that says why; its class is the error's name, its `stage` where it arose.
      payload: the message's bytes; for an item of an array, that item's own JSON; of `TooManyRefused` an array of them.
      message: the message's place among those that were decoded together.
      errors: how many items it stands for, by the name of their error.
    """

    reason: "InvalidReading"
    payload: bytes
    message: int
    errors: dict[str, int]


class InvalidReading(SensorStreamError, ValueError):
    """Why a reading cannot be used. Subclasses name the errors found in the dead-letter table."""

    stage = "validate"


class NotJson(InvalidReading):
    """The bytes are not one UTF-8 JSON document."""

    stage = "decode"


class NotAReading(InvalidReading):
    """JSON, but neither an object nor a non-empty array of objects."""

    stage = "decode"


class BadTimestamp(InvalidReading):
    """No Timestamp, an unreadable one, or one before the year 2000."""

    stage = "timestamp"


class FutureTimestamp(BadTimestamp):
    """A Timestamp further ahead of the clock than `max_future_skew`."""


class BadDevice(InvalidReading):
    """Device is not a string of at most MAX_DEVICE characters."""


class BadValue(InvalidReading):
    """A sensor's value is not a finite JSON number."""


class NoKnownSensor(InvalidReading):
    """None of the configured sensors is present."""


class TooManyRefused(InvalidReading):
    """More than MAX_REJECTIONS items of one array were refused; these are the others."""

    stage = "decode"


class UnexpectedError(InvalidReading):
    """The decoder failed on it in a way that nobody foresaw: a defect here, whatever was sent."""

    stage = "decode"


def parse_timestamp(stamp: object) -> int:
    """Return the microseconds since the epoch that a JSON Timestamp stands for.

    Accepts RFC 3339 with an offset (`+01:00` or `+0100`), `YYYY-MM-DD HH:MM:SS[.ffffff]` as UTC, and the time since the
    epoch in seconds, milliseconds, microseconds or nanoseconds, by its size, as a number or as text. Digits beyond the
    microsecond are cut off; fractions of seconds and milliseconds as numbers are rounded to it.

    Raises:
      BadTimestamp: it is missing, of another form, not a date, or before the year 2000.
    """
    if type(stamp) is str:
        if _STAMP(stamp):
            micros = _from_rfc3339(stamp)
        elif _NUMBER(stamp):
            micros = _from_number(float(stamp) if "." in stamp else int(stamp))
        else:
            raise BadTimestamp("Timestamp is neither RFC 3339 with an offset, YYYY-MM-DD HH:MM:SS, nor a number")
    elif type(stamp) is int or type(stamp) is float:
        micros = _from_number(stamp)
    elif stamp is None:
        raise BadTimestamp("Timestamp is missing")
    else:
        raise BadTimestamp(f"Timestamp is {_json_type(stamp)}, not text or a number")
    if micros < _EARLIEST:
        raise _out_of_range(micros, stamp)
    return micros


def _from_rfc3339(stamp: str) -> int:
    try:
        moment = datetime.fromisoformat(stamp.upper())
    except ValueError as error:
        raise BadTimestamp(f"Timestamp is not a date: {error}") from None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def _from_number(number: float) -> int:
    per_second = _PER_SECOND[_unit(number)]
    whole = int(number)
    micros = whole * 1_000_000 // per_second
    if per_second >= 1_000_000:
        return micros
    # The fraction by itself, because a product of floats would lose the last microsecond; rounded, because a float
    # seldom is the decimal number that was sent.
    return micros + round((number - whole) * (1_000_000 // per_second))


def _unit(number: float) -> str:
    """Return the name of the unit in which a number of this size is a time."""
    for unit, per_second in _PER_SECOND.items():
        if abs(number) < _YEAR_10000 * per_second:
            return unit
    return "nanoseconds"


class Decoder:
    """Turns message bytes into readings and rejections; never raises.

    Args:
      sensors: the names to look for.

    Attributes:
      readings: how many there were so far.
      ignored_keys: how many of their keys were neither Timestamp, Device nor a configured sensor.
    """

    def __init__(self, sensors: Collection[str]):
        self.readings = self.ignored_keys = 0
        self._sensors = frozenset(sensors)
        self._parse_json = msgspec.json.Decoder().decode
        # Timestamps are all different, but share their seconds, and their milliseconds with the offset.
        self._seconds: BoundedCache[str, int] = BoundedCache(lambda text: parse_timestamp(text + "Z"), _STAMPS)
        self._fractions: BoundedCache[str, int] = BoundedCache(_after_the_second, _STAMPS)

    def decode(self, payloads: Iterable[bytes], latest: int, rejections: list[Rejection]) -> Iterator[Reading]:
        """Yield the readings, in order, and add what is refused to `rejections`; no payload gives neither.

        No Timestamp may be after `latest`, microseconds since the epoch. All checks are in this one loop because a
        call for each reading would double what they cost.
        """
        parse, seconds, fractions, sensors = self._parse_json, self._seconds, self._fractions, self._sensors
        count = 0
        refused = _Rejections(rejections)
        for number, payload in enumerate(payloads):
            try:
                document = parse(payload)
            except Exception as error:
                document = _unparsed(payload, error)
            packed = type(document) is list and len(document) > 0
            items: Iterable[tuple[int, Any]] = enumerate(document) if packed else ((0, document),)
            if packed and len(document) * _SHORTEST_ITEM > len(payload):
                refused.begin(number, payload, packed)
                items = self._plausible(items, refused)
            for index, item in items:
                try:
                    fields = item if type(item) is dict else self._object(item)
                    stamp = fields.pop(TIMESTAMP, None)
                    try:
                        event_time = seconds[stamp[:19]] + fractions[stamp[19:]]
                    except (BadTimestamp, LookupError, TypeError):
                        event_time = parse_timestamp(stamp)
                    if not _EARLIEST <= event_time <= latest:
                        raise _out_of_range(event_time, stamp)
                    device = fields.pop(DEVICE, "")
                    if type(device) is not str or len(device) > MAX_DEVICE:
                        raise _bad_device(device)
                    for name, value in fields.items():
                        if type(value) is not float or name not in sensors:
                            fields = self._values(fields)
                            break
                    if not fields:
                        raise NoKnownSensor("no configured sensor in this reading")
                except Exception as error:
                    # Raised on, it would come back with every redelivery and stop all others with it.
                    refused.begin(number, payload, packed)
                    refused.add(index, error)
                else:
                    count += 1
                    yield event_time, device, fields
        refused.end()
        self.readings += count

    def _object(self, item: Any) -> dict[str, Any]:
        """Return an item that is no dict yet as one, or raise why it cannot be."""
        if isinstance(item, InvalidReading):
            raise type(item)(str(item))
        if isinstance(item, msgspec.Raw):
            try:
                item = self._parse_json(item)
            except Exception as error:
                raise _why_unparsed(error) from None
        if item == []:
            raise NotAReading("an empty array holds no reading")
        if not isinstance(item, dict):
            raise NotAReading(f"expected a JSON object, got {_json_type(item)}")
        return item

    def _plausible(self, items: Iterable[tuple[int, Any]], refused: "_Rejections") -> Iterator[tuple[int, Any]]:
        """Yield the items; once `refused` is full, only those that may be readings, and count the others in it.

        Millions of short items take a fraction of the time that raising an error for each would.
        """
        for index, item in items:
            error = self._hopeless(item) if refused.full else None
            if error:
                refused.count(index, error)
            else:
                yield index, item

    def _hopeless(self, item: Any) -> type[InvalidReading] | None:
        """Return the error of an item that is plainly no reading, otherwise None."""
        if isinstance(item, msgspec.Raw):
            try:
                item = self._parse_json(item)
            except Exception as error:
                return type(_why_unparsed(error))
        if type(item) is not dict:
            return NotAReading
        return None if TIMESTAMP in item else BadTimestamp

    def _values(self, fields: dict[str, Any]) -> dict[str, float]:
        """Return the values of configured sensors, as floats."""
        values = {name: _number(name, value) for name, value in fields.items() if name in self._sensors}
        if values:
            self.ignored_keys += len(fields) - len(values)
        return values


def _after_the_second(text: str) -> int:
    """Return the microseconds that the end of an RFC 3339 text adds: its fraction, less its offset."""
    if len(text) > _LONGEST_FRACTION:
        raise LookupError
    return parse_timestamp(_MIDNIGHT + text) - parse_timestamp(_MIDNIGHT + "Z")


def _unparsed(payload: bytes, error: Exception) -> Any:
    """Return the items of an array as JSON, since a number too large for a float spoils just its own; or the reason."""
    items = _raw_items(payload) if isinstance(error, msgspec.ValidationError) else []
    return items or _why_unparsed(error)


def _why_unparsed(error: Exception) -> InvalidReading:
    if isinstance(error, msgspec.ValidationError):
        return BadValue("a number is too large for a 64-bit float")
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
        return NotJson(str(error))
    return _unexpected(error)


def _unexpected(error: Exception) -> UnexpectedError:
    return UnexpectedError(f"{type(error).__name__}: {error}")


def _raw_items(payload: bytes) -> list[msgspec.Raw]:
    """Return the items of an array unparsed; nothing if it is no array, or one that is nested too deeply."""
    try:
        return _RAW_ITEMS.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return []


class _Rejections:
    """Gathers what is refused: of each message up to MAX_REJECTIONS one by one, and all others as one.

    Args:
      into: the list that rejections are added to.
    """

    def __init__(self, into: list[Rejection]):
        self._into = into
        self._message = -1

    def begin(self, message: int, payload: bytes, packed: bool) -> None:
        """Let what follows be of this message, unless it is already; `packed` says whether it is an array."""
        if message == self._message:
            return
        self.end()
        self._message = message
        self._payload = payload
        self._raw_items = _raw_items(payload) if packed else []
        # Of an array that cannot be split, the first rejection holds the whole message.
        self._left = MAX_REJECTIONS if self._raw_items or not packed else 1
        self._others = bytearray()
        self._errors: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether the message has MAX_REJECTIONS, so that the next is only counted."""
        return self._left == 0

    def add(self, index: int, error: Exception) -> None:
        """Add the rejection of an item, or of the whole message if that is no array."""
        reason = error if isinstance(error, InvalidReading) else _unexpected(error)
        name = type(reason).__name__
        if self.full:
            self.count(index, type(reason))
            return
        self._left -= 1
        words, payload = str(reason), self._payload
        if self._raw_items:
            words, payload = f"item {index}: {words}", bytes(self._raw_items[index])
        # A new one, as what was raised holds on to all messages of its batch, by its traceback.
        self._into.append(Rejection(type(reason)(words[:MAX_REASON]), payload, self._message, {name: 1}))

    def count(self, index: int, error: type[InvalidReading]) -> None:
        """Count an item, and keep its JSON, for the one rejection of all others."""
        self._errors[error.__name__] += 1
        if self._raw_items:
            self._others += b"," if self._others else b""
            self._others += self._raw_items[index]

    def end(self) -> None:
        """Add the one rejection of what was only counted of the last message, if anything was."""
        if self._message < 0 or not self._errors:
            return
        by_error = ", ".join(f"{count} {error}" for error, count in self._errors.most_common())
        words = f"{self._errors.total()} more items were refused: {by_error}; the payload is the array of them"
        payload = b"[" + bytes(self._others) + b"]"
        self._into.append(Rejection(TooManyRefused(words), payload, self._message, dict(self._errors)))


def _out_of_range(event_time: int, stamp: object) -> BadTimestamp:
    """Return why a Timestamp cannot be used: `event_time` is what `stamp` stands for, in microseconds."""
    number = float(stamp) if type(stamp) is str and _NUMBER(stamp) else stamp
    read_as = f", read as epoch {_unit(number)} by its size" if isinstance(number, int | float) else ""
    if event_time < _EARLIEST:
        return BadTimestamp(f"Timestamp is before the year 2000{read_as}")
    return FutureTimestamp(f"Timestamp is further in the future than max_future_skew allows{read_as}")


def _bad_device(device: object) -> BadDevice:
    if type(device) is not str:
        return BadDevice(f"Device is {_json_type(device)}, not a string")
    return BadDevice(f"Device is longer than {MAX_DEVICE} characters")


def _number(name: str, value: object) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise BadValue(f"{name} is {_json_type(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise BadValue(f"{name} is too large for a 64-bit float") from None


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
