"""What holds the watermark while sums are on their way to the step that combines their interval."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.transforms.trigger import Repeatedly
from apache_beam.transforms.window import WindowFn
from apache_beam.utils.timestamp import Timestamp

from pipeline.aggregate.buckets import SummedRun
from pipeline.aggregate.sums import SECOND, Interval
from pipeline.windows.fixed import FixedIntervals, _AssignExpiryWindow, window_for
from pipeline.windows.hopping import PanedIntervals, _SpreadPanes
from pipeline.windows.session import SessionIntervals
from pipeline.windows.session_state import BundleRuns
from tests.pipeline.conftest import NOON, StateCell, Timers, drained

FIXED = FixedIntervals(15, 5, 3600, False)
HOPPING = PanedIntervals(15, 5, 3600, False, hop=5, pane=5)
LONG = PanedIntervals(7200, 5, 3600, False, hop=7200, pane=900)


@pytest.mark.parametrize(
    ("intervals", "due"),
    [(FIXED, [20]), (HOPPING, [10, 15, 20]), (LONG, [3605])],
    ids=["fixed", "hopping", "long"],
)
def test_maybe_expired_sums_have_due_time_of_their_row_as_timestamp(intervals, due):
    # Hopping: the pane of 13:00:00 to 13:00:05 is in the intervals that start at 12:59:50, 12:59:55 and 13:00:00. Long:
    # that of 13:00 to 13:15 is in the interval from 12:00 to 14:00.
    element = NOON * SECOND, "", {"Temp": [1.0, 1]}
    found = list(_AssignExpiryWindow(intervals).process(element))
    # The last microsecond before it: the watermark passes it when it reaches the due time.
    assert [value.timestamp for value in found] == [Timestamp(NOON + seconds) - Timestamp(micros=1) for seconds in due]
    assert [value.windows[0].end for value in found] == [Timestamp(NOON + seconds + 3600) for seconds in due]


@pytest.mark.parametrize(
    ("intervals", "late", "ends"),
    [(HOPPING, None, [10, 15, 20]), (HOPPING, "Late", [10, 15, 20]), (LONG, None, [3605]), (LONG, "Late", [3605])],
    ids=["hopping", "hopping-late", "long", "long-late"],
)
def test_panes_have_due_time_of_their_first_row_as_timestamp(intervals, late, ends, monkeypatch):
    monkeypatch.setattr("pipeline.windows.hopping.time", SimpleNamespace(time=lambda: NOON))
    spread = _SpreadPanes(intervals)
    spread.start_bundle()
    pane = Interval(NOON * SECOND, (NOON + intervals.pane) * SECOND, {"": {"Temp": [1.0, 1]}}, late=late)
    [found] = spread.process(pane)
    assert found.timestamp == Timestamp(NOON + ends[0]) - Timestamp(micros=1)
    assert [window.end for window in found.windows] == [Timestamp(NOON + seconds) for seconds in ends]


@pytest.mark.parametrize("grace", [0, 5, 7, 40])
@pytest.mark.parametrize("intervals", [FIXED, HOPPING, LONG], ids=["fixed", "hopping", "long"])
def test_place_assigns_the_windows_of_the_declared_window_fn(intervals, grace):
    intervals = replace(intervals, grace=grace)
    starts = intervals.starts(NOON * SECOND)
    context = WindowFn.AssignContext(NOON + grace)
    combined_in = [found for start in starts for found in window_for(grace, start, intervals.interval)[1]]
    assert sorted(intervals.window_fn().assign(context)) == combined_in
    element = NOON * SECOND, "", {"Temp": [1.0, 1]}
    expire_in = [found for value in _AssignExpiryWindow(intervals).process(element) for found in value.windows]
    assert set(expire_in) <= set(intervals.expiry_window_fn().assign(context))


@pytest.mark.parametrize("intervals", [FIXED, HOPPING, LONG], ids=["fixed", "hopping", "long"])
def test_expiry_windowing_holds_earliest_timestamp_until_each_pane(intervals):
    windowing = intervals.expiry_windowing
    proto = windowing.to_runner_api(PipelineContext())
    assert proto.output_time == beam_runner_api_pb2.OutputTime.EARLIEST_IN_PANE
    # With a trigger that has an on-time pane, Beam's Python trigger driver holds on until the window's end.
    assert isinstance(windowing.triggerfn, Repeatedly)
    assert not windowing.triggerfn.has_ontime_pane()


def test_side_output_is_in_window_that_ends_before_any_row_is_due():
    # A grouping gives what the watermark has passed the end of its window as timestamp; it must hold the watermark too.
    [output] = drained(FIXED, [(946_684_800 * SECOND, "", {"Temp": 1.0})], NOON)
    element = output.value
    assert element.timestamp == Timestamp(946_684_800 + 20) - Timestamp(micros=1)
    assert [window.max_timestamp() < element.timestamp for window in element.windows] == [True]


def test_expiry_window_of_pane_ends_at_due_time():
    # What is late for the pane may be on time for the interval that starts with it, due at 00:20.
    [value] = _AssignExpiryWindow(HOPPING.panes).process((NOON * SECOND, "", {"Temp": [1.0, 1]}))
    assert value.windows[0].end == Timestamp(NOON + 10)
    assert value.timestamp == value.windows[0].max_timestamp()


@pytest.mark.parametrize("ahead", [0, 600, 600 + 3600])
@pytest.mark.parametrize("intervals", [FIXED, HOPPING, HOPPING.panes], ids=["fixed", "hopping", "panes"])
def test_windowing_accepts_unexpired_sums_when_watermark_is_ahead_of_clock(intervals, ahead):
    oldest = NOON + intervals.expiry_cutoff(0) / SECOND
    accepted_until = (
        oldest + intervals.interval + intervals.grace + intervals.windowing.allowed_lateness.micros / SECOND
    )
    assert NOON + ahead <= accepted_until


class TestSessionTimers:
    def emit(self) -> tuple[Any, StateCell, Timers]:
        return SessionIntervals(10, 5, 3600, False).emit().fn, StateCell(), Timers()

    def test_fires_after_session_is_due_when_timers_count_milliseconds(self):
        emit, state, timers = self.emit()
        emit.process(("", BundleRuns([SummedRun(1, 1, {"Temp": [1.0, 1]})])), state, timers)
        # Due 15 seconds and a microsecond after the epoch.
        assert list(timers.times.values()) == [Timestamp(micros=15_001_000)]

    @pytest.mark.parametrize(("at", "error"), [(9_999_999, "Late"), (10_000_000, None)])
    def test_reading_at_end_of_final_session_begins_the_next(self, at, error):
        emit, state, timers = self.emit()
        emit.process(("", BundleRuns([SummedRun(0, 0, {"Temp": [1.0, 1]})])), state, timers)
        [(tag, due)] = timers.fire()
        assert [interval.row_time for interval in emit.emit_due("", tag, due, state, timers)] == [10_000_000]
        emitted = emit.process(("", BundleRuns([SummedRun(at, at, {"Temp": [1.0, 1]})])), state, timers)
        assert [interval.late for interval in emitted] == ([error] if error else [])
