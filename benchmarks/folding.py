"""The fold alone, without Beam: the shipped one, another way to write it, and the limit.

    parse    nothing but msgspec parsing the JSON
    shipped  `Decoder` and `FixedBuckets`
    typed    msgspec decodes into objects with a field for each sensor, which checks types in C; what that refuses, and
             any reading with other keys, goes through the shipped decoder
    loop     the limit, `benchmarks.loop`

For one row per interval; each takes 32 messages at a time, as the shipped DoFn does. All make the same sums of the same
messages, or nothing is timed.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec

from benchmarks import loop
from benchmarks.contenders import job, partial_sums
from benchmarks.frame import DifferentRows, cpu_micros, take_turns
from benchmarks.load import SENSORS, Load, messages, past
from pipeline.fold import _Fold
from pipeline.readings import Refusal

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


WAYS: dict[str, Callable[[Chunks], Any]] = {"parse": _parse, "shipped": _shipped, "typed": _typed, "loop": _limit}


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
