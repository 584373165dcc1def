"""Sessions: one row per burst of readings, which ends after a gap of silence.

Two readings less than a gap apart are in one session; a session is emitted once the watermark passes its end (last
reading + gap) plus grace. Beam's own Sessions cannot keep an emitted row final: a late reading merges with a window
that has fired, and the merged window fires again. So sessions are implemented here, per device, with state and timers:

    gap=10s, grace=5s      a reading at 00:00, another at 00:08
    session                [00:00 ---- 00:18)      its timer is at 00:23
    row                               *            Timestamp 00:18, when the watermark passes 00:23
    then, at 00:25,        a reading stamped 00:12 would change that row: it is late
                           a reading stamped 00:19 begins another session

Each session has its own timer. When the watermark passes many of them at once, as it does after an outage, they
fire in one bundle. The state of a device is its sessions, each of less than a hundred bytes and its sums, and the end
of its last final row. It is read and written once for each bundle that has readings or timers of the device.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.aggregate.buckets import SessionBuckets, SummedRun
from pipeline.aggregate.statistics import MEANS, Statistics
from pipeline.aggregate.sums import SECOND, Interval
from pipeline.windows import lateness
from pipeline.windows.labels import emit_label
from pipeline.windows.session_state import (
    BundleRuns,
    DeviceSessions,
    DeviceSessionsCoder,
    Session,
    SortedSessions,
    join_by,
)
from pipeline.windows.timers import timer_at


@dataclass(frozen=True)
class SessionIntervals:
    """Sessions that end after `gap` seconds of silence, emitted `grace` seconds later; a row's Timestamp is the end.

    A reading that would change an emitted row is late, and emitted as a late interval. With `revise` it changes the row
    for `allowed_lateness` seconds: the complete session is emitted again, and the rows of sessions that were joined to
    it are retracted. `statistics` says what is accumulated of the readings.
    """

    gap: int
    grace: int
    allowed_lateness: int
    revise: bool
    statistics: Statistics = MEANS
    by_device: bool = False

    # The type of the elements that `place` yields.
    element_type: ClassVar[Any] = tuple[str, BundleRuns]

    @property
    def label(self) -> str:
        """The label of the step that holds open sessions, with each parameter that must not change while it does."""
        return emit_label(
            session_gap=(self.gap, 60),
            grace_period=(self.grace, 5),
            # With `revise`, sessions already written are held; without, they must not be written again.
            on_late=("revise" if self.revise else "dead_letter", "dead_letter"),
            components=(self.statistics.component_names, MEANS.component_names),
            key=("device" if self.by_device else "none", "none"),
        )

    def new_buckets(self) -> SessionBuckets:
        """Return empty buckets for one bundle."""
        return SessionBuckets(self.gap, self.statistics, self.by_device)

    def place(self, drained: Iterable[tuple[str, list[SummedRun]]], now: float) -> Iterator[WindowedValue]:
        """Yield (device, its runs) for the buckets that were drained.

        The timestamp is the first reading's, so that it holds the watermark. `now` is not used.
        """
        for device, runs in drained:
            yield GlobalWindows.windowed_value((device, BundleRuns(runs)), Timestamp(micros=runs[0].first))

    def emit(self) -> "EmitSessions":
        """Return the transform from folded sums to `Interval`s."""
        return EmitSessions(self)


class EmitSessions(beam.PTransform[beam.PCollection[Any], beam.PCollection[Any]]):
    """Joins the runs of bundles to sessions, and emits each session as an `Interval`.

    Input: two of what `SessionIntervals.place` yields: runs, and sums that may have expired, of which there are none.
    """

    def __init__(self, intervals: SessionIntervals):
        super().__init__()
        self.fn = _EmitSessions(intervals)

    def expand(self, sums: Any) -> beam.PCollection[Any]:
        runs, _ = sums
        return runs | "EmitSessions" >> beam.ParDo(self.fn).with_output_types(Interval)


class _EmitSessions(beam.DoFn):
    SESSIONS = ReadModifyWriteStateSpec("sessions", DeviceSessionsCoder())
    # A timer for each session; its tag is the session's `first`.
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, intervals: SessionIntervals):
        self._gap = intervals.gap * SECOND
        self._grace = intervals.grace * SECOND
        self._revise = intervals.revise
        self._join = join_by(intervals.statistics.merge)
        self._revisable_for = intervals.allowed_lateness * SECOND if intervals.revise else 0

    def process(
        self,
        element: tuple[str, BundleRuns],
        state: Any = beam.DoFn.StateParam(SESSIONS),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> list[Interval]:
        device, bundle = element
        before = state.read() or DeviceSessions()
        sessions = SortedSessions(before.pages, self._gap, self._join)
        late: list[Interval] = []
        for run in bundle.runs:
            error = lateness.run_lateness(run.last, before.final_until, self._revise)
            if error:
                end, number = self._end(run), before.late_runs + len(late)
                late.append(Interval(end, end, {device: run.sums}, number, error, run.first))
            else:
                self._set_timer(due, sessions.insert(Session(run.first, run.last, run.sums)))
        state.write(DeviceSessions(sessions.pages, before.final_until, before.late_runs + len(late)))
        return late

    @on_timer(DUE)
    def emit_due(
        self,
        device: Any = beam.DoFn.KeyParam,
        first: Any = beam.DoFn.DynamicTimerTagParam,
        now: Any = beam.DoFn.TimestampParam,
        state: Any = beam.DoFn.StateParam(SESSIONS),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Interval]:
        before = state.read()
        sessions, final_until = SortedSessions(before.pages, self._gap, self._join), before.final_until
        session = sessions.pop(int(first))
        if session is None:
            return  # It was joined to an earlier one.
        if session.open and self._due(session) <= now.micros:
            yield from self._rows(device, session)
            session = self._written(session)
        if session.open or self._due(session) > now.micros:
            self._set_timer(due, sessions.insert(session))
        else:
            final_until = max(final_until, self._end(session))
        state.write(DeviceSessions(sessions.pages, final_until, before.late_runs))

    def _rows(self, device: str, session: Session) -> Iterator[Interval]:
        """Yield the session's row, after retractions of the rows it replaces."""
        end = self._end(session)
        for replaced in session.rows:
            if replaced != end:
                yield Interval(replaced, replaced, {device: {}}, session.revision, first=session.first)
        yield Interval(end, end, {device: session.sums}, session.revision, first=session.first)

    def _written(self, session: Session) -> Session:
        """Return the session with its row recorded as written."""
        written = session.revision + 1, (self._end(session),), False
        return Session(session.first, session.last, session.sums, *written)

    def _end(self, run: SummedRun) -> int:
        return run.last + self._gap

    def _due(self, session: Session) -> int:
        """Return the time at which an open session is emitted, or any other is final; microseconds since the epoch."""
        return self._end(session) + self._grace + (0 if session.open else self._revisable_for)

    def _set_timer(self, due: Any, session: Session) -> None:
        due.set(timer_at(self._due(session)), dynamic_timer_tag=str(session.first))
