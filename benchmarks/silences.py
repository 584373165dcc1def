"""What watching for silences costs: `python -m benchmarks.silences`, in about a minute.

The shipped fold with `silence_after` and without, on Beam's worker up to the first shuffle, in turns; and the watch
itself, without Beam, for each record that reaches it.
"""

import os
import time
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import SHIPPED
from benchmarks.growth import _Cell
from benchmarks.load import INTERVAL, SENSORS, Load, messages
from benchmarks.measure import READINGS, turn
from benchmarks.ratios import spread
from benchmarks.worker import Sink, Source, Worker
from pipeline import options
from pipeline.fold import FoldReadings
from pipeline.silences import NoticeSilences

_LOADS = (Load(), Load(packed=100), Load(devices=10), Load(devices=1000))
_ROUNDS = 11
_SECONDS = 0.5  # of CPU time, for each turn


def _worker(load: Load, *flags: str) -> Worker:
    by_device = f"--group_by_device={load.by_device}".lower()
    job, _ = options.parse([*SHIPPED, f"--sensors={','.join(SENSORS)}", by_device, *flags])

    def build(pipeline: beam.Pipeline) -> None:
        fold = FoldReadings(job.sensors, job.max_future_skew, job.intervals, job.group_by_device, job.silence_after)
        folded = pipeline | Source() | fold
        _ = folded.sums | "EmitIntervals" >> job.intervals.emit() | "Rows" >> Sink()
        _ = folded.dead_letters | "DeadLetters" >> Sink()
        if job.silence_after:
            # State is kept after a shuffle.
            _ = folded.heard | "Heard" >> beam.GroupByKey() | "Silences" >> Sink()

    return Worker(build)


def measure(load: Load) -> tuple[dict[str, list[float]], float, float]:
    """Return microseconds of CPU per reading off and on, by round; records heard per reading, microseconds of each."""
    count = max(2, -(-READINGS // (load.bundle * load.packed))) * load.bundle
    sent = list(messages(load, count, time.time() // INTERVAL * INTERVAL - 600))
    firsts = range(0, count, load.bundle)
    calls: dict[str, list[Any]] = {}
    records: list[Any] = []
    for name, flags in {"off": (), "on": ("--silence_after=5m",)}.items():
        worker = _worker(load, *flags)
        bundles = [
            worker.encode(
                GlobalWindows.windowed_value(data, Timestamp(at)) for at, data in sent[first : first + load.bundle]
            )
            for first in firsts
        ]
        left = [step_and_data for bundle in bundles for step_and_data in worker.run(bundle)]
        records = [element.value for step, element in worker.decode(left) if "Heard" in step]
        calls[name] = [lambda worker=worker, bundle=bundle: worker.run(bundle) for bundle in bundles]
    readings = load.bundle * load.packed
    micros: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, of_name in calls.items():
            micros[name].append(turn(of_name, _SECONDS) / readings * 1e6)
    each = turn([lambda: _watch(records)], _SECONDS) / len(records) * 1e6
    return micros, len(records) / (len(firsts) * readings), each


def _watch(records: list[Any]) -> None:
    notice: Any = NoticeSilences(300, 5)._notice
    cells: dict[str, tuple[_Cell, _Cell]] = {}
    for record in records:
        state, due = cells.setdefault(record[0], (_Cell(), _Cell()))
        notice.process(record, state, due)


def main() -> None:
    """Measure and print."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    table = Table(title="Watching for silences, microseconds of CPU per reading (median)", title_justify="left")
    for column in ("bundle", "off", "on", "on ÷ off", "records heard per 1,000 readings", "the watch, per record"):
        table.add_column(column, justify="right" if table.columns else "left")
    for load in _LOADS:
        micros, heard, each = measure(load)
        off, on = (sorted(micros[name]) for name in ("off", "on"))
        ratios = sorted(one / other for one, other in zip(micros["on"], micros["off"], strict=True))
        medians = [f"{times[len(times) // 2]:.2f}" for times in (off, on)]
        table.add_row(str(load), *medians, spread(ratios), f"{heard * 1000:.3g}", f"{each:.2f}")
    Console(width=None if os.isatty(1) else 200).print(table)


if __name__ == "__main__":
    main()
