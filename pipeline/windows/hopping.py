"""Intervals that consist of panes: hopping windows, and fixed windows of more than 15 minutes.

Hopping windows have a row every `hop` over the last `interval`, so that intervals overlap. Readings are folded once,
into panes, most often of one hop each. A pane is a fixed window, and emitted as such: once when it is due, then
again for sums that are late for it, or have expired. Each emitted pane is then added to the intervals that hold it:

    panes      [00:00 - 00:05)[00:05 - 00:10)[00:10 - 00:15)      interval=15s, hop=5s, grace=5s
    intervals  [--------------- 00:00 ---------------)            row Timestamp 00:00, when the watermark passes 00:20
                              [--------------- 00:05 ---- ...     row Timestamp 00:05, when it passes 00:25
                                             [------ 00:10 ...    row Timestamp 00:10, when it passes 00:30

A reading of 00:12 that arrives at 00:22 is late for the first of these rows, and in the two others. So a reading is in
exactly one place for each of its `interval / hop` intervals: in the row, late, or expired. Up to the first
shuffle, a reading costs as much as with fixed windows of one hop.

A runner may keep every record of an open window until the window fires, so what it holds grows with bundles. Hops of
more than 15 minutes are therefore several panes. For each key, an open interval then holds at most one record for each
completed pane, and those that were late for their pane. Fixed windows are hopping windows whose hop is `interval`.
"""

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import IntervalWindow, SlidingWindows, WindowFn
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.aggregate.buckets import MAYBE_EXPIRED, FixedBuckets
from pipeline.aggregate.sums import SECOND, Interval, SumsOf
from pipeline.decode.bounded_cache import BoundedCache
from pipeline.windows import lateness
from pipeline.windows.fixed import EmitFixedIntervals, FixedIntervals, window_for

# Seconds. Shorter panes hold less while they are open, but an interval has more of them. If each device sends a reading
# every 10 s, 15 minutes are best for a day: the open pane holds about as much as the 95 others together.
_SHORTEST_PANE, _LONGEST_PANE = 60, 900


def pane_length(hop: int) -> int:
    """Return the length in seconds of the panes of intervals that start every `hop` seconds.

    It is the longest length of at most 15 minutes that divides `hop`; or `hop`, if that would be less than a minute.
    """
    if hop <= _LONGEST_PANE:
        return hop
    return next((length for length in range(_LONGEST_PANE, _SHORTEST_PANE - 1, -1) if hop % length == 0), hop)


@dataclass(frozen=True)
class _Panes(FixedIntervals):
    """The panes that intervals consist of.

    Sums that are late for their pane may be on time for later intervals that hold the pane, and are classified for each
    of them. So sums that may have expired are only classified as on time for the pane or not. If not, the GroupByKey
    must not give them a timestamp after the time the pane is due, because a row they are on time for may be due then.
    """

    @property
    def expires_after(self) -> int:
        """Seconds from when a pane is due to when sums that may have expired bypass it."""
        return 0


@dataclass(frozen=True, kw_only=True)
class PanedIntervals(FixedIntervals):
    """Intervals of `interval` seconds that start every `hop` seconds; otherwise like `FixedIntervals`.

    They consist of panes of `pane` seconds. `interval` is a multiple of `hop`, and `hop` is a multiple of `pane`.
    """

    hop: int
    pane: int

    @functools.cached_property
    def panes(self) -> FixedIntervals:
        """The panes that intervals consist of."""
        late = self.grace, self.allowed_lateness, False
        return _Panes(self.pane, *late, self.statistics, self.by_device, self.max_future_skew)

    def _held(self) -> dict[str, tuple[int | str, int | str]]:
        return super()._held() | {"hop": (self.hop, self.interval), "pane": (self.pane, self.hop)}

    def new_buckets(self) -> FixedBuckets:
        """Return empty buckets for one bundle: one for each pane, not for each interval."""
        return self.panes.new_buckets()

    def place(
        self, drained: Iterable[tuple[int, SumsOf]], now: float
    ) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput[str, Any]]:
        """Yield (key, sums) in the windows of the panes, for the buckets that were drained; `now` is in seconds."""
        return self.panes.place(drained, now)

    def emit(self) -> beam.PTransform[Any, Any]:
        """Return the transform from sums to `Interval`s."""
        return EmitPanedIntervals(self)

    def starts(self, bucket: int) -> Sequence[int]:
        """Return the starts of the intervals that hold a pane, in order; all are microseconds since the epoch."""
        last = bucket - bucket % (self.hop * SECOND)
        return range(last - (self.interval - self.hop) * SECOND, last + 1, self.hop * SECOND)

    def window_fn(self) -> WindowFn:
        """Return Beam's windows for these intervals."""
        return SlidingWindows(self.interval, self.hop, self.grace % self.hop)

    def expiry_window_fn(self) -> WindowFn:
        """Return Beam's windows that end where these intervals expire."""
        return SlidingWindows(self.interval + self.expires_after, self.hop, self.grace % self.hop)


class EmitPanedIntervals(beam.PTransform[Any, beam.PCollection[Interval]]):
    """Combines Sums, placed in windows, into panes, and these into `Interval`s: on time, late, and expired.

    A pane that is on time is on time for all its intervals, and holds the watermark until it is in them. Sums that were
    late for their pane may be on time, late or expired for each interval; they are split as in `EmitFixedIntervals`.
    """

    def __init__(self, intervals: PanedIntervals):
        super().__init__()
        self._intervals = intervals

    def expand(self, sums: Any) -> beam.PCollection[Any]:
        intervals = self._intervals
        panes = sums | "EmitPanes" >> EmitFixedIntervals(intervals.panes)
        spread = beam.ParDo(_SpreadPanes(intervals))
        spread = spread.with_output_types(intervals.element_type, **{MAYBE_EXPIRED: tuple[int, str, Any]})
        spread_out = panes | "SpreadPanes" >> spread.with_outputs(MAYBE_EXPIRED, main="unexpired")
        return EmitFixedIntervals(intervals).expand((spread_out.unexpired, spread_out[MAYBE_EXPIRED]))


class _SpreadPanes(beam.DoFn):
    def __init__(self, intervals: PanedIntervals):
        self._intervals = intervals
        self._windows = BoundedCache(self._windows_of, full=max(1, 1_000 // len(intervals.starts(0))))

    def _windows_of(self, pane: int) -> tuple[Timestamp, tuple[IntervalWindow, ...]]:
        """Return the time the first of the intervals that hold a pane is due, and the windows of all of them."""
        grace, interval = self._intervals.grace, self._intervals.interval
        each = [window_for(grace, start, interval) for start in self._intervals.starts(pane)]
        return each[0][0], tuple(window for _, (window,) in each)

    def start_bundle(self) -> None:
        self._cutoff = self._intervals.panes.expiry_cutoff(time.time())

    def process(self, pane: Interval) -> Iterator[Any]:
        # An expired pane may have expired by the clock of another worker, whatever this worker's clock says.
        maybe_expired = pane.late == lateness.EXPIRED or (pane.late and pane.row_time < self._cutoff)
        due, held_in = self._windows[pane.row_time]
        for key, sums in self._intervals.to_keyed(pane.sums_of):
            if maybe_expired:
                yield beam.pvalue.TaggedOutput(MAYBE_EXPIRED, (pane.row_time, key, sums))
            else:
                yield WindowedValue((key, sums), due, held_in)
