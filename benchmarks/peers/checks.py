"""The checks that `pipeline.readings` makes, written out once for all peers: plain Python, without Beam.

Runs in every peer's venv, so it imports no more than the standard library and msgspec.
"""

import re
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from benchmarks.load import SENSORS

MAX_DEVICE = 1024  # characters
MAX_FUTURE_SKEW = 600  # seconds, the shipped default

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SENSORS = frozenset(SENSORS)
_YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_SECONDS_BELOW = 253_402_300_800  # an epoch number from here on is in milliseconds
_STAMP = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)| \d\d:\d\d:\d\d(?:\.\d+)?)", re.ASCII
).fullmatch
_parse_json = msgspec.json.Decoder().decode
split = msgspec.json.Decoder(list[msgspec.Raw]).decode
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reading(NamedTuple):
    """One good reading; `values` is never empty, `device` may be ""."""

    at: datetime
    device: str
    values: dict[str, float]


class Refusal(NamedTuple):
    """The dead letter of a message, or of one item of an array: its bytes, and why."""

    payload: bytes
    reason: str


class Refused(ValueError):
    """Why there is no reading."""


def read(payload: bytes) -> list[Reading | Refusal]:
    """Return one outcome per reading in a message, at least one; never raises."""
    try:
        items = split(payload)
    except UNREADABLE:
        return [read_item(payload)]
    return [read_item(bytes(item)) for item in items] or [Refusal(payload, "an empty array")]


def read_item(payload: bytes) -> Reading | Refusal:
    """Return the outcome of one reading's own JSON; an array is refused here."""
    try:
        return _check(_parse_json(payload))
    except Refused as reason:
        return Refusal(payload, str(reason))
    except UNREADABLE as error:
        return Refusal(payload, f"not JSON: {error}")


def parse_timestamp(stamp: object) -> datetime:
    """Return the moment, in UTC, that a Timestamp stands for.

    Raises:
      Refused: it is missing, of no known form, or before the year 2000.
    """
    try:
        if isinstance(stamp, str) and _STAMP(stamp):
            moment = datetime.fromisoformat(stamp.upper())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        elif isinstance(stamp, int | float) and not isinstance(stamp, bool):
            moment = datetime.fromtimestamp(stamp if abs(stamp) < _SECONDS_BELOW else stamp / 1000, UTC)
        else:
            raise Refused("Timestamp is missing or of no known form")
    except (ValueError, OverflowError, OSError) as error:
        raise Refused(f"Timestamp is not a moment: {error}") from None
    if moment < _YEAR_2000:
        raise Refused("Timestamp is before the year 2000")
    return moment


def _check(fields: Any) -> Reading:
    if not isinstance(fields, dict):
        raise Refused("not a JSON object")
    at = parse_timestamp(fields.get("Timestamp"))
    if at.timestamp() > time.time() + MAX_FUTURE_SKEW:
        raise Refused("Timestamp is too far in the future")
    device = fields.get("Device", "")
    if not isinstance(device, str) or len(device) > MAX_DEVICE:
        raise Refused(f"Device is no string of at most {MAX_DEVICE} characters")
    values = {name: _number(name, value) for name, value in fields.items() if name in _SENSORS}
    if not values:
        raise Refused("no known sensor")
    return Reading(at, device, values)


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise Refused(f"{name} is no finite number")
