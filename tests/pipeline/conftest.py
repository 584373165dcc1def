"""Drives the shipped graph, on Beam's local runner or on Prism, from a TestStream to lists of rows and dead letters."""

import base64
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from local.stack.emulators import free_port
from local.stack.processes import running
from pipeline import graph
from pipeline.aggregate.buckets import Bucketing
from pipeline.decode.reading import Reading
from pipeline.launch import options
from pipeline.launch.job import Job
from pipeline.windows.fixed import FixedIntervals

# 2024-11-22T13:00:00Z: on a boundary of every interval used in these tests, and long past.
NOON = 1_732_280_400

# Flags that choose the engine: none for Beam's local runner, or those of Prism when pytest is given --prism.
ENGINE_FLAGS: list[str] = []

# The experiment with which Prism does not split bundles. It loses state when it does: see tests/engine/test_prism.py.
WITHOUT_SPLITS = "prism_disable_sdf_split"

# What Capture saw, by name: the runner pickles transforms, so they cannot carry the list themselves.
_CAPTURED: dict[str, list] = defaultdict(list)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out on Prism what the model leaves open: that a bundle is processed as sent, before the next event."""
    if config.getoption("--prism"):
        left_out = [item for item in items if item.get_closest_marker("bundles_as_sent")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Starts one Prism for all tests of this process, when pytest is given --prism."""
    prism = request.config.getoption("--prism")
    if not prism:
        yield
        return
    port = free_port()
    command = [prism, f"--job_port={port}", "--log_kind=text", "--log_level=warn", "--serve_http=false"]
    with running("Prism", command, tmp_path_factory.mktemp("prism") / "log"):
        endpoint = f"--job_endpoint=localhost:{port}"
        ENGINE_FLAGS[:] = ["--runner=PrismRunner", endpoint, f"--experiments={WITHOUT_SPLITS}"]
        yield
        ENGINE_FLAGS.clear()


class StateCell:
    """A state cell of one key, as a DoFn uses it; it counts its reads and writes."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.reads = self.writes = 0

    def read(self) -> Any:
        self.reads += 1
        return self.value

    def write(self, value: Any) -> None:
        self.writes += 1
        self.value = value

    def clear(self) -> None:
        self.write(None)


class Timers:
    """The timers of one key by their tags, as a DoFn sets them."""

    def __init__(self) -> None:
        self.times: dict[str, Timestamp] = {}

    def set(self, when: Timestamp, dynamic_timer_tag: str = "") -> None:
        self.times[dynamic_timer_tag] = when

    def fire(self, watermark: Timestamp = MAX_TIMESTAMP) -> Iterator[tuple[str, Timestamp]]:
        """Yield (tag, time) of each that the watermark has passed, the earliest first, also of those set meanwhile."""
        while due := [(when, tag) for tag, when in self.times.items() if when <= watermark]:
            when, tag = min(due)
            del self.times[tag]
            yield tag, when


def drained(intervals: Bucketing, readings: Iterable[Reading], now: float = 0) -> list[Any]:
    """Return the elements that a bundle of these readings leaves the fold as, at `now` by the clock, in seconds."""
    buckets = intervals.new_buckets()
    assert not buckets.add(iter(readings))
    return list(intervals.place(buckets.drain(), now))


class Capture(beam.PTransform):
    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        return elements | beam.FlatMap(_capture, self._name)


def _capture(element: Any, name: str) -> list:
    _CAPTURED[name].append(element)
    return []


def message(seconds: float, **fields: Any) -> bytes:
    """A message with its Timestamp `seconds` after NOON."""
    return json.dumps({"Timestamp": NOON + seconds, **fields}).encode()


class Stream:
    """A TestStream in seconds after NOON; each `add` is a bundle of its own."""

    def __init__(self) -> None:
        self._stream = TestStream().advance_watermark_to(NOON - 3600)

    def add(self, *messages: Any) -> "Stream":
        self._stream = self._stream.add_elements(list(messages))
        return self

    def watermark(self, seconds: float) -> "Stream":
        self._stream = self._stream.advance_watermark_to(NOON + seconds)
        return self

    def end(self) -> TestStream:
        return self._stream.advance_watermark_to_infinity()


def parse(*flags: str) -> tuple[Job, PipelineOptions]:
    """Return the shipped options for these flags, on the engine under test; a --runner among the flags wins."""
    return options.parse(["--input_topic=projects/test-project/topics/readings", *ENGINE_FLAGS, *flags])


def run_through(
    source: beam.PTransform,
    write_rows: beam.PTransform,
    write_dead_letters: beam.PTransform,
    *flags: str,
    write_silences: beam.PTransform | None = None,
) -> None:
    """Run the shipped graph from a source to the given sinks, with the shipped options."""
    job, beam_options = parse(*flags)
    with beam.Pipeline(options=beam_options) as pipeline:
        graph.build(pipeline, job, source, write_rows, write_dead_letters, write_silences)


@contextmanager
def captured() -> Iterator[tuple[list, Capture]]:
    """Yield a list, and the transform that fills it."""
    name = uuid.uuid4().hex
    try:
        yield _CAPTURED[name], Capture(name)
    finally:
        del _CAPTURED[name]


def run_captured(
    source: beam.PTransform, *flags: str, write_silences: beam.PTransform | None = None
) -> tuple[list[dict], list[dict]]:
    """Return the rows, sorted by Timestamp and Device, and the dead letters with decoded payloads."""
    with captured() as (rows, to_rows), captured() as (letters, to_letters):
        run_through(source, to_rows, to_letters, *flags, write_silences=write_silences)
    if ENGINE_FLAGS and "--window=session" not in flags:
        rows = _without_repeats(rows)
    rows = sorted(rows, key=lambda row: (row["Timestamp"], row.get("Device") or ""))
    return rows, [{**letter, "payload": base64.b64decode(letter["payload"])} for letter in letters]


def _without_repeats(rows: list[dict]) -> list[dict]:
    """Leave out a last revision that repeats the one before: Prism writes it when a window expires (tests/engine)."""
    of_row: dict[tuple, list[dict]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.get("Revision", 0)):
        of_row[row["Timestamp"], row.get("Device")].append(row)
    for revisions in of_row.values():
        *_, before, last = [None, *revisions]
        if before and "Revision" in last and _contents(before) == _contents(last):
            revisions.pop()
    return [row for revisions in of_row.values() for row in revisions]


def _contents(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("Revision", "WrittenAt")}


@pytest.fixture
def run_graph():
    """Returns run(stream, *flags) -> (rows, dead letters), on the engine under test."""

    def run(stream: Stream, *flags: str) -> tuple[list[dict], list[dict]]:
        return run_captured(stream.end(), *flags)

    return run


@pytest.fixture
def run_on_worker():
    """Returns run(messages, *flags) -> (rows, dead letters), through Beam's own worker, as a bounded source."""

    def run(messages: list[bytes], *flags: str) -> tuple[list[dict], list[dict]]:
        return run_captured(beam.Create(messages), "--runner=FnApiRunner", *flags)

    return run


@pytest.fixture(params=["unexpired", "maybe_expired"])
def age(request, monkeypatch):
    """Fixed and hopping windows combine readings directly that have not expired by the clock; these are years old."""
    if request.param == "unexpired":
        monkeypatch.setattr(FixedIntervals, "expiry_cutoff", lambda intervals, now: 0.0)
