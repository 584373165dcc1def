"""Sessions: one row per burst of readings, which ends after a gap of silence.

Two readings less than a gap apart are in one session; a session is emitted once the watermark passes its end (last
reading + gap) plus grace. Beam's own Sessions cannot keep an emitted row final: a late reading merges with a window
that has fired, and the merged window fires again. So sessions are kept here, per device, in Beam's state and timers:

    gap=10s, grace=5s      a reading at 00:00, another at 00:08
    session                [00:00 ---- 00:18)      its timer is at 00:23
    row                               *            Timestamp 00:18, when the watermark passes 00:23
    then, at 00:25,        a reading stamped 00:12 would change that row: it is late
                           a reading stamped 00:19 begins a session of its own

State per device: its open sessions, each of less than a hundred bytes and its sums, and the end of its last row. All of
it is read and written for each run of readings that arrives and for each row, so the work of a device with very many
open sessions grows with their square: see docs/cost.md.
"""

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.coders import FastPrimitivesCoder, VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.aggregate.buckets import SessionBuckets, SummedRun
from pipeline.aggregate.runs import touching
from pipeline.aggregate.statistics import MEANS, Statistics
from pipeline.aggregate.sums import SECOND, Interval, Sums
from pipeline.windows.labels import emit_label


@dataclass(frozen=True)
class SessionIntervals:
    """Sessions that end after `gap` seconds of silence, emitted `grace` seconds later; a row's Timestamp is the end.

    A reading that would change an emitted row is late, and set apart. With `revise` it changes the row for
    `allowed_lateness` seconds: the whole session is emitted again, and rows that it swallowed are retracted.
    What is kept of the readings is up to `statistics`.
    """

    gap: int
    grace: int
    allowed_lateness: int
    revise: bool
    statistics: Statistics = MEANS
    by_device: bool = False

    # The type of the elements that `place` yields.
    element_type: ClassVar[Any] = tuple[str, Any]

    @property
    def label(self) -> str:
        """The name of the step that holds open sessions, with what must not change while it does."""
        return emit_label(
            session_gap=(self.gap, 60),
            grace_period=(self.grace, 5),
            # With `revise`, sessions already written are held; without, they must not be written again.
            on_late=("revise" if self.revise else "dead_letter", "dead_letter"),
            kept=(self.statistics.component_names, MEANS.component_names),
            key=("device" if self.by_device else "none", "none"),
        )

    def new_buckets(self) -> SessionBuckets:
        """Return empty buckets for one bundle."""
        return SessionBuckets(self.gap, self.statistics, self.by_device)

    def place(self, drained: Iterable[tuple[str, list[SummedRun]]], now: float) -> Iterator[WindowedValue]:
        """Yield (device, (first reading, last reading, Sums)) for what `SessionBuckets` drained.

        The timestamp is the first reading's, so that it holds the watermark back. Sessions have no use for `now`.
        """
        for device, runs in drained:
            for run in runs:
                element = device, (run.first, run.last, run.sums)
                yield GlobalWindows.windowed_value(element, Timestamp(micros=run.first))

    def emit(self) -> "EmitSessions":
        """Return the transform from folded sums to `Interval`s."""
        return EmitSessions(self)


class EmitSessions(beam.PTransform):
    """Joins the runs of bundles to sessions, and emits each session as an `Interval`.

    Input: two of what `SessionIntervals.place` yields: runs, and sums that may have expired, of which there are none.
    """

    def __init__(self, intervals: SessionIntervals):
        super().__init__()
        self.fn = _EmitSessions(intervals)

    def expand(self, sums: Any) -> beam.PCollection:
        """Apply the joining."""
        runs, _ = sums
        return runs | "EmitSessions" >> beam.ParDo(self.fn).with_output_types(Any)


class _Session(SummedRun):
    """A run, and what is known of its rows.

    Attributes:
      revision: that its next row will have.
      rows: the Timestamps of rows already written for it, or for runs that it has swallowed.
      open: whether it holds readings that are in no row yet.
    """

    revision: int = 0
    rows: tuple[int, ...] = ()
    open: bool = True


