"""The shipped graph beside itself: with parts of its fold left out, and with hopping windows; on Beam's own worker.

The parts, each with all before it, of bundles of 1,000:

    floor       a DoFn that does nothing
    steps       the shipped graph, whose fold throws messages away
    decode      ... decodes them and throws the readings away
    good        everything, of readings that are all good
    everything  of readings 1% of which are bad, so that there are dead letters
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from benchmarks.contenders import Contender
from benchmarks.load import Load, bundles, past
from benchmarks.loop import latest_allowed
from benchmarks.report import Goal
from benchmarks.rounds import cpu_micros, ratios, take_turns
from pipeline.fold import _Fold

OVERLAPS = {"interval / hop = 1": 60, "4": 15, "60": 1}  # by that, the hop of intervals of a minute, in seconds
_BUNDLES = 4


def parts(rounds: int) -> list[dict[str, Any]]:
    """Return rows of the microseconds of CPU per reading of each part with all before it, and of what each adds."""
    load = Load()
    shipped, floor = Contender("shipped", load), Contender("floor", load)
    [sent], [good] = bundles(load, 1, past()), bundles(replace(load, bad=0), 1, past())
    calls: dict[str, Callable[[], Any]] = {
        "floor": partial(floor.run, floor.prepare(sent)),
        "steps": partial(_with_fold, _throw_away, partial(shipped.run, shipped.prepare(sent))),
        "decode": partial(_with_fold, _decode, partial(shipped.run, shipped.prepare(sent))),
        "good": partial(shipped.run, shipped.prepare(good)),
        "everything": partial(shipped.run, shipped.prepare(sent)),
    }
    micros = take_turns({name: partial(cpu_micros, [call], load.readings) for name, call in calls.items()}, rounds)
    medians = [statistics.median(found) for found in micros.values()]
    added = [f"+{more - less:.2f}" for less, more in zip([0.0, *medians], medians, strict=False)]
    return [{"": "with all before it", **micros}, {"": "by itself", **dict(zip(micros, added, strict=True))}]


def _throw_away(fold: Any) -> tuple[()]:
    fold._waiting = []
    return ()


def _decode(fold: Any) -> tuple[()]:
    waiting, fold._waiting = fold._waiting, []
    for _ in fold._decoder.decode(waiting, latest_allowed(), []):
        pass
    return ()


def _with_fold(fold: Callable[[Any], Any], call: Callable[[], Any]) -> None:
    with patch.object(_Fold, "_fold", fold):
        call()


def hopping(rounds: int) -> list[dict[str, Any]]:
    """Return a row for each load: microseconds with fixed windows, and how many times these hopping ones cost."""
    return [_hopping(load, rounds) for load in (Load(), Load(devices=10))]


def _hopping(load: Load, rounds: int) -> dict[str, Any]:
    sent = list(bundles(load, _BUNDLES, past()))
    turns = {}
    for name, hop in {"fixed": 0, **OVERLAPS}.items():
        flags = ("--interval=60s", *(("--window=hopping", f"--hop={hop}s") if hop else ()))
        shipped = Contender("shipped", replace(load, flags=flags))
        turns[name] = partial(_run_all, shipped, [shipped.prepare(bundle) for bundle in sent])
    micros = take_turns(turns, rounds, warm_up=1)
    return {
        "messages x readings": str(load),
        "fixed, us": micros["fixed"],
        **{name: ratios(micros, name, "fixed") for name in OVERLAPS},
    }


def _run_all(shipped: Contender, prepared: Sequence[Any]) -> float:
    return cpu_micros([lambda: [shipped.run(bundle) for bundle in prepared]], len(prepared) * shipped.load.readings)


def goals(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Return the goals, of readings that share a row."""
    return [Goal(f"hopping, {name}: CPU to the shuffle / fixed", rows[0][name], at_most=1.1) for name in OVERLAPS]
