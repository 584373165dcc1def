"""Messages to sums as fast as plain Python can, without Beam and with the checks written out for `SENSORS`.

This is the limit for the contenders, and the fold of the tuned peers. The shipped decoder decides on readings that are
not obviously valid. Ignored keys are not counted.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import add
from typing import Annotated, Any

import msgspec

from benchmarks.load import INTERVAL, SENSORS
from pipeline.decode.decoder import Decoder
from pipeline.decode.documents import raw_items
from pipeline.decode.errors import Rejection
from pipeline.decode.reading import MAX_DEVICE
from pipeline.decode.timestamps import EARLIEST

SECOND = 1_000_000  # microseconds
LENGTH = INTERVAL * SECOND
DECODER = Decoder(SENSORS)

_MAX_FUTURE_SKEW = 600  # seconds, the shipped default
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNSET = msgspec.UNSET
_no_cells = partial(defaultdict, ([0.0, 0] * len(SENSORS)).copy)
_Value = float | msgspec.UnsetType

# The sum and count of each sensor in turn, by device, or "" for all devices.
Cells = dict[str, list[float]]


# (start of an interval, seconds since the epoch; a time in it that none of its readings is after, microseconds; sums).
Partial = tuple[int, int, Cells]


# Its types are checked in C. No two are equal, so that `_decide` finds an item's place by identity.
class _Reading(msgspec.Struct, gc=False, eq=False):
    Timestamp: Any = None
    Device: Annotated[str, msgspec.Meta(max_length=MAX_DEVICE)] = ""
    Airtight: _Value = _UNSET
    AtmP: _Value = _UNSET
    H2OC: _Value = _UNSET
    Temp: _Value = _UNSET


_decode = msgspec.json.Decoder(_Reading | list[_Reading]).decode
_decode_one = msgspec.json.Decoder(_Reading).decode


def latest_allowed() -> int:
    """Return the latest event time that is accepted now, in microseconds since the epoch."""
    return int((time.time() + _MAX_FUTURE_SKEW) * SECOND)


def fold(payloads: Iterable[bytes], by_device: bool) -> tuple[list[Partial], list[bytes]]:
    """Return a batch's sums, those of the newest interval last, and the dead letters' payloads."""
    latest, newest, seconds, fractions = latest_allowed(), 0, DECODER._seconds, DECODER._fractions
    rejected: list[bytes] = []
    sums: dict[int, Cells] = defaultdict(_no_cells)
    for payload in payloads:
        items = _items(payload)
        for item in items:
            try:
                stamp = item.Timestamp
                at = seconds[stamp[:19]] + fractions[stamp[19:]]
                device, airtight, pressure, water, temp = item.Device, item.Airtight, item.AtmP, item.H2OC, item.Temp
                if not EARLIEST <= at <= latest or temp is pressure is airtight is water:
                    raise ValueError  # the shipped decoder decides
            except (AttributeError, TypeError, ValueError):
                decided = _decide(payload, items, item, latest, rejected)
                if decided is None:
                    continue
                at, device, (airtight, pressure, water, temp) = decided
            newest = at if at > newest else newest
            cells = sums[at // LENGTH][device if by_device else ""]
            if airtight is not _UNSET:
                cells[0] += airtight
                cells[1] += 1
            if pressure is not _UNSET:
                cells[2] += pressure
                cells[3] += 1
            if water is not _UNSET:
                cells[4] += water
                cells[5] += 1
            if temp is not _UNSET:
                cells[6] += temp
                cells[7] += 1
    in_order = sorted(sums.items())
    return [(at * INTERVAL, min(newest, (at + 1) * LENGTH - 1), cells) for at, cells in in_order], rejected


def _items(payload: bytes) -> Sequence[Any]:
    """Return the items of a message: readings, or the JSON of an item that is none."""
    try:
        found = _decode(payload) or payload
    except _UNREADABLE:
        found = [_typed(raw) for raw in raw_items(payload)] or payload
    return found if type(found) is list else (found,)


def _typed(raw: msgspec.Raw) -> _Reading | msgspec.Raw:
    try:
        return _decode_one(raw)
    except _UNREADABLE:
        return raw


def _decide(payload: bytes, items: Sequence[Any], item: Any, latest: int, rejected: list[bytes]) -> Any:
    """Return (event time, device, value or UNSET of each sensor) from the shipped decoder, or None if it rejects it."""
    if type(items) is list:
        raw = item if type(item) is msgspec.Raw else raw_items(payload)[items.index(item)]
        payload = b"[%b]" % bytes(raw)
    rejections: list[Rejection] = []
    readings = list(DECODER.decode((payload,), latest, rejections))
    rejected += [rejection.payload for rejection in rejections]
    for at, device, values in readings:
        return at, device, [values.get(name, _UNSET) for name in SENSORS]
    return None


def add_cells(total: Cells, more: Cells) -> None:
    """Add devices' cells to those in `total`, in new lists; no list is changed."""
    for device, cells in more.items():
        total[device] = list(map(add, total[device], cells)) if device in total else cells


def by_sensor(cells: Sequence[float]) -> dict[str, list[float]]:
    """Return [sum, count] of every sensor that was present."""
    pairs = zip(SENSORS, cells[::2], cells[1::2], strict=True)
    return {name: [total, count] for name, total, count in pairs if count}


def averages(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the mean of every sensor, of its [sum, count]."""
    return {name: total / count for name, (total, count) in sums.items()}
