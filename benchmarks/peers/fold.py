"""What the tuned peers share: a batch of messages to sums per interval and device, as fast as plain Python can.

Comes to the same as `checks.read` and adding up: whatever is not plainly good goes to `checks`, which decides.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from time import time
from typing import Any, NamedTuple

import msgspec

from benchmarks.load import INTERVAL, SENSORS
from benchmarks.peers.checks import (
    EPOCH,
    MAX_DEVICE,
    MAX_FUTURE_SKEW,
    UNREADABLE,
    Reading,
    Refusal,
    read,
    read_item,
    split,
)

SECOND = 1_000_000  # microseconds

_LENGTH = INTERVAL * SECOND
_MICROSECOND = timedelta(microseconds=1)

_UNSET = msgspec.UNSET
# Any, and checked below: typed fields would refuse a whole array for one bad item, and decode it twice.
_Fields = msgspec.defstruct(
    "_Fields", [("Timestamp", Any, None), ("Device", Any, ""), *((name, Any, _UNSET) for name in SENSORS)], gc=False
)
_decode = msgspec.json.Decoder(_Fields | list[_Fields]).decode  # type: ignore[valid-type]
_utc_fraction = re.compile(r"(?:\.\d{1,6})?Z", re.ASCII).fullmatch

# What a stamp's first 19 characters and the rest stand for, in microseconds; bounded.
_seconds: dict[str, int] = {}
_fractions: dict[str, int] = {}
_MEMO = 10_000


class Partial(NamedTuple):
    """Sums of one batch for one interval and device; times are microseconds since the epoch.

    Attributes:
      start: of the interval.
      device: "" unless devices are kept apart.
      latest: event time of its newest reading.
      cells: sum and count of each sensor in turn.
    """

    start: int
    device: str
    latest: int
    cells: list[float]


def fold(payloads: Iterable[bytes], by_device: bool) -> tuple[list[Partial], list[Refusal]]:  # noqa: PLR0912
    """Return a batch's sums, the one with the newest reading last, and what was refused."""
    future = (time() + MAX_FUTURE_SKEW) * SECOND
    sums: dict[tuple[int, str], list] = {}  # the newest reading's time, then the cells
    refused: list[Refusal] = []
    for payload in payloads:
        try:
            items = _decode(payload)
        except UNREADABLE:
            items = read(payload)
        if type(items) is not list:
            items = (items,)
        elif not items:
            items = read(payload)
        for index, item in enumerate(items):
            try:
                stamp = item.Timestamp
                at = _seconds[stamp[:19]] + _fractions[stamp[19:]]
                device, airtight, pressure, water, temp = item.Device, item.Airtight, item.AtmP, item.H2OC, item.Temp
                good = (
                    at <= future
                    and (type(temp) is float or temp is _UNSET)
                    and (type(pressure) is float or pressure is _UNSET)
                    and (type(airtight) is float or airtight is _UNSET)
                    and (type(water) is float or water is _UNSET)
                    and not (temp is pressure is airtight is water)
                    and type(device) is str
                    and len(device) <= MAX_DEVICE
                )
            except (AttributeError, KeyError, TypeError):
                good = False
            if not good:
                outcome = item if isinstance(item, Reading | Refusal) else _decide(payload, index)
                if isinstance(outcome, Refusal):
                    refused.append(outcome)
                    continue
                at, device = (outcome.at - EPOCH) // _MICROSECOND, outcome.device
                airtight, pressure, water, temp = (outcome.values.get(name, _UNSET) for name in SENSORS)
                _remember(getattr(item, "Timestamp", None), at)
            key = (at // _LENGTH, device if by_device else "")
            cells = sums.get(key)
            if cells is None:
                cells = sums[key] = [at] + [0.0, 0] * len(SENSORS)
            elif at > cells[0]:
                cells[0] = at
            if airtight is not _UNSET:
                cells[1] += airtight
                cells[2] += 1
            if pressure is not _UNSET:
                cells[3] += pressure
                cells[4] += 1
            if water is not _UNSET:
                cells[5] += water
                cells[6] += 1
            if temp is not _UNSET:
                cells[7] += temp
                cells[8] += 1
    partials = [Partial(index * _LENGTH, device, cells[0], cells[1:]) for (index, device), cells in sums.items()]
    partials.sort(key=lambda partial: partial.latest)
    return partials, refused


def add(into: list[float], cells: Sequence[float]) -> list[float]:
    """Add cells to others in place, and return those."""
    for index, value in enumerate(cells):
        into[index] += value
    return into


def means(cells: Sequence[float]) -> dict[str, float]:
    """Return the mean of every sensor that was present."""
    pairs = zip(SENSORS, cells[::2], cells[1::2], strict=True)
    return {name: total / count for name, total, count in pairs if count}


def _decide(payload: bytes, index: int) -> Reading | Refusal:
    """Ask `checks` about one reading of a message that is one object, or an array of objects."""
    return read_item(bytes(split(payload)[index]) if payload.lstrip().startswith(b"[") else payload)


def _remember(stamp: object, at: int) -> None:
    if isinstance(stamp, str) and _utc_fraction(stamp, 19):
        for memo in (_seconds, _fractions):
            if len(memo) >= _MEMO:
                memo.clear()
        _seconds[stamp[:19]] = at - at % SECOND
        _fractions[stamp[19:]] = at % SECOND
