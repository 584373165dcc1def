"""The shipped graph beside itself, on Beam's own worker: parts of its fold left out, hopping windows, silences.

And its fold without Beam, beside the limit.

    python -m benchmarks.variants    what watching for silences costs, in about a minute; `make bench` has the others

The parts, each with all before it, of bundles of 1,000:

    floor       a DoFn that does nothing
    steps       the shipped graph, whose fold throws messages away
    decode      ... decodes them and throws the readings away
    good        everything, of readings that are all good
    everything  of readings 1% of which are bad, so that there are dead letters
"""

import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec

from benchmarks.contenders import Contender, cell, job
from benchmarks.frame import QUICK, Goal, cpu_micros, publish, ratios, settle, take_turns
from benchmarks.load import Load, bundles, past
from benchmarks.loop import latest_allowed
from pipeline.fold import _Fold
from pipeline.silences import NoticeSilences

OVERLAPS = {"interval / hop = 1": 60, "4": 15, "60": 1}  # by that, the hop of intervals of a minute, in seconds


def parts(rounds: int) -> list[dict[str, Any]]:
    """Return rows of the microseconds of CPU per reading of each part with all before it, and of what each adds."""
    load = Load()
    shipped, floor = Contender("shipped", load), Contender("floor", load)
    [sent], [good] = bundles(load, 1, past()), bundles(replace(load, bad=0), 1, past())
    run = partial(shipped.run, shipped.prepare(sent))
    calls = {
        "floor": partial(floor.run, floor.prepare(sent)),
        "steps": partial(_with_fold, _throw_away, run),
        "decode": partial(_with_fold, _decode, run),
        "good": partial(shipped.run, shipped.prepare(good)),
        "everything": run,
    }
    micros = take_turns({name: partial(cpu_micros, [call], load.readings) for name, call in calls.items()}, rounds)
    medians = [statistics.median(found) for found in micros.values()]
    added = [f"{more - less:+.2f}" for less, more in zip([0.0, *medians], medians, strict=False)]
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


def alone(rounds: int) -> list[dict[str, Any]]:
    """Return rows of the microseconds of CPU per reading of parsing alone, the fold without Beam, and the loop."""
    rows = []
    for load in (Load(), Load(packed=10), Load(packed=100)):
        loop, fold = Contender("loop", load), fold_of(load)
        [sent] = bundles(load, 1, past())
        payloads = loop.prepare(sent)
        ways: dict[str, Callable[[], object]] = {
            "parse alone": lambda payloads=payloads: deque(map(_parse_json, payloads), maxlen=0),
            "shipped": partial(_folded, fold, payloads),
            "loop": partial(loop.run, payloads),
        }
        turns = {name: partial(cpu_micros, [way], load.readings) for name, way in ways.items()}
        rows.append({"packed by": str(load.packed), **take_turns(turns, rounds)})
    return rows


_parse_json = msgspec.json.Decoder().decode


def fold_of(load: Load) -> _Fold:
    """Return the shipped graph's fold, set up as by a worker."""
    of = job(load)
    fold = _Fold(of.sensors, of.max_future_skew, of.intervals.folded, None)
    fold.setup()
    return fold


def _folded(fold: _Fold, payloads: Sequence[bytes]) -> list[Any]:
    fold.start_bundle()
    return [emitted for payload in payloads for emitted in fold.process(payload)] + list(fold.finish_bundle())


def hopping(rounds: int) -> list[dict[str, Any]]:
    """Return a row for each load: microseconds with fixed windows, and how many times these hopping ones cost."""
    flags = {name: ("--window=hopping", "--interval=60s", f"--hop={hop}s") for name, hop in OVERLAPS.items()}
    rows = []
    for load in (Load(), Load(devices=10)):
        sent = list(bundles(load, 4, past()))
        turns = {"fixed": _all_of(replace(load, flags=("--interval=60s",)), sent)}
        turns |= {name: _all_of(replace(load, flags=flags[name]), sent) for name in OVERLAPS}
        micros = take_turns(turns, rounds, warm_up=1)
        times = {name: ratios(micros, name, "fixed") for name in OVERLAPS}
        rows.append({"messages x readings": str(load), "fixed, us": micros["fixed"], **times})
    return rows


def _all_of(load: Load, sent: Sequence[Any]) -> Callable[[], float]:
    """Return a turn of the shipped graph with all of these bundles."""
    shipped = Contender("shipped", load)
    prepared = [shipped.prepare(bundle) for bundle in sent]
    return lambda: cpu_micros([lambda: [shipped.run(one) for one in prepared]], len(sent) * load.readings)


def goals(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Return the goals of hopping windows, of readings that share a row."""
    return [Goal(f"hopping, {name}: CPU to the shuffle / fixed", rows[0][name], at_most=1.1) for name in OVERLAPS]


def silences(load: Load, rounds: int) -> dict[str, Any]:
    """Return a row of CPU per reading without and with `silence_after`, records heard, and CPU for each of these."""
    watching = replace(load, flags=("--silence_after=5m",))
    sent = list(bundles(load, max(2, -(-15_000 // load.readings)), past()))
    micros = take_turns({"off": _all_of(load, sent), "on": _all_of(watching, sent)}, rounds, warm_up=1)
    shipped = Contender("shipped", watching)
    left = [record for bundle in sent for record in shipped.records(shipped.run(shipped.prepare(bundle)))]
    heard = [element.value for _, element in left if type(element.value[1]) is list]  # what is summed up is a dict
    return {
        "bundle": str(load),
        **micros,
        "on / off": ratios(micros, "on", "off"),
        "records heard per 1,000 readings": len(heard) / len(sent) / load.readings * 1000,
        "the watch, per record": cpu_micros([partial(_watch, heard)], len(heard), seconds=0.1),
    }


def _watch(heard: Sequence[Any]) -> None:
    notice: Any = NoticeSilences(300, 5)._notice
    cells: dict[str, tuple[Any, Any]] = {}
    for record in heard:
        notice.process(record, *cells.setdefault(record[0], (cell(), cell())))


if __name__ == "__main__":
    settle()
    loads = (Load(), Load(packed=100), Load(devices=10), Load(devices=1000))
    publish("silences", {"Microseconds of CPU per reading": [silences(load, 1 if QUICK else 11) for load in loads]})
