"""How cost grows with readings, devices and sensors: CPU, memory, state, and the records that reach one interval.

    python -m benchmarks.growth    about five minutes; BENCH_QUICK=1 takes one, to see that it works

The shipped graph on Beam's own worker, as in `contenders`. Messages here are all good and in order, from devices that
take turns, and are made while they are sent: no stamp comes twice, and none waits in memory.
"""

import gc
import itertools
import json
import logging
import math
import os
import platform
import random
import re
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.internal import pickler
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.worker import Sink, Source, Worker
from pipeline import graph, options
from pipeline.fold import FoldReadings
from pipeline.sums import CombineSums, Sums

_OUT = Path("build/bench")
_SENSORS = (4, 16, 64)
_DEVICES = (1, 10, 100, 1_000, 10_000, 100_000)
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DAY = 24 * 3600


@dataclass(frozen=True)
class Shape:
    """What is sent, and how it is folded.

    Attributes:
      sensors: how many are configured.
      present: how many of them a reading has, each reading the next ones.
      devices: how many send, in turn.
      by_device: keep them apart.
      window: fixed or session.
      interval: seconds.
      bundle: messages per bundle.
      packed: readings per message.
      rate: readings per second of event time.
    """

    sensors: int = 4
    present: int = 4
    devices: int = 1
    by_device: bool = False
    window: str = "fixed"
    interval: int = 15
    bundle: int = 1_000
    packed: int = 1
    rate: float = 1_000

    @property
    def readings(self) -> int:
        """Readings per bundle."""
        return self.bundle * self.packed

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sensors' names."""
        return tuple(f"Sensor{number:02}" for number in range(self.sensors))

    def job(self) -> options.Job:
        """Return the parameters of the pipeline. No grace, so that a window is its interval."""
        flags = {
            "input_topic": "projects/bench-project/topics/readings",
            "sensors": ",".join(self.names),
            "group_by_device": str(self.by_device).lower(),
            "window": self.window,
            "interval": f"{self.interval}s",
            "grace_period": "0s",
            "allowed_lateness": "8000h",  # months of stamps are sent in seconds, and are not to be late
        }
        return options.parse([f"--{name}={value}" for name, value in flags.items()])[0]

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the shipped graph to a pipeline."""
        graph.build(pipeline, self.job(), Source(), Sink(), Sink())

    def build_fold(self, pipeline: beam.Pipeline) -> None:
        """Add the shipped graph up to its first shuffle: that before a grouping or, of sessions, before their state."""
        if self.window == "fixed":
            return self.build(pipeline)
        job = self.job()
        fold = FoldReadings(job.sensors, job.max_future_skew, job.intervals, job.group_by_device)
        # `Worker` stops at groupings only, and would run the step with state in the same stage.
        _ = (pipeline | "ReadMessages" >> Source() | "FoldReadings" >> fold).sums | beam.GroupByKey()
        return None

    def bundles(self, count: int, start: float) -> Iterator[list[bytes]]:
        """Yield the messages of so many bundles, stamped from `start` on, in seconds since the epoch."""
        items = self._readings(start)
        for _ in range(count):
            yield [self._message(items) for _ in range(self.bundle)]

    def _message(self, items: Iterator[str]) -> bytes:
        if self.packed == 1:
            return next(items).encode()
        return f"[{','.join(itertools.islice(items, self.packed))}]".encode()

    def _readings(self, start: float) -> Iterator[str]:
        rng = random.Random(7)
        # Readings differ in their values as they do in their stamps, but 64 of each kind do for that.
        variants = [self._values(rng, number) for number in range(64 * self.sensors)]
        first, step = int(start * 1_000_000), 1_000_000 / self.rate
        second, text = 0, ""
        for number in itertools.count():
            now, micros = divmod(first + int(number * step), 1_000_000)
            if now != second:
                second, text = now, f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S}"
            values = variants[number % len(variants)]
            yield f'{{"Timestamp":"{text}.{micros:06}Z","Device":"device-{number % self.devices}",{values}}}'

    def _values(self, rng: random.Random, number: int) -> str:
        present = (self.names[(number * self.present + place) % self.sensors] for place in range(self.present))
        # Quarters, as a sensor with a resolution has them, and sums of them are exact.
        return ",".join(f'"{name}":{rng.randrange(80, 100) / 4}' for name in present)


class Graph:
    """The shipped graph for one shape, on a worker, up to its first shuffle."""

    def __init__(self, shape: Shape):
        self.shape = shape
        self._worker = Worker(shape.build_fold)

    def prepare(self, bundles: Iterable[list[bytes]]) -> Iterator[Any]:
        """Yield each bundle as the worker gets it."""
        at = Timestamp(0)  # the pipeline does not look at it
        for payloads in bundles:
            yield self._worker.encode(GlobalWindows.windowed_value(payload, at) for payload in payloads)

    def run(self, bundle: Any) -> list[tuple[str, bytes]]:
        """Process a prepared bundle; return what leaves for the shuffle, encoded."""
        return self._worker.run(bundle)

    def records(self, left: list[tuple[str, bytes]]) -> list[Any]:
        """Return what leaves for the shuffle, as windowed (device, sums)."""
        return [element for _, element in self._worker.decode(left)]


def past(seconds: float) -> float:
    """Return a full hour at least so many seconds ago, in seconds since the epoch."""
    return (time.time() - seconds) // 3600 * 3600


# --- readings: a worker that goes on for long ---


@dataclass(frozen=True)
class Checkpoint:
    """A worker after so many readings.

    Attributes:
      readings: processed until now.
      days: of event time they span.
      micros: CPU per reading since the checkpoint before, microseconds.
      resident: memory of the process, bytes.
      blocks: memory blocks that Python has in use.
    """

    readings: int
    days: float
    micros: float
    resident: int
    blocks: int


def endure(shape: Shape, decades: Sequence[int]) -> list[Checkpoint]:
    """Process readings with ever later stamps; return what the worker is like after 10 ** each of `decades` of them."""
    total = 10 ** decades[-1]
    span = total / shape.rate
    worker = Graph(shape)
    bundles = worker.prepare(shape.bundles(total // shape.readings, past(span)))
    found: list[Checkpoint] = []
    for decade in decades:
        since = found[-1].readings if found else 0
        cpu = 0.0
        for bundle in itertools.islice(bundles, (10**decade - since) // shape.readings):
            start = time.process_time()
            worker.run(bundle)
            cpu += time.process_time() - start
        micros = cpu / (10**decade - since) * 1e6
        found.append(Checkpoint(10**decade, 10**decade / shape.rate / _DAY, micros, *_memory()))
    return found


def _memory() -> tuple[int, int]:
    """Return the resident bytes of this process, and the blocks that Python has in use."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return resident, sys.getallocatedblocks()


