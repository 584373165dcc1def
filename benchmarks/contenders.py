"""Five ways from message bytes to means.

    seed     json, fromisoformat, FixedWindows, GroupByKey, mean: how the sample this project grew from does it
    combine  the idiom that Beam's guide teaches: the same steps, then CombinePerKey
    shipped  `pipeline.graph` as it is: every check, dead letter and metric
    floor    a DoFn that does nothing: what Beam takes for itself
    loop     plain Python without Beam, the checks written out for just this load, ignored keys not counted: the limit

All but the loop run on `Worker`. Of each, `rows` are the means per interval and device.
"""

import contextlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.transforms.window import FixedWindows, GlobalWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.worker import Sink, Source, Worker
from pipeline import graph, options
from pipeline.readings import DEVICE, MAX_DEVICE, TIMESTAMP, BadTimestamp, parse_timestamp

# (interval's start in seconds since the epoch, device or "") to sensor to mean.
Rows = dict[tuple[int, str], dict[str, float]]

_SECOND = 1_000_000  # microseconds
_LENGTH = INTERVAL * _SECOND
_MAX_FUTURE_SKEW = 600  # seconds, the shipped default
_BAD = "bad"


@dataclass(frozen=True)
class Result:
    """What became of all bundles.

    Attributes:
      rows: None for the floor, which makes none.
      bad: how many readings were refused, or None.
      shuffled: records written to the first shuffle.
      shuffled_bytes: their size, encoded.
    """

    rows: Rows | None
    bad: int | None
    shuffled: int
    shuffled_bytes: int


class Contender:
    """A way from messages to rows, for one load.

    Args:
      name: as in the table above.
      load: what will be sent.
    """

    def __init__(self, name: str, load: Load):
        self.name = name
        self._load = load
        self._worker = None if name == "loop" else Worker(_BUILDS[name](load))

    def prepare(self, bundles: Sequence[Sequence[tuple[float, bytes]]]) -> list[Any]:
        """Return the bundles in the form that `run` takes."""
        if self._worker is None:
            return [[data for _, data in bundle] for bundle in bundles]
        return [
            self._worker.encode(GlobalWindows.windowed_value(data, Timestamp(at)) for at, data in bundle)
            for bundle in bundles
        ]

    @property
    def run(self) -> Callable[[Any], Any]:
        """What is timed: processes one prepared bundle."""
        if self._worker:
            return self._worker.run
        by_device = self._load.by_device
        return lambda payloads: _loop(payloads, by_device)

    def result(self, prepared: Iterable[Any]) -> Result:
        """Process the bundles and finish the averaging in plain Python."""
        if self._worker is None:
            return _finish_loop(map(self.run, prepared))
        return _finish(self.name, (self._worker.decode(self._worker.run(bundle)) for bundle in prepared))

    def after(self, prepared: Iterable[Any]) -> list[Callable[[], Any]]:
        """Return what is to be done after the shuffle with all that comes of these bundles; to be timed too."""
        if self._worker is None:
            return []
        return self._worker.after([left for bundle in prepared for left in self._worker.run(bundle)])


def _finish(name: str, bundles: Iterable[Iterable[tuple[str, Any]]]) -> Result:
    sums: dict[tuple[int, str], dict[str, list]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0]))
    bad = shuffled = size = 0
    grace = options.parse(SHIPPED)[0].grace_period if name == "shipped" else 0
    for bundle in bundles:
        for step, element in bundle:
            if "Bad" in step or "TellApart" in step:
                bad += 1
                continue
            shuffled += 1
            key, kept = element.value
            size += len(_ELEMENT.encode(element.value))
            sharded = name == "shipped" and key.startswith("shard")
            for device, values in kept.items() if sharded else ((key, kept),):
                cells = sums[int(element.windows[0].start) - grace, device]
                for sensor, value in values.items():
                    total, count = value if name == "shipped" else (value, 1)
                    cells[sensor][0] += total
                    cells[sensor][1] += count
    if name == "floor":
        return Result(None, None, shuffled, size)
    return Result(_means(sums), bad, shuffled, size)


