"""What watching for silences costs: `python -m benchmarks.silences`, in about a minute.

The shipped fold with `silence_after` and without, on Beam's worker up to the first shuffle; and the watch itself,
without Beam, for each record that reaches it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.contenders import HEARD, Contender
from benchmarks.growth import Cell
from benchmarks.load import Load, bundles, past
from benchmarks.measure import READINGS
from benchmarks.report import publish
from benchmarks.rounds import QUICK, cpu_micros, ratios, settle, take_turns
from pipeline.silences import NoticeSilences

LOADS = (Load(), Load(packed=100), Load(devices=10), Load(devices=1000))
WAYS = {"off": (), "on": ("--silence_after=5m",)}


def measure(load: Load, rounds: int, seconds: float) -> dict[str, Any]:
    """Return a row of CPU per reading off and on, records heard, and CPU for each of these."""
    count = max(2, -(-READINGS // load.readings))
    turns, heard = {}, []
    for name, flags in WAYS.items():
        fold = Contender("fold", replace(load, flags=flags))
        prepared = [fold.prepare(bundle) for bundle in bundles(load, count, past())]
        heard = [one.value for bundle in prepared for step, one in fold.records(fold.run(bundle)) if HEARD in step]
        calls = [partial(fold.run, bundle) for bundle in prepared]
        turns[name] = partial(cpu_micros, calls, load.readings, seconds)
    micros = take_turns(turns, rounds)
    return {
        "bundle": str(load),
        **micros,
        "on / off": ratios(micros, "on", "off"),
        "records heard per 1,000 readings": len(heard) / count / load.readings * 1000,
        "the watch, per record": cpu_micros([partial(_watch, heard)], len(heard), seconds),
    }


def _watch(heard: Sequence[Any]) -> None:
    notice: Any = NoticeSilences(300, 5)._notice
    cells: dict[str, tuple[Cell, Cell]] = {}
    for record in heard:
        notice.process(record, *cells.setdefault(record[0], (Cell(), Cell())))


if __name__ == "__main__":
    settle()
    rounds, seconds = (1, 0.05) if QUICK else (11, 0.5)
    publish("silences", {"Microseconds of CPU per reading": [measure(load, rounds, seconds) for load in LOADS]})
