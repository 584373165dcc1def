"""Contenders: different ways from message bytes to means, for one load.

    seed     json, fromisoformat, FixedWindows, GroupByKey, mean: how the sample this project grew from does it
    combine  the same steps with CombinePerKey, as Beam's guide teaches
    shipped  `pipeline.graph`: every check, dead letter and metric
    floor    a DoFn that does nothing: the cost of Beam itself
    loop     plain Python without Beam, the checks written out for this load, ignored keys not counted: the limit

All but the loop run on `Worker`.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import FixedWindows, GlobalWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from benchmarks.frame import DifferentRows, cpu_micros
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.loop import averages, by_sensor, fold
from benchmarks.worker import Source, Worker
from pipeline import graph
from pipeline.aggregate.sums import CombineSums, Sums, add_sums, add_values
from pipeline.beam_internals import ReadFromPubSubWithoutLineage
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.launch import options
from pipeline.launch.job import Job

NAMES = ("seed", "combine", "shipped", "floor", "loop")


class Outcome(NamedTuple):
    """The rows and rejections of all messages."""

    rows: dict[tuple[int, str], dict[str, float]]  # sensor to mean, by interval's start in seconds and device or ""
    rejected: int  # readings
    payloads: list[bytes] | None = None  # of the dead letters, sorted; None if they are only counted
    shuffled: int = 0  # records written to the first shuffle
    shuffled_bytes: int = 0  # of these, as encoded, with their windows and timestamps


def compare(load: Load, outcomes: Mapping[str, Outcome], reference: str) -> None:
    """Raise DifferentRows unless all yield the rows and rejections of the reference; the floor yields none."""
    expected = outcomes[reference]
    for name, found in outcomes.items():
        same = (found.rows, found.rejected) == (expected.rows, expected.rejected)
        if name != "floor" and not (same and found.payloads in (None, expected.payloads)):
            sizes = (f"{len(one.rows)} rows, {one.rejected} rejected" for one in (found, expected))
            raise DifferentRows(f"{load}: {name} and {reference} differ: {', '.join(sizes)}")


class Contender:
    """A way from messages to rows, for a load; its name is one of the table above."""

    def __init__(self, name: str, load: Load):
        self.name = name
        self.load = load
        self._worker = None if name == "loop" else Worker(partial(_BUILDS[name], load=load))

    def prepare(self, bundle: Iterable[tuple[float, bytes]]) -> Any:
        """Return a bundle of messages in the form that `run` takes."""
        if self._worker is None:
            return [data for _, data in bundle]
        return self._worker.encode(GlobalWindows.windowed_value(data, Timestamp(at)) for at, data in bundle)

    def run(self, bundle: Any) -> Any:
        """Process one prepared bundle; this is what is timed."""
        return self._worker.run(bundle) if self._worker else fold(bundle, self.load.by_device)

    def turn(self, sent: Iterable[Iterable[tuple[float, bytes]]], seconds: float = 0) -> Callable[[], float]:
        """Return a function that processes the bundles for `seconds` of CPU, and returns microseconds per reading."""
        return partial(cpu_micros, [partial(self.run, self.prepare(one)) for one in sent], self.load.readings, seconds)

    def records(self, left: Any) -> list[tuple[str, WindowedValue]]:
        """Return (step that wrote it, element) for every element that `run` returned."""
        return list(self._worker.decode(left)) if self._worker else []

    def after(self, left: Iterable[Any]) -> list[Callable[[], Any]]:
        """Return the steps after the shuffle of what `run` returned of each bundle, as functions to time."""
        return self._worker.after([record for of_bundle in left for record in of_bundle]) if self._worker else []

    def outcome(self, left: Iterable[Any]) -> Outcome:
        """Compute the means, in plain Python, of what `run` returned of each bundle."""
        sums: dict[tuple[int, str], Sums] = defaultdict(dict)
        grace = job(self.load).grace_period if self.name == "shipped" else None
        parts: list[Partial] = []
        rejected = shuffled = size = 0
        for of_bundle in left:
            if self._worker is None:
                folded, payloads = of_bundle
                rejected += len(payloads)
                parts += [(start, device, by_sensor(of)) for start, _, cells in folded for device, of in cells.items()]
                continue
            for step, data in of_bundle:
                elements = [element for _, element in self.records([(step, data)])]
                if "Bad" in step or "SplitByTag" in step:
                    rejected += len(elements)
                else:
                    shuffled += len(elements)
                    size += len(data)
                    parts += [part for element in elements for part in partial_sums(element, grace)]
        for start, device, of_part in parts:
            add_sums(sums[start, device], of_part)
        return Outcome({key: averages(of_row) for key, of_row in sums.items()}, rejected, None, shuffled, size)


# (interval's start in seconds since the epoch, device or "", sensor to [sum, count]).
Partial = tuple[int, str, dict[str, list]]


def partial_sums(element: WindowedValue, grace: int | None) -> list[Partial]:
    """Return the sums in one shuffled element; nothing else here depends on the shape of the shipped graph's elements.

    Args:
      element: a record of the shipped graph, or one reading of another contender.
      grace: seconds by which the windows of the shipped graph are later than their intervals; None for one reading.
    """
    key, sums_of_key = element.value
    start = int(element.windows[0].start)
    if grace is None:
        return [(start, key, {sensor: [value, 1] for sensor, value in sums_of_key.items()})]
    by_device = sums_of_key if key.startswith("shard") else {key: sums_of_key}
    return [(start - grace, device, sums) for device, sums in by_device.items()]


class _Parse(beam.DoFn):
    def process(self, element: bytes) -> Iterator[Any]:
        document = json.loads(element)
        for item in document if isinstance(document, list) else [document]:
            try:
                values = {name: float(item[name]) for name in SENSORS if name in item}
                yield datetime.fromisoformat(item[TIMESTAMP]).timestamp(), item[DEVICE], values
            except (KeyError, TypeError, ValueError):
                yield beam.pvalue.TaggedOutput("bad", item)


class _MeanPerSensor(CombineSums):
    def add_input(self, accumulator: Sums, values: dict[str, float]) -> Sums:
        add_values(accumulator, values)
        return accumulator

    def extract_output(self, accumulator: Sums) -> dict[str, float]:
        return averages(accumulator)


def _keyed_readings(pipeline: beam.Pipeline, load: Load) -> beam.PCollection:
    by_device = load.by_device
    parsed = pipeline | Source() | beam.ParDo(_Parse()).with_outputs("bad", main="readings")
    # Grouped, so that rejections leave the worker and can be counted, as the dead letters of the shipped graph do.
    _ = parsed["bad"] | "KeyBad" >> beam.WithKeys(0) | "Bad" >> beam.GroupByKey()
    return (
        parsed.readings
        | "Stamp" >> beam.Map(lambda parsed: TimestampedValue(parsed, parsed[0]))
        | "Window" >> beam.WindowInto(FixedWindows(INTERVAL))
        | "Key"
        >> beam.Map(lambda parsed: (parsed[1] if by_device else "", parsed[2])).with_output_types(tuple[str, Any])
    )


def _seed(pipeline: beam.Pipeline, load: Load) -> None:
    grouped = _keyed_readings(pipeline, load) | beam.GroupByKey()
    _ = grouped | beam.MapTuple(lambda device, readings: (device, _MeanPerSensor().apply(readings)))


def _combine(pipeline: beam.Pipeline, load: Load) -> None:
    _ = _keyed_readings(pipeline, load) | beam.CombinePerKey(_MeanPerSensor())


def job(load: Load) -> Job:
    """Return the parameters of the shipped graph."""
    flags = {"input_topic": "projects/bench-project/topics/readings", "interval": f"{INTERVAL}s"}
    flags |= {"sensors": ",".join(load.sensors), "group_by_device": str(load.by_device).lower()}
    return options.parse([*(f"--{name}={value}" for name, value in flags.items()), *load.flags])[0]


def _shipped(pipeline: beam.Pipeline, load: Load) -> None:
    sinks = (beam.FlatMap(lambda element: ()) for _ in range(3))
    graph.build(pipeline, job(load), Source(ReadFromPubSubWithoutLineage), *sinks)


def _floor(pipeline: beam.Pipeline, load: Load) -> None:
    nothing = beam.FlatMap(lambda message: ()).with_output_types(tuple[str, Any])
    _ = pipeline | Source() | nothing | beam.GroupByKey()


_BUILDS = {"seed": _seed, "combine": _combine, "shipped": _shipped, "floor": _floor}