# --- devices and sensors: one bundle ---


@dataclass(frozen=True)
class Bundle:
    """What a bundle of one shape costs, and what leaves it.

    Attributes:
      shape: of the bundle.
      micros: CPU per reading, microseconds, one per round.
      collecting: the part of it that Python's garbage collector took, one per round.
      records: shuffled per bundle.
      size: bytes shuffled per bundle, with keys and windows.
      peak: bytes of Python objects at the bundle's peak, beyond those before it.
    """

    shape: Shape
    micros: list[float]
    collecting: list[float]
    records: float
    size: float
    peak: int

    @property
    def median(self) -> float:
        """CPU per reading, microseconds."""
        return statistics.median(self.micros)


def compare(shapes: Sequence[Shape], rounds: int, seconds: float) -> list[Bundle]:
    """Measure bundles of each shape, in turns of so many seconds of CPU."""
    graphs = [Graph(shape) for shape in shapes]
    # So many bundles that each device has its turn.
    counts = [max(8, -(-shape.devices // shape.readings)) for shape in shapes]
    prepared = [
        list(worker.prepare(worker.shape.bundles(count, past(3600))))
        for worker, count in zip(graphs, counts, strict=True)
    ]
    left = [[worker.run(bundle) for bundle in own] for worker, own in zip(graphs, prepared, strict=True)]
    peaks = [_peak(worker.run, own[0]) for worker, own in zip(graphs, prepared, strict=True)]
    turns: list[list[tuple[float, float]]] = [[] for _ in shapes]
    for _ in range(rounds):
        for worker, own, found in zip(graphs, prepared, turns, strict=True):
            found.append(_turn(worker.run, own, seconds))
    return [
        Bundle(
            worker.shape,
            [spent / worker.shape.readings * 1e6 for spent, _ in found],
            [part for _, part in found],
            statistics.mean(len(worker.records(each)) for each in out),
            statistics.mean(sum(len(data) for _, data in each) for each in out),
            peak,
        )
        for worker, found, out, peak in zip(graphs, turns, left, peaks, strict=True)
    ]


def _turn(run: Callable[[Any], Any], bundles: Sequence[Any], seconds: float) -> tuple[float, float]:
    """Return the CPU seconds per bundle, and the part of them that the garbage collector took."""
    done, spent, collecting, start = 0, 0.0, 0.0, time.process_time()

    def clock(phase: str, info: Any) -> None:
        nonlocal collecting
        collecting += time.process_time() * (1 if phase == "stop" else -1)

    gc.callbacks.append(clock)
    while not done or spent < seconds:
        run(bundles[done % len(bundles)])
        done += 1
        spent = time.process_time() - start
    gc.callbacks.remove(clock)
    return spent / done, collecting / spent


def _peak(run: Callable[[Any], Any], bundle: Any) -> int:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    run(bundle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


# --- state ---


def state_per_device(shape: Shape, readings: int) -> int:
    """Return the bytes that one device's open interval or session is in a runner's state, after so many readings.

    A fixed interval's are those of its accumulator, a session's those of its device's state cell; both with the coder
    that the graph names. The runner's own keys and indexes come on top.
    """
    pipeline = beam.Pipeline()
    shape.build(pipeline)
    proto = pipeline.to_runner_api()
    coders = PipelineContext(proto.components).coders
    [step] = [
        found
        for found in proto.components.transforms.values()
        if re.fullmatch(r"EmitIntervals(\([^/]*\))?(/CombineSums)?", found.unique_name)
        and found.spec.urn in (common_urns.composites.COMBINE_PER_KEY.urn, common_urns.primitives.PAR_DO.urn)
    ]
    worker = Graph(shape)
    bundles = worker.prepare(shape.bundles(-(-readings // shape.readings), past(3600)))
    partial = [element.value for bundle in bundles for element in worker.records(worker.run(bundle))]
    if shape.window == "fixed":
        combine = beam_runner_api_pb2.CombinePayload.FromString(step.spec.payload)
        return len(coders.get_by_id(combine.accumulator_coder_id).encode(combined(sums for _, sums in partial)))
    par_do = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
    emit = pickler.loads(par_do.do_fn.payload)[0]
    [(name, spec)] = par_do.state_specs.items()
    cell = _Cell()
    for element in partial:
        emit.process(element, **{name: cell}, due=cell)
    return len(coders.get_by_id(spec.read_modify_write_spec.coder_id).encode(cell.value))


def combined(partial: Iterable[Sums]) -> Sums:
    """Return what bundles' sums are when they are added up, as the runner does."""
    combine = CombineSums()
    accumulator = combine.create_accumulator()
    for sums in partial:
        accumulator = combine.add_input(accumulator, sums)
    return accumulator


class _Cell:
    """A state cell, and the timer beside it, which never fires."""

    value: Any = None

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def set(self, when: Timestamp) -> None:
        pass


# --- fan-in ---


@dataclass(frozen=True)
class FanIn:
    """How many records reach the one key of an interval, counted, and by the rule `expected_fan_in`."""

    shape: Shape
    records: int
    expected: float

    @property
    def per_second(self) -> float:
        """Records per second."""
        return self.records / self.shape.interval


def expected_fan_in(shape: Shape) -> float:
    """Return how many bundles have readings of one interval: as many as fit, and those across its two ends."""
    return shape.rate * shape.interval / shape.readings + 1


def combine_micros(rounds: int) -> float:
    """Return the microseconds that `CombineSums` takes for each such record, of four sensors; the median round."""
    worker = Graph(Shape())
    [bundle] = worker.prepare(Shape().bundles(1, past(3600)))
    [record] = worker.records(worker.run(bundle))
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        combined(itertools.repeat(record.value[1], 100_000))
        spent.append((time.process_time() - start) * 10)
    return statistics.median(spent)


def fan_in(shape: Shape) -> FanIn:
    """Count the records of one whole interval, which begins and ends in the middle of a bundle."""
    span = shape.readings / shape.rate
    start = (time.time() - 4 * 3600) // shape.interval * shape.interval
    worker = Graph(shape)
    count = math.ceil(shape.interval / span) + 2
    found: Counter[int] = Counter()
    for bundle in worker.prepare(shape.bundles(count, start - span / 2)):
        found.update(int(element.windows[0].start) for element in worker.records(worker.run(bundle)))
    return FanIn(shape, found[int(start)], expected_fan_in(shape))


# --- report ---

_ENDURED = {
    "one by one": Shape(),
    "packed by 100": Shape(packed=100, bundle=100),
    # Each reading in a second of its own, with a fraction of its own, from one of very many devices.
    "one by one, four months": Shape(rate=0.09999, interval=3600, devices=100_000),
}


def main() -> None:
    """Measure, print, and write build/bench/growth.json and growth.png."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    # Long enough for garbage collections to be in every turn.
    rounds, seconds = (1, 0.05) if quick else (5, 0.8)
    logging.disable(logging.WARNING)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    console = Console(width=None if os.isatty(1) else 160)

    console.print("[dim]readings")
    most = {name: (7 if shape.packed > 1 else 6) - quick for name, shape in _ENDURED.items()}
    endured = {name: endure(shape, range(4, most[name] + 1)) for name, shape in _ENDURED.items()}
    console.print("[dim]sensors")
    sensors = [Shape(sensors=count, present=present) for count in _SENSORS for present in (count, 1)]
    by_sensors = compare(sensors, rounds, seconds)
    console.print("[dim]devices")
    devices = [Shape(devices=count, by_device=count > 1) for count in _DEVICES]
    by_devices = compare([*devices, *(replace(shape, window="session") for shape in devices)], rounds, seconds)
    console.print("[dim]state and fan-in")
    state = {
        window: {
            count: state_per_device(Shape(sensors=count, present=count, window=window), 10_000) for count in _SENSORS
        }
        for window in ("fixed", "session")
    }
    crowded = [Shape(rate=rate, bundle=bundle) for rate in (1_000, 10_000) for bundle in (100, 1_000, 10_000)]
    crowded += [Shape(rate=1_000, interval=300), Shape(rate=100_000, packed=100)]
    crowded += [] if quick else [Shape(rate=100_000)]
    fan_ins = [fan_in(shape) for shape in crowded]

    to_combine = combine_micros(rounds)

    tables = (
        _endured_table(endured),
        _bundle_table("Sensors: a bundle of 1,000 readings", by_sensors),
        _bundle_table("Devices: a bundle of 1,000 readings", by_devices),
        _state_table(state),
        _fan_in_table(fan_ins),
    )
    for table in tables:
        console.print(table)
    console.print(f"To add one such record up takes {to_combine:.1f} us of CPU.", highlight=False)
    _OUT.mkdir(parents=True, exist_ok=True)
    measured = {
        "python": platform.python_version(),
        "beam": beam.__version__,
        "machine": platform.platform(),
        "readings": {name: [asdict(point) for point in points] for name, points in endured.items()},
        "sensors": [asdict(bundle) for bundle in by_sensors],
        "devices": [asdict(bundle) for bundle in by_devices],
        "state_bytes_per_device": state,
        "fan_in": [asdict(one) for one in fan_ins],
        "combine_micros_per_record": to_combine,
    }
    (_OUT / "growth.json").write_text(json.dumps(measured, indent=1) + "\n")
    chart(endured, by_sensors, by_devices, _OUT / "growth.png")
    console.print(f"Written: {_OUT}/growth.json, {_OUT}/growth.png", highlight=False)


def _endured_table(endured: dict[str, list[Checkpoint]]) -> Table:
    table = _table("Readings", "", "readings", "event time", "us CPU per reading", "resident MB", "blocks in use")
    for name, points in endured.items():
        for point in points:
            spans = f"{point.days:,.1f} d" if point.days >= 1 else f"{point.days * _DAY:,.0f} s"
            cost = (f"{point.micros:.2f}", f"{point.resident / 1e6:.1f}", f"{point.blocks:,}")
            table.add_row(name, f"{point.readings:,}", spans, *cost)
        table.add_section()
    return table


def _bundle_table(title: str, bundles: Sequence[Bundle]) -> Table:
    columns = ("us CPU per reading", "range", "collecting", "records", "bytes per reading", "peak kB")
    table = _table(title, "", *columns)
    for one in bundles:
        shape = one.shape
        name = f"{shape.present}/{shape.sensors} sensors, devices: {shape.devices:,}, {shape.window}"
        cost = (f"{one.median:.2f}", f"{min(one.micros):.2f} - {max(one.micros):.2f}")
        collecting = f"{statistics.median(one.collecting):.0%}"
        left = (f"{one.records:,.0f}", f"{one.size / shape.readings:.1f}", f"{one.peak / 1e3:,.0f}")
        table.add_row(name, *cost, collecting, *left)
    return table


def _state_table(state: dict[str, dict[int, int]]) -> Table:
    table = _table("State of an open window", "", *(f"devices: {count:,}" for count in (1, 1_000, 100_000)))
    for window, sizes in state.items():
        for sensors, size in sizes.items():
            table.add_row(f"{window}, {sensors} sensors", f"{size:,} B", f"{size:,} kB", f"{size / 10:,.1f} MB")
    return table


def _fan_in_table(fan_ins: Sequence[FanIn]) -> Table:
    table = _table("Records at the one key of an interval", "", "interval", "readings", "records", "by rule", "per s")
    for one in fan_ins:
        shape = one.shape
        name = f"{shape.rate:,}/s, {shape.bundle:,} messages of {shape.packed}"
        readings = f"{shape.rate * shape.interval:,}"
        table.add_row(
            name, f"{shape.interval} s", readings, f"{one.records:,}", f"{one.expected:,.1f}", f"{one.per_second:,.1f}"
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def chart(
    endured: dict[str, list[Checkpoint]], by_sensors: Sequence[Bundle], by_devices: Sequence[Bundle], path: Path
) -> None:
    """Draw CPU per reading against readings, devices and sensors, and memory against readings."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    ((cpu, memory), (devices, sensors)) = figure.subplots(2, 2)
    for name, points in endured.items():
        across = [point.readings for point in points]
        _draw(cpu, across, [point.micros for point in points], name)
        _draw(memory, across, [point.resident / 1e6 for point in points], name)
    for window in ("fixed", "session"):
        found = [one for one in by_devices if one.shape.window == window]
        _draw(devices, [one.shape.devices for one in found], [one.median for one in found], f"{window} windows")
    for all_present, name in ((True, "all in each reading"), (False, "one in each reading")):
        found = [one for one in by_sensors if (one.shape.present == one.shape.sensors) == all_present]
        _draw(sensors, [one.shape.sensors for one in found], [one.median for one in found], name)
    cpu.set(xlabel="readings processed", ylabel="CPU per reading, microseconds")
    memory.set(xlabel="readings processed", ylabel="resident memory, MB")
    devices.set(xlabel="devices, kept apart (bundles of 1,000)", ylabel="CPU per reading, microseconds")
    sensors.set(xlabel="sensors configured", ylabel="CPU per reading, microseconds")
    for axes in (cpu, memory, devices, sensors):
        top = max(max(line.get_ydata()) for line in axes.lines)
        axes.set(xscale="log", ylim=(0, 1.3 * top))  # the rest is for the legend
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    sensors.set_xticks(_SENSORS, [str(count) for count in _SENSORS])
    sensors.minorticks_off()
    figure.suptitle("What grows, and what does not, up to the first shuffle on Beam's own worker")
    figure.savefig(path, dpi=150)


def _draw(axes: Any, across: Sequence[float], up: Sequence[float], label: str) -> None:
    colour = _COLOURS[len(axes.lines)]
    axes.plot(across, up, marker="o", color=colour, linewidth=2, label=label)


_COLOURS = ("#1f6f8b", "#3a7d44", "#b0413e")


if __name__ == "__main__":
    main()
