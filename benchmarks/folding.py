"""The fold alone, without Beam: the shipped one, two other ways to write it, and the limit.

    parse    nothing but msgspec parsing the JSON
    shipped  `Decoder` and `FixedBuckets`
    typed    msgspec decodes into objects with a field for each sensor, which checks types in C; what that refuses, and
             any reading with other keys, goes through the shipped decoder
    columns  readings with the same keys are gathered, then checked and added up sensor by sensor
    loop     the limit, `benchmarks.loop`

For one row per interval; each takes 32 messages at a time, as the shipped DoFn does. All make the same sums of the same
messages, or nothing is timed.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from benchmarks import loop
from benchmarks.contenders import job, partial_sums
from benchmarks.frame import DifferentRows, cpu_micros, take_turns
from benchmarks.load import SENSORS, Load, messages, past
from pipeline.fold import _Fold
from pipeline.readings import DEVICE, TIMESTAMP, Refusal

_JOB = job(Load())
_MESSAGES = 960  # a multiple of 32

Chunks = Iterable[Sequence[bytes]]
# ({start of interval in microseconds: {sensor: [sum, count]}}, how many were refused)
Folded = tuple[dict[int, dict[str, list]], int]

_parse_json = msgspec.json.Decoder().decode


def _parse(chunks: Chunks) -> None:
    for payloads in chunks:
        for payload in payloads:
            _parse_json(payload)


def _shipped(chunks: Chunks) -> Folded:
    buckets = _JOB.intervals.new_buckets()
    refusals: list[Refusal] = []
    for payloads in chunks:
        buckets.add(loop.DECODER.decode(payloads, loop.latest_allowed(), refusals))
    parts = [part for element in buckets.drain(time.time()) for part in partial_sums(element, _JOB.grace_period)]
    return {start * loop.SECOND: sums for start, _, sums in parts}, len(refusals)


def _limit(chunks: Chunks) -> Folded:
    sums, _, refused = loop.loop((payload for payloads in chunks for payload in payloads), False, loop.refuse)
    return {index * loop.LENGTH: loop.by_sensor(cells) for (index, _), cells in sums.items()}, len(refused)


_strict_items = loop.typed_items(forbid_unknown_fields=True)
_values = attrgetter(*SENSORS)
_NOTHING = (loop.UNSET,) * len(SENSORS)


def _typed(chunks: Chunks) -> Folded:
    sums: dict[int, list] = defaultdict(lambda: [0.0, 0] * len(SENSORS))
    refusals: list[Refusal] = []
    seconds, fractions, length, unset = loop.SECONDS, loop.FRACTIONS, loop.LENGTH, loop.UNSET
    for payloads in chunks:
        latest = loop.latest_allowed()
        for payload in payloads:
            items = _strict_items(payload)
            for item in items:
                try:
                    at = seconds[item.Timestamp[:19]] + fractions[item.Timestamp[19:]]
                    values = _values(item)
                    if at > latest or values == _NOTHING:
                        raise ValueError  # for the shipped decoder to say why
                except (AttributeError, TypeError, ValueError):
                    decided = loop.decide(payload, items, item, latest, refusals)
                    if decided is None:
                        continue
                    at, _, values = decided
                cells = sums[at // length]
                for place, value in enumerate(values):
                    if value is not unset:
                        cells[2 * place] += value
                        cells[2 * place + 1] += 1
    return {index * loop.LENGTH: loop.by_sensor(cells) for index, cells in sums.items()}, len(refusals)


def _columns(chunks: Chunks) -> Folded:
    sums: dict[int, dict[str, list]] = defaultdict(dict)
    refusals: list[Refusal] = []
    for payloads in chunks:
        latest = loop.latest_allowed()
        gathered: dict[tuple[str, ...], list[dict]] = defaultdict(list)
        for payload in payloads:
            document = _parse_json(payload)
            for fields in document if type(document) is list else (document,):
                gathered[tuple(fields)].append(fields)
        for names, group in gathered.items():
            _add_columns(sums, names, group, latest, refusals)
    return sums, len(refusals)


def _add_columns(
    sums: dict[int, dict[str, list]], names: tuple[str, ...], group: list[dict], latest: float, refusals: list[Refusal]
) -> None:
    sensors = [name for name in names if name in SENSORS]
    columns = [list(map(itemgetter(name), group)) for name in sensors]
    seconds, fractions, length = loop.SECONDS, loop.FRACTIONS, loop.LENGTH
    odd: set[int] = set()
    for column in columns:
        if set(map(type, column)) != {float}:
            odd.update(row for row, value in enumerate(column) if type(value) is not float)
    starts = []
    for row, fields in enumerate(group):
        try:
            stamp = fields[TIMESTAMP]
            event_time = seconds[stamp[:19]] + fractions[stamp[19:]]
        except (KeyError, TypeError, ValueError):
            event_time = 0
        if not 0 < event_time <= latest:
            odd.add(row)
        starts.append(event_time - event_time % length)
    if any(type(device) is not str for device in {fields.get(DEVICE, "") for fields in group}):
        odd.update(range(len(group)))
    if odd:
        for row in odd:
            for slow_time, _, found in loop.DECODER.decode((msgspec.json.encode(group[row]),), latest, refusals):
                for name, value in found.items():
                    _add(sums[slow_time - slow_time % length], name, [value])
        good = [row for row in range(len(group)) if row not in odd]
        columns = [[column[row] for row in good] for column in columns]
        starts = [starts[row] for row in good]
    for start in set(starts):
        for name, column in zip(sensors, columns, strict=True):
            _add(sums[start], name, [value for value, of in zip(column, starts, strict=True) if of == start])


def _add(sums: dict[str, list], name: str, values: list[float]) -> None:
    cell = sums.setdefault(name, [0.0, 0])
    cell[0] += sum(values)
    cell[1] += len(values)


WAYS: dict[str, Callable[[Chunks], Any]] = {
    "parse": _parse,
    "shipped": _shipped,
    "typed": _typed,
    "columns": _columns,
    "loop": _limit,
}


def fold_in_every_way(load: Load, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds of CPU per reading of each way, one per round; they take turns.

    Raises:
      DifferentRows: two ways disagree on the sums or on how many readings are refused; before anything is timed.
    """
    sent = [data for _, data in messages(load, _MESSAGES, past())]
    chunks = [sent[start : start + _Fold.AT_ONCE] for start in range(0, _MESSAGES, _Fold.AT_ONCE)]
    expected = _limit(chunks)
    for name, way in WAYS.items():
        if name != "parse" and (found := way(chunks)) != expected:
            raise DifferentRows(f"{load}: {name} and loop differ: {found[1]} and {expected[1]} refused")
    calls = {name: partial(cpu_micros, [partial(way, chunks)], _MESSAGES * load.packed) for name, way in WAYS.items()}
    return take_turns(calls, rounds)


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return rows of what `fold_in_every_way` does, by readings per message."""
    return [{"packed by": str(one), **fold_in_every_way(Load(packed=one), rounds)} for one in (1, 10, 100)]