def _finish_loop(bundles: Iterable[tuple[dict, int]]) -> Result:
    sums: dict[tuple[int, str], dict[str, list]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0]))
    bad = 0
    for folded, refused in bundles:
        bad += refused
        for (index, device), cells in folded.items():
            for sensor, total, count in zip(SENSORS, cells[::2], cells[1::2], strict=True):
                if count:
                    cell = sums[index * INTERVAL, device][sensor]
                    cell[0] += total
                    cell[1] += count
    return Result(_means(sums), bad, 0, 0)


def _means(sums: dict) -> Rows:
    return {key: {name: total / count for name, (total, count) in cells.items()} for key, cells in sums.items()}


# --- seed and combine ---


class _Parse(beam.DoFn):
    def process(self, element: bytes) -> Iterator[Any]:
        document = json.loads(element)
        for item in document if isinstance(document, list) else [document]:
            try:
                values = {name: float(item[name]) for name in SENSORS if name in item}
                yield datetime.fromisoformat(item[TIMESTAMP]).timestamp(), item[DEVICE], values
            except (KeyError, TypeError, ValueError):
                yield beam.pvalue.TaggedOutput(_BAD, item)


def _stamp(parsed: tuple[float, str, dict[str, float]]) -> TimestampedValue:
    return TimestampedValue(parsed, parsed[0])


def _key(parsed: tuple[float, str, dict[str, float]], by_device: bool) -> tuple[str, dict[str, float]]:
    _, device, values = parsed
    return (device if by_device else ""), values


class _MeanPerSensor(beam.CombineFn):
    def create_accumulator(self) -> dict[str, list]:
        return {}

    def add_input(self, accumulator: dict[str, list], values: dict[str, float]) -> dict[str, list]:
        for name, value in values.items():
            cell = accumulator.setdefault(name, [0.0, 0])
            cell[0] += value
            cell[1] += 1
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, list]]) -> dict[str, list]:
        merged: dict[str, list] = {}
        for accumulator in accumulators:
            for name, (total, count) in accumulator.items():
                cell = merged.setdefault(name, [0.0, 0])
                cell[0] += total
                cell[1] += count
        return merged

    def extract_output(self, accumulator: dict[str, list]) -> dict[str, float]:
        return {name: total / count for name, (total, count) in accumulator.items()}


def _mean_of_all(device: str, readings: Iterable[dict[str, float]]) -> tuple[str, dict[str, float]]:
    fn = _MeanPerSensor()
    accumulator = fn.create_accumulator()
    for values in readings:
        fn.add_input(accumulator, values)
    return device, fn.extract_output(accumulator)


def _keyed_readings(pipeline: beam.Pipeline, load: Load) -> beam.PCollection:
    parsed = pipeline | Source() | beam.ParDo(_Parse()).with_outputs(_BAD, main="readings")
    # Grouped, so that what was refused leaves the worker and can be counted, as the shipped dead letters do.
    _ = parsed[_BAD] | "KeyBad" >> beam.WithKeys(0) | "Bad" >> beam.GroupByKey()
    return (
        parsed.readings
        | "Stamp" >> beam.Map(_stamp)
        | "Window" >> beam.WindowInto(FixedWindows(INTERVAL))
        | "Key" >> beam.Map(_key, load.by_device).with_output_types(tuple[str, Any])
    )


def _seed(load: Load) -> Callable[[beam.Pipeline], None]:
    def build(pipeline: beam.Pipeline) -> None:
        _ = _keyed_readings(pipeline, load) | beam.GroupByKey() | beam.MapTuple(_mean_of_all)

    return build


def _combine(load: Load) -> Callable[[beam.Pipeline], None]:
    def build(pipeline: beam.Pipeline) -> None:
        _ = _keyed_readings(pipeline, load) | beam.CombinePerKey(_MeanPerSensor())

    return build


# --- shipped ---

SHIPPED = ["--input_topic=projects/bench-project/topics/readings", f"--interval={INTERVAL}s"]