def _join(runs: list[_Session], new: _Session, gap: int, merge: Callable[[Sums, Sums], None]) -> _Session:
    """Add `new` to `runs`, in place and in order, joined with all that it touches; return the joined run."""
    near = touching(runs, new, gap)
    if near.start == near.stop:
        runs.insert(near.start, new)
        return new
    joined, *others = runs[near]
    for run in [*others, new]:
        joined.first = min(joined.first, run.first)
        joined.last = max(joined.last, run.last)
        joined.revision = max(joined.revision, run.revision)
        joined.rows += run.rows
        joined.open = True
        merge(joined.sums, run.sums)
    runs[near] = [joined]
    return joined


def _copy(sums: Sums) -> Sums:
    """Return a copy that shares nothing: what is in the state changes, inputs and outputs of a DoFn must not."""
    return {name: list(components) for name, components in sums.items()}


class _EmitSessions(beam.DoFn):
    # (end of the last row that cannot change any more, fields of each _Session)
    SESSIONS = ReadModifyWriteStateSpec("sessions", FastPrimitivesCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)
    # How many runs of the device were too late, so that each has a number of its own.
    LATE_RUNS = ReadModifyWriteStateSpec("late_runs", VarIntCoder())

    def __init__(self, intervals: SessionIntervals):
        self._gap = intervals.gap * SECOND
        self._grace = intervals.grace * SECOND
        self._too_late = "Expired" if intervals.revise else "Late"
        self._merge = intervals.statistics.merge
        self._keep = intervals.allowed_lateness * SECOND if intervals.revise else 0

    def process(
        self,
        element: tuple[str, tuple[int, int, Sums]],
        sessions: Any = beam.DoFn.StateParam(SESSIONS),
        due: Any = beam.DoFn.TimerParam(DUE),
        late_runs: Any = beam.DoFn.StateParam(LATE_RUNS),
    ) -> list[Interval]:
        device, (first, last, sums) = element
        final_until, runs = self._read(sessions)
        if last < final_until:
            end, number = last + self._gap, late_runs.read() or 0
            late_runs.write(number + 1)
            return [Interval(end, end, {device: sums}, number, self._too_late, first)]
        _join(runs, _Session(first, last, _copy(sums)), self._gap, self._merge)
        self._write(final_until, runs, sessions, due)
        return []

    @on_timer(DUE)
    def emit_due(
        self,
        device: str = beam.DoFn.KeyParam,
        now: Any = beam.DoFn.TimestampParam,
        sessions: Any = beam.DoFn.StateParam(SESSIONS),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Interval]:
        final_until, runs = self._read(sessions)
        kept = []
        for run in runs:
            end = run.last + self._gap
            if run.open and end + self._grace <= now.micros:
                for swallowed in run.rows:
                    if swallowed != end:
                        yield Interval(swallowed, swallowed, {device: {}}, run.revision, first=run.first)
                yield Interval(end, end, {device: _copy(run.sums)}, run.revision, first=run.first)
                run.revision, run.rows, run.open = run.revision + 1, (end,), False
            if run.open or end + self._grace + self._keep > now.micros:
                kept.append(run)
            else:
                final_until = max(final_until, end)
        self._write(final_until, kept, sessions, due)

    def _read(self, sessions: Any) -> tuple[int, list[_Session]]:
        final_until, runs = sessions.read() or (0, [])
        # In order of time, in which earlier versions did not write them.
        return final_until, [_Session(*run) for run in sorted(runs, key=operator.itemgetter(0))]

    def _write(self, final_until: int, runs: list[_Session], sessions: Any, due: Any) -> None:
        sessions.write((final_until, [(r.first, r.last, r.sums, r.revision, r.rows, r.open) for r in runs]))
        if runs:
            next_due = min(run.last + self._gap + self._grace + (0 if run.open else self._keep) for run in runs)
            # Dataflow's timers count milliseconds; rounded down, one would fire before its session is due, for ever.
            due.set(Timestamp(micros=-(-next_due // 1000) * 1000))
