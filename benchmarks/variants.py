"""Variants of the shipped graph, on Beam's own worker: parts of its fold left out, and other options.

Also its fold without Beam, beside the limit. `make bench` runs all of them. Each part includes those before it:

    floor       a DoFn that does nothing
    steps       the shipped graph, whose fold discards messages
    decode      the shipped graph, whose fold decodes messages and discards the readings
    valid       the shipped graph; all readings are valid, as in the parts before
    everything  the shipped graph; 1% of the readings are invalid, so that there are dead letters
"""

import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec

from benchmarks.contenders import Contender, job
from benchmarks.frame import Goal, cpu_micros, ratios, take_turns
from benchmarks.load import Load, bundles, past
from pipeline.aggregate.buckets import FixedBuckets
from pipeline.aggregate.fold import _Fold
from pipeline.decode.decoder import Decoder

# Of intervals of a minute.
OPTIONS = {
    "plain": [],
    **{f"hop={hop}": ["--window=hopping", f"--hop={hop}"] for hop in ("60s", "15s", "1s")},
    "silence_after": ["--silence_after=5m"],
}


def parts(rounds: int) -> list[dict[str, Any]]:
    """Return two rows of microseconds of CPU per reading: of each part with those before it, and of each part alone."""
    floor, shipped = (Contender(name, Load()) for name in ("floor", "shipped"))
    sent, all_valid = ([*bundles(Load(bad=bad), 1, past())] for bad in (Load.bad, 0))
    valid = shipped.turn(all_valid)
    turns = {
        "floor": floor.turn(all_valid),
        "steps": partial(_instead, Decoder, "decode", lambda *messages: iter(()), valid),
        "decode": partial(_instead, FixedBuckets, "add", lambda buckets, readings: bool(deque(readings, 0)), valid),
        "valid": valid,
        "everything": shipped.turn(sent),
    }
    micros = take_turns(turns, rounds)
    medians = [statistics.median(found) for found in micros.values()]
    added = [f"{more - less:+.2f}" for less, more in zip([0.0, *medians], medians, strict=False)]
    return [{"": "with the parts before it", **micros}, {"": "alone", **dict(zip(micros, added, strict=True))}]


def _instead(of: type, method: str, does: Callable[..., Any], turn: Callable[[], float]) -> float:
    with patch.object(of, method, does):
        return turn()


def alone(rounds: int) -> list[dict[str, Any]]:
    """Return rows of the microseconds of CPU per reading of parsing alone, the fold without Beam, and the loop."""
    parse, rows = msgspec.json.Decoder().decode, []
    for load in (Load(), Load(packed=10), Load(packed=100)):
        loop, fold = Contender("loop", load), fold_of(load)
        payloads = loop.prepare(*bundles(load, 1, past()))
        ways: dict[str, Callable[[], object]] = {
            "parse alone": lambda payloads=payloads: deque(map(parse, payloads), maxlen=0),
            "shipped": partial(_folded, fold, payloads),
            "loop": partial(loop.run, payloads),
        }
        turns = {name: partial(cpu_micros, [way], load.readings) for name, way in ways.items()}
        rows.append({"packed by": str(load.packed), **take_turns(turns, rounds)})
    return rows


def fold_of(load: Load) -> _Fold:
    """Return the fold of the shipped graph, set up as a worker does."""
    of = job(load)
    fold = _Fold(of.mapping, of.max_future_skew, of.intervals, None)
    fold.setup()
    return fold


def _folded(fold: _Fold, payloads: Sequence[bytes]) -> list[Any]:
    fold.start_bundle()
    return [emitted for payload in payloads for emitted in fold.process(payload)] + list(fold.finish_bundle())


def options(rounds: int) -> list[dict[str, Any]]:
    """Return a row for each load: microseconds up to the shuffle, and how many times that with each of `OPTIONS`."""
    rows = []
    for load in (Load(), Load(bundle=100, packed=100), Load(devices=10), Load(devices=1000)):
        sent = list(bundles(load, 4, past()))
        loads = {name: replace(load, flags=("--interval=60s", *flags)) for name, flags in OPTIONS.items()}
        turns = {name: Contender("shipped", one).turn(sent, 0.02) for name, one in loads.items()}
        micros = take_turns(turns, rounds, warm_up=1)
        times = {name: ratios(micros, name, "plain") for name in OPTIONS if name != "plain"}
        rows.append({"messages x readings": str(load), "plain, us": micros["plain"], **times})
    return rows


def goals(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Return the goals of hopping windows, for readings that share a row."""
    hops = {name: found for name, found in rows[0].items() if name.startswith("hop")}
    return [Goal(f"{name}: CPU to the shuffle / plain", found, at_most=1.1) for name, found in hops.items()]
