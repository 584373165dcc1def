"""Messages to sums as fast as plain Python can, the checks written out for just `SENSORS`; without Beam.

The limit that contenders are held against, and what the tuned peers share. It runs in every peer's environment, so it
imports no more than the standard library, msgspec, and `pipeline.readings`, whose `Decoder` decides on whatever is not
plainly good. Keys that are ignored are not counted.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from benchmarks.load import INTERVAL, SENSORS
from pipeline.readings import DEVICE, MAX_DEVICE, TIMESTAMP, Decoder, Refusal, _raw_items

SECOND = 1_000_000  # microseconds
LENGTH = INTERVAL * SECOND
UNSET = msgspec.UNSET

DECODER = Decoder(SENSORS)
SECONDS, FRACTIONS = DECODER._seconds, DECODER._fractions  # what the parts of a stamp stand for

_YEAR_2000 = 946_684_800 * SECOND
_MAX_FUTURE_SKEW = 600  # seconds, the shipped default
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# By (index of the interval, device or ""), the sum and count of each sensor in turn.
Sums = dict[tuple[int, str], list]


class Partial(NamedTuple):
    """Sums of one batch for one interval and device."""

    start: int  # of the interval, microseconds since the epoch
    device: str  # "" unless devices are kept apart
    latest: int  # a time in the interval that no reading of it is after
    cells: list[float]  # sum and count of each sensor in turn


def latest_allowed() -> int:
    """Return the latest event time that is accepted now, in microseconds since the epoch."""
    return int((time.time() + _MAX_FUTURE_SKEW) * SECOND)


# Readings as objects, whose types msgspec checks in C.
_READING = msgspec.defstruct(
    "Reading",
    [
        (TIMESTAMP, Any, None),
        (DEVICE, Annotated[str, msgspec.Meta(max_length=MAX_DEVICE)], ""),
        *((name, float | msgspec.UnsetType, UNSET) for name in SENSORS),
    ],
    gc=False,
)
_decode = msgspec.json.Decoder(_READING | list[_READING]).decode  # type: ignore[valid-type]
_decode_one = msgspec.json.Decoder(_READING).decode


def _items(payload: bytes) -> Sequence[Any]:
    """Return the readings of a message; what has other types stays JSON, and so does what is none."""
    try:
        found = _decode(payload)
    except _UNREADABLE:
        found = [_one(raw) for raw in _raw_items(payload)]
    if type(found) is list:
        return found or (payload,)
    return (found,)


def _one(raw: msgspec.Raw) -> Any:
    try:
        return _decode_one(raw)
    except _UNREADABLE:
        return raw


def decide(payload: bytes, items: Sequence[Any], item: Any, latest: int, refusals: list[Refusal]) -> Any:
    """Return (event time, device, value or UNSET of each sensor) of one item as the shipped decoder has it, or None."""
    if type(items) is list:
        if type(item) is not msgspec.Raw:
            # Which one it is, as no two are the same object.
            item = _raw_items(payload)[next(place for place, one in enumerate(items) if one is item)]
        payload = b"[%b]" % bytes(item)
    for at, device, values in DECODER.decode((payload,), latest, refusals):
        return at, device, [values.get(name, UNSET) for name in SENSORS]
    return None


def refuse(payload: bytes, items: Sequence[Any], item: Any, latest: int, refusals: list[Any]) -> None:
    """Decide that nothing is right that is not plainly good, as it is of `messages`."""
    refusals.append(payload)


def loop(payloads: Iterable[bytes], by_device: bool, decide: Callable[..., Any]) -> tuple[Sums, int, list[Refusal]]:
    """Return the sums of one bundle, the event time of its newest reading, and what was refused."""
    latest, newest, seconds, fractions = latest_allowed(), 0, SECONDS, FRACTIONS
    refusals: list[Refusal] = []
    sums: Sums = defaultdict(lambda: [0.0, 0] * len(SENSORS))
    for payload in payloads:
        items = _items(payload)
        for item in items:
            try:
                stamp = item.Timestamp
                at = seconds[stamp[:19]] + fractions[stamp[19:]]
                device, airtight, pressure, water, temp = item.Device, item.Airtight, item.AtmP, item.H2OC, item.Temp
                if not _YEAR_2000 <= at <= latest or temp is pressure is airtight is water:
                    raise ValueError  # for the shipped decoder to say why
            except (AttributeError, TypeError, ValueError):
                decided = decide(payload, items, item, latest, refusals)
                if decided is None:
                    continue
                at, device, (airtight, pressure, water, temp) = decided
            newest = at if at > newest else newest
            cells = sums[at // LENGTH, device if by_device else ""]
            if airtight is not UNSET:
                cells[0] += airtight
                cells[1] += 1
            if pressure is not UNSET:
                cells[2] += pressure
                cells[3] += 1
            if water is not UNSET:
                cells[4] += water
                cells[5] += 1
            if temp is not UNSET:
                cells[6] += temp
                cells[7] += 1
    return sums, newest, refusals


def fold(payloads: Iterable[bytes], by_device: bool) -> tuple[list[Partial], list[bytes]]:
    """Return a batch's sums, those of the newest interval last, and the dead letters' payloads."""
    sums, newest, refusals = loop(payloads, by_device, decide)
    partials = [
        Partial(index * LENGTH, device, min(newest, (index + 1) * LENGTH - 1), cells)
        for (index, device), cells in sorted(sums.items())
    ]
    return partials, [refusal.payload for refusal in refusals]


def add(into: list[float], cells: Sequence[float]) -> list[float]:
    """Add cells to others in place, and return those."""
    for index, value in enumerate(cells):
        into[index] += value
    return into


def add_to(devices: dict[str, list[float]], device: str, cells: list[float]) -> None:
    """Add cells to a device's, which are these if it has none."""
    if device in devices:
        add(devices[device], cells)
    else:
        devices[device] = cells


def by_sensor(cells: Sequence[float]) -> dict[str, list[float]]:
    """Return [sum, count] of every sensor that was present."""
    pairs = zip(SENSORS, cells[::2], cells[1::2], strict=True)
    return {name: [total, count] for name, total, count in pairs if count}


def averages(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the mean of every sensor, of its [sum, count]."""
    return {name: total / count for name, (total, count) in sums.items()}


def means(cells: Sequence[float]) -> dict[str, float]:
    """Return the mean of every sensor that was present."""
    return averages(by_sensor(cells))
