"""What a reading costs up to the first shuffle with hopping windows, beside fixed windows of the same interval.

The shipped graph on Beam's own worker, with intervals of a minute that overlap 1, 4 and 60 times.
"""

import statistics
import time
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from rich.table import Table

from benchmarks.load import Load, messages
from benchmarks.ratios import Goal, spread
from benchmarks.worker import Sink, Source, Worker
from pipeline import graph, options

_INTERVAL = 60  # seconds
_OVERLAPS = (1, 4, 60)
_LOADS = (Load(), Load(devices=10))
_BUNDLES = 4

# By the load and how many intervals hold a reading (0: fixed windows), microseconds of CPU per reading of each round.
Measured = dict[Load, dict[int, list[float]]]


def _build(pipeline: beam.Pipeline, load: Load, overlaps: int) -> None:
    hopping = ["--window=hopping", f"--hop={_INTERVAL // overlaps}s"] if overlaps else []
    by_device = f"--group_by_device={load.by_device}".lower()
    topic = "--input_topic=projects/bench-project/topics/readings"
    job, _ = options.parse([topic, f"--interval={_INTERVAL}s", by_device, *hopping])
    graph.build(pipeline, job, Source(), Sink(), Sink())


def measure(rounds: int) -> Measured:
    """Return what each costs, one figure per round; they take turns."""
    return {load: _measure(load, rounds) for load in _LOADS}


def _measure(load: Load, rounds: int) -> dict[int, list[float]]:
    start = time.time() // _INTERVAL * _INTERVAL - 600
    sent = list(messages(load, _BUNDLES * load.bundle, start))
    calls: dict[int, list[Any]] = {}
    for overlaps in (0, *_OVERLAPS):
        worker = Worker(partial(_build, load=load, overlaps=overlaps))
        calls[overlaps] = [
            partial(
                worker.run,
                worker.encode(
                    GlobalWindows.windowed_value(data, Timestamp(at)) for at, data in sent[first : first + load.bundle]
                ),
            )
            for first in range(0, len(sent), load.bundle)
        ]
    micros: dict[int, list[float]] = {overlaps: [] for overlaps in calls}
    for number in range(rounds + 1):
        for overlaps, bundles in calls.items():
            before = time.process_time()
            for run in bundles:
                run()
            if number:  # the first warms up
                micros[overlaps].append((time.process_time() - before) / len(sent) * 1e6)
    return micros


def _ratios(micros: dict[int, list[float]], overlaps: int) -> list[float]:
    return sorted(mine / fixed for mine, fixed in zip(micros[overlaps], micros[0], strict=True))


def goals(measured: Measured) -> list[Goal]:
    """Return the goals, of readings that share a row."""
    of = measured[Load()]
    return [
        Goal(
            f"hopping, {overlaps} intervals per reading: CPU to the shuffle / fixed", _ratios(of, overlaps), at_most=1.1
        )
        for overlaps in _OVERLAPS
    ]


def table(measured: Measured) -> Table:
    """Return the medians, and ratios with their range."""
    made = Table(title="Hopping windows up to the first shuffle, CPU per reading, µs (÷ fixed)", title_justify="left")
    made.add_column("messages x readings", no_wrap=True)
    made.add_column("fixed", justify="right")
    for overlaps in _OVERLAPS:
        made.add_column(f"interval / hop = {overlaps}", justify="right")
    for load, micros in measured.items():
        cells = [f"{statistics.median(micros[n]):.2f} ({spread(_ratios(micros, n))})" for n in _OVERLAPS]
        made.add_row(str(load), f"{statistics.median(micros[0]):.2f}", *cells)
    return made
