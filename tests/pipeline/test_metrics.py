"""Counters agree with the rows and dead letters."""

from types import SimpleNamespace

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import graph
from pipeline.aggregate.sums import SECOND, Interval
from pipeline.launch import options
from pipeline.metrics import METRICS
from pipeline.rows import MakeRows
from tests.pipeline.conftest import NOON, captured, message

TOPIC = "--input_topic=projects/test-project/topics/t-1"


def counts(messages: list[bytes], *flags: str) -> dict[str, int]:
    job, beam_options = options.parse(["--runner=FnApiRunner", TOPIC, *flags])
    with captured() as (_, rows), captured() as (_, dead_letters), captured() as (_, silences):
        pipeline = beam.Pipeline(options=beam_options)
        graph.build(pipeline, job, beam.Create(messages), rows, dead_letters, silences)
        result = pipeline.run()
        result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace(METRICS))
    assert {d.key.metric.name for d in found["distributions"]} == {"seconds_to_row"}
    (delay,) = found["distributions"]
    assert delay.committed.count == 2
    return {counter.key.metric.name: counter.committed for counter in found["counters"]}


def test_metrics_count_intervals_before_rows_since():
    long_before = [message(0, Temp=1), message(1, Temp=2), message(15, Temp=3)]
    found = counts([*long_before, message(30, Temp=4), message(45, Temp=5)], "--rows_since=2024-11-22T13:00:30Z")
    assert found == {"messages": 5, "readings": 5, "rows": 2, "intervals_before_start": 2}


def test_metrics_count_every_message_reading_and_row():
    packed = b'[{"Timestamp": %d, "Temp": 1}, {"Timestamp": %d, "AtmP": 2, "site": 1}, {"Timestamp": 1}]' % (NOON, NOON)
    overflow = [message(60, Temp=1e308), message(61, Temp=1e308)]
    assert counts([packed, message(20, Temp=1, a=1, b=2), b"bad", *overflow]) == {
        "messages": 5,
        "readings": 5,
        "ignored_keys": 3,
        "refused_BadTimestamp": 1,
        "refused_NotJson": 1,
        "rows": 2,
        "overflows": 1,
    }


def test_metrics_count_every_silence_once():
    # One of the device and one of the stream; a silence that lasts until the end of the input is none.
    readings = [message(0, Temp=1, Device="a"), message(40, Temp=1, Device="a")]
    assert counts(readings, "--silence_after=30s")["silent_devices_noticed"] == 2


def test_metrics_count_rows_by_kind_and_time_them_from_interval_end(monkeypatch):
    monkeypatch.setattr("pipeline.rows.time", SimpleNamespace(time=lambda: NOON + 60.7))
    start, sums = NOON * SECOND, {"Temp": [1.0, 1]}
    intervals = [
        Interval(start, start + 15 * SECOND, {"a": sums, "b": sums}),
        Interval(start, start + 30 * SECOND, {"a": sums}, revision=1),
        Interval(start, start + 15 * SECOND, {"a": sums, "b": sums, "c": sums}, late="Late"),
        Interval(start, start + 15 * SECOND, {"a": sums, "b": sums, "c": sums, "d": sums}, late="Expired"),
        Interval(start, start + 15 * SECOND, {"a": {"Temp": [float("inf"), 2]}}),
    ]
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    _ = pipeline | beam.Create(intervals) | MakeRows(("Temp",), by_device=True, numbered=True)
    found = pipeline.run().metrics().query(MetricsFilter().with_namespace(METRICS))
    assert {counter.key.metric.name: counter.committed for counter in found["counters"]} == {
        "rows": 3,
        "revised_rows": 1,
        "late_intervals": 3,
        "expired_intervals": 4,
        "overflows": 1,
    }
    [delay] = [distribution.committed for distribution in found["distributions"]]
    assert (delay.count, delay.min, delay.max) == (2, 30, 45)