def _shipped(load: Load) -> Callable[[beam.Pipeline], None]:
    job, _ = options.parse([*SHIPPED, f"--sensors={','.join(SENSORS)}", f"--group_by_device={load.by_device}".lower()])

    def build(pipeline: beam.Pipeline) -> None:
        graph.build(pipeline, job, Source(), Sink(), Sink())

    return build


# --- floor ---


class _Nothing(beam.DoFn):
    def process(self, element: bytes) -> tuple[()]:
        return ()


def _floor(load: Load) -> Callable[[beam.Pipeline], None]:
    def build(pipeline: beam.Pipeline) -> None:
        nothing = beam.ParDo(_Nothing()).with_output_types(tuple[str, Any])
        _ = pipeline | Source() | nothing | beam.GroupByKey()

    return build


# --- loop ---


_UNSET = msgspec.UNSET
_Reading = msgspec.defstruct(
    "_Reading",
    [(TIMESTAMP, Any, None), (DEVICE, str, ""), *((name, float | msgspec.UnsetType, _UNSET) for name in SENSORS)],
    gc=False,
)
_decode = msgspec.json.Decoder(_Reading | list[_Reading]).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_fraction = re.compile(r"\.\d{1,6}Z", re.ASCII).fullmatch

# Stamps already parsed: what is before and after the point, in microseconds.
_seconds: dict[str, int] = {}
_fractions: dict[str, int] = {}


def _event_time(stamp: Any) -> int:
    micros = parse_timestamp(stamp)
    if type(stamp) is str and _fraction(stamp, 19):
        _fractions[stamp[19:]] = micros % _SECOND
        _seconds[stamp[:19]] = micros - micros % _SECOND
    return micros


def _items(payload: bytes) -> tuple[Sequence[Any], int]:
    """Return the readings whose types are right, and how many are not."""
    try:
        items = _decode(payload)
    except msgspec.DecodeError:
        if not payload.startswith(b"["):
            return (), 1
    else:
        return (items if type(items) is list else (items,)), 0
    good = []
    raw = _decode_raw(payload)
    for item in raw:
        with contextlib.suppress(msgspec.DecodeError):
            good.append(_decode(item))
    return good, len(raw) - len(good)


def latest_allowed() -> float:
    """Return the latest event time that is accepted now, in microseconds since the epoch."""
    return (time.time() + _MAX_FUTURE_SKEW) * _SECOND


def _loop(payloads: Iterable[bytes], by_device: bool) -> tuple[dict, int]:
    """Return ({(index of interval, device): [sum, count of each sensor]}, how many were refused) of one bundle."""
    latest = latest_allowed()
    folded: dict[tuple[int, str], list] = defaultdict(lambda: [0.0, 0] * len(SENSORS))
    refused = 0
    for payload in payloads:
        items, bad = _items(payload)
        refused += bad
        for item in items:
            stamp = item.Timestamp
            try:
                event_time = _seconds[stamp[:19]] + _fractions[stamp[19:]]
            except (KeyError, TypeError):
                try:
                    event_time = _event_time(stamp)
                except BadTimestamp:
                    refused += 1
                    continue
            airtight, pressure, water, temp = item.Airtight, item.AtmP, item.H2OC, item.Temp
            if (
                event_time > latest
                or len(item.Device) > MAX_DEVICE
                or (temp is _UNSET and pressure is _UNSET and airtight is _UNSET and water is _UNSET)
            ):
                refused += 1
                continue
            cells = folded[event_time // _LENGTH, item.Device if by_device else ""]
            if airtight is not _UNSET:
                cells[0] += airtight
                cells[1] += 1
            if pressure is not _UNSET:
                cells[2] += pressure
                cells[3] += 1
            if water is not _UNSET:
                cells[4] += water
                cells[5] += 1
            if temp is not _UNSET:
                cells[6] += temp
                cells[7] += 1
    return folded, refused


_BUILDS: dict[str, Callable[[Load], Callable[[beam.Pipeline], None]]] = {
    "seed": _seed,
    "combine": _combine,
    "shipped": _shipped,
    "floor": _floor,
}
NAMES = (*_BUILDS, "loop")
_ELEMENT = beam.coders.FastPrimitivesCoder()
