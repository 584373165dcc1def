"""Converts timestamps of readings, texts or numbers, to microseconds since the epoch."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pipeline.decode.bounded_cache import BoundedCache
from pipeline.decode.errors import BadTimestamp, FutureTimestamp
from pipeline.decode.json_types import json_type

EARLIEST = 946_684_800_000_000  # the year 2000, in microseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MIDNIGHT = "2000-01-02T00:00:00"
_CACHE_SIZE = 5_000  # seconds, and as many fractions
# Characters after the seconds; a longer text is parsed each time, so that the cache stays small.
_LONGEST_FRACTION = 40

_YEAR_10000 = 253_402_300_800  # in seconds
# Units of a numeric Timestamp. The size of a number decides its unit: from 2000 to 9999 each unit's numbers are below
# those of the next, because the year 10000 in one unit (253e9) is less than the year 2000 in the next (946e9).
_PER_SECOND = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}

# RFC 3339 with its offset (https://www.rfc-editor.org/rfc/rfc3339#section-5.6), whose colon may be missing, or with a
# space and taken as UTC. `fromisoformat` alone would also accept week dates, bare dates, stamps without any offset, an
# offset of 99 minutes, and from Python 3.14 on the hour 24.
_HOUR_MINUTE = r"(?:[01]\d|2[0-3]){}[0-5]\d"
_TIME = _HOUR_MINUTE.format(":") + r":[0-5]\d(?:\.\d+)?"
_OFFSET = r"(?:[Zz]|[+-]" + _HOUR_MINUTE.format(":?") + ")"
_STAMP = re.compile(rf"\d{{4}}-\d\d-\d\d(?:[Tt ]{_TIME}{_OFFSET}| {_TIME})", re.ASCII).fullmatch
_LOCAL_STAMP = re.compile(rf"\d{{4}}-\d\d-\d\d[Tt ]{_TIME}", re.ASCII).fullmatch
# At most as many digits as nanoseconds of the year 9999 have.
_NUMBER = re.compile(r"-?\d{1,21}(?:\.\d+)?", re.ASCII).fullmatch


def parse_timestamp(stamp: object) -> int:
    """Return the microseconds since the epoch that a JSON Timestamp stands for.

    Accepts RFC 3339 with an offset (`+01:00` or `+0100`), `YYYY-MM-DD HH:MM:SS[.ffffff]` as UTC, and the time since the
    epoch in seconds, milliseconds, microseconds or nanoseconds, by its size, as a number or as text. Digits beyond the
    microsecond are cut off; fractions of seconds and milliseconds as numbers are rounded to it.

    Raises:
      BadTimestamp: the timestamp is missing, in another format, not a date, or before the year 2000.
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
        raise BadTimestamp(f"Timestamp is {json_type(stamp)}, not text or a number")
    if micros < EARLIEST:
        raise out_of_range(micros, stamp)
    return micros


class LocalTimes:
    """Parses timestamps that may have no offset, as local times of a zone.

    A local time that occurs twice, when clocks are put back, is the first; one that does not exist is moved forward.

    Args:
      zone: of timestamps without an offset.
    """

    def __init__(self, zone: ZoneInfo):
        self._zone = zone
        self._seconds: BoundedCache[str, int] = BoundedCache(self._local_second, _CACHE_SIZE)

    def parse(self, stamp: object) -> int:
        """Return the microseconds since the epoch, as `parse_timestamp` does.

        Raises:
          BadTimestamp: the timestamp is missing, in another format, not a date, or before the year 2000.
        """
        if type(stamp) is not str:
            return parse_timestamp(stamp)
        stamp = stamp.strip()
        if not _LOCAL_STAMP(stamp):
            return parse_timestamp(stamp)
        micros = self._seconds[stamp[:19]] + int(f"{stamp[20:26]:0<6}")
        if micros < EARLIEST:
            raise out_of_range(micros, stamp)
        return micros

    def _local_second(self, text: str) -> int:
        try:
            moment = datetime.fromisoformat(text.upper()).replace(tzinfo=self._zone)
            return (moment - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError) as error:
            raise BadTimestamp(f"Timestamp is not a date: {error}") from None


def cached_seconds() -> BoundedCache[str, int]:
    """Return a cache from the first 19 characters of an RFC 3339 text to its microseconds, read as UTC.

    Most timestamps differ, but many have the same second, and many the same fraction and offset.
    """
    return BoundedCache(lambda text: parse_timestamp(text + "Z"), _CACHE_SIZE)


def cached_fractions() -> BoundedCache[str, int]:
    """Return a cache from the text after the seconds to the microseconds it adds: the fraction, less the offset."""
    return BoundedCache(_after_the_second, _CACHE_SIZE)


def _after_the_second(text: str) -> int:
    if len(text) > _LONGEST_FRACTION:
        raise LookupError
    return parse_timestamp(_MIDNIGHT + text) - parse_timestamp(_MIDNIGHT + "Z")


def out_of_range(event_time: int, stamp: object) -> BadTimestamp:
    """Return the error of a Timestamp; `event_time` is the time `stamp` stands for, in microseconds since the epoch."""
    number = float(stamp) if type(stamp) is str and _NUMBER(stamp) else stamp
    read_as = f", read as epoch {_unit(number)} by its size" if isinstance(number, int | float) else ""
    if event_time < EARLIEST:
        return BadTimestamp(f"Timestamp is before the year 2000{read_as}")
    return FutureTimestamp(f"Timestamp is further in the future than max_future_skew allows{read_as}")


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
    # The fraction is multiplied separately, because a product of larger floats would lose the last microsecond; it is
    # rounded, because a float is rarely the decimal number that was sent.
    return micros + round((number - whole) * (1_000_000 // per_second))


def _unit(number: float) -> str:
    """Return the name of the unit in which a number of this size is a time."""
    for unit, per_second in _PER_SECOND.items():
        if abs(number) < _YEAR_10000 * per_second:
            return unit
    return "nanoseconds"
