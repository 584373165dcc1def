"""The fold alone, without Beam: the shipped one, two other ways to write it, and the limit.

    parse    nothing but msgspec parsing the JSON
    shipped  `Decoder` and `FixedBuckets`
    typed    msgspec decodes into objects with a field for each sensor, which checks types in C; what that refuses, and
             any reading with other keys, goes through the shipped decoder
    columns  readings with the same keys are gathered, then checked and added up sensor by sensor
    loop     the limit of `benchmarks.contenders`

For one row per interval; each takes 32 messages at a time, as the shipped DoFn does. All make the same sums of the same
messages, or nothing is timed.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Annotated, Any

import msgspec
from rich.table import Table

from benchmarks.contenders import _loop, latest_allowed
from benchmarks.load import INTERVAL, SENSORS, Load, messages
from benchmarks.measure import DifferentRows
from pipeline.fixed_windows import FixedBuckets
from pipeline.fold import _Fold
from pipeline.readings import DEVICE, MAX_DEVICE, TIMESTAMP, Decoder, Reading, Refusal

_LENGTH = INTERVAL * 1_000_000  # microseconds
_LOADS = (Load(), Load(packed=10), Load(packed=100))
_MESSAGES = 960  # a multiple of 32

# ({start of interval in microseconds: {sensor: [sum, count]}}, how many were refused)
Folded = tuple[dict[int, dict[str, list]], int]


def _parse(chunks: Iterable[Sequence[bytes]]) -> None:
    parse = msgspec.json.Decoder().decode
    for payloads in chunks:
        for payload in payloads:
            parse(payload)


def _folded(chunks: Iterable[Sequence[bytes]], decode: Callable[..., Iterator[Reading]]) -> Folded:
    buckets = FixedBuckets(_LENGTH, by_device=False)
    refusals: list[Refusal] = []
    for payloads in chunks:
        buckets.add(decode(payloads, latest_allowed(), refusals))
    return {start: sums_of[""] for start, (_, sums_of) in buckets.drain()}, len(refusals)


def _shipped(chunks: Iterable[Sequence[bytes]]) -> Folded:
    return _folded(chunks, _DECODER.decode)


_DECODER = Decoder(SENSORS)


# --- typed ---

_UNSET = msgspec.UNSET
_Typed = msgspec.defstruct(
    "_Typed",
    [
        (TIMESTAMP, str),
        (DEVICE, Annotated[str, msgspec.Meta(max_length=MAX_DEVICE)], ""),
        *((name, float | msgspec.UnsetType, _UNSET) for name in SENSORS),
    ],
    forbid_unknown_fields=True,
    gc=False,
)
_typed_message = msgspec.json.Decoder(_Typed | list[_Typed]).decode
_typed_item = msgspec.json.Decoder(_Typed).decode
_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_values = attrgetter(*SENSORS)


def _typed(chunks: Iterable[Sequence[bytes]]) -> Folded:
    sums: dict[int, list[list]] = defaultdict(lambda: [[0.0, 0] for _ in SENSORS])
    refusals: list[Refusal] = []
    for payloads in chunks:
        latest = latest_allowed()
        for event_time, values in _typed_readings(payloads, latest, refusals):
            for cell, value in zip(sums[event_time - event_time % _LENGTH], values, strict=True):
                if value is not _UNSET:
                    cell[0] += value
                    cell[1] += 1
    return {
        start: {name: cell for name, cell in zip(SENSORS, cells, strict=True) if cell[1]}
        for start, cells in sums.items()
    }, len(refusals)


def _typed_readings(
    payloads: Iterable[bytes], latest: float, refusals: list[Refusal]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    seconds, fractions = _DECODER._seconds, _DECODER._fractions
    for payload in payloads:
        try:
            document = _typed_message(payload)
        except msgspec.DecodeError:
            document = _raw_items(payload) if payload[:1] == b"[" else payload
        for item in document if type(document) is list else (document,):
            try:
                reading = item if type(item) is _Typed else _typed_item(item)
                stamp = reading.Timestamp
                event_time = seconds[stamp[:19]] + fractions[stamp[19:]]
                values = _values(reading)
                if event_time > latest or values == _NOTHING:
                    raise ValueError  # so that the shipped decoder says why
            except ValueError:
                again = bytes(item) if type(item) is not _Typed else msgspec.json.encode(item)
                for slow_time, _, found in _DECODER.decode((again,), latest, refusals):
                    yield slow_time, tuple(found.get(name, _UNSET) for name in SENSORS)
            else:
                yield event_time, values


_NOTHING = (_UNSET,) * len(SENSORS)


# --- columns ---


def _columns(chunks: Iterable[Sequence[bytes]]) -> Folded:
    sums: dict[int, dict[str, list]] = defaultdict(dict)
    refusals: list[Refusal] = []
    parse = msgspec.json.Decoder().decode
    for payloads in chunks:
        latest = latest_allowed()
        gathered: dict[tuple[str, ...], list[dict]] = defaultdict(list)
        for payload in payloads:
            document = parse(payload)
            for fields in document if type(document) is list else (document,):
                gathered[tuple(fields)].append(fields)
        for names, group in gathered.items():
            _add_columns(sums, names, group, latest, refusals)
    return sums, len(refusals)


def _add_columns(
    sums: dict[int, dict[str, list]],
    names: tuple[str, ...],
    group: list[dict],
    latest: float,
    refusals: list[Refusal],
) -> None:
    seconds, fractions = _DECODER._seconds, _DECODER._fractions
    sensors = [name for name in names if name in SENSORS]
    columns = [list(map(itemgetter(name), group)) for name in sensors]
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
        starts.append(event_time - event_time % _LENGTH)
    if any(type(device) is not str for device in {fields.get(DEVICE, "") for fields in group}):
        odd.update(range(len(group)))
    if odd:
        for row in odd:
            for slow_time, _, found in _DECODER.decode((msgspec.json.encode(group[row]),), latest, refusals):
                for name, value in found.items():
                    _add(sums[slow_time - slow_time % _LENGTH], name, [value])
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


# --- all ---


def _limit(chunks: Iterable[Sequence[bytes]]) -> Folded:
    folded, refused = _loop((payload for payloads in chunks for payload in payloads), by_device=False)
    return {
        index * _LENGTH: {
            name: [total, count] for name, total, count in zip(SENSORS, cells[::2], cells[1::2], strict=True) if count
        }
        for (index, _), cells in folded.items()
    }, refused


WAYS: dict[str, Callable[[Sequence[Sequence[bytes]]], Any]] = {
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
    sent = [data for _, data in messages(load, _MESSAGES, time.time() // INTERVAL * INTERVAL - 600)]
    chunks = [sent[start : start + _Fold.AT_ONCE] for start in range(0, _MESSAGES, _Fold.AT_ONCE)]
    expected = _limit(chunks)
    for name, way in WAYS.items():
        if name != "parse" and (found := way(chunks)) != expected:
            raise DifferentRows(f"{load}: {name} and loop differ: {found[1]} and {expected[1]} refused")
    micros: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            start = time.process_time()
            way(chunks)
            micros[name].append((time.process_time() - start) / _MESSAGES / load.packed * 1e6)
    return micros


def measure(rounds: int) -> dict[int, dict[str, list[float]]]:
    """Return what `fold_in_every_way` does, by readings per message."""
    return {load.packed: fold_in_every_way(load, rounds) for load in _LOADS}


def table(measured: dict[int, dict[str, list[float]]]) -> Table:
    """Return the medians."""
    made = Table(title="The fold alone, microseconds of CPU per reading (median)", title_justify="left")
    made.add_column("readings per message", justify="right")
    for name in WAYS:
        made.add_column(name, justify="right")
    for packed, micros in measured.items():
        made.add_row(str(packed), *(f"{statistics.median(times):.2f}" for times in micros.values()))
    return made
