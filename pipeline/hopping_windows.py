"""Hopping windows: a row every `hop` over the last `interval`, so that intervals overlap.

Readings are folded once, into panes of one hop each. A pane is a fixed window, and emitted as such: once when it is
due, then whatever comes late for it, and what has expired. Each of these is then added to the intervals that hold it:

    panes      [00:00 - 00:05)[00:05 - 00:10)[00:10 - 00:15)      interval=15s, hop=5s, grace=5s
    intervals  [--------------- 00:00 ---------------)            row Timestamp 00:00, when the watermark passes 00:20
                              [--------------- 00:05 ---- ...     row Timestamp 00:05, when it passes 00:25
                                             [------ 00:10 ...    row Timestamp 00:10, when it passes 00:30

A reading of 00:12 that arrives at 00:22 is late for the first of these rows, and in the two others. So a reading is in
exactly one place for each of its `interval / hop` intervals: in the row, late, or expired. What it costs up to the
first shuffle is what it costs with fixed windows of one hop.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import SlidingWindows, WindowFn

from pipeline.fixed_windows import AGED, FixedBuckets, FixedIntervals, aged_before, emit, par_do
from pipeline.sums import SECOND, Interval


@dataclass(frozen=True, kw_only=True)
class HoppingIntervals(FixedIntervals):
    """Intervals of `interval` seconds, of which one starts every `hop` seconds; otherwise like `FixedIntervals`.

    `interval` is a multiple of `hop`.
    """

    hop: int

    @property
    def panes(self) -> FixedIntervals:
        """What intervals are put together from."""
        return FixedIntervals(self.hop, self.grace, self.allowed_lateness, False, self.statistics)

    def _held(self) -> dict[str, tuple[int | str, int | str]]:
        return super()._held() | {"hop": (self.hop, self.interval)}

    def new_buckets(self, by_device: bool) -> FixedBuckets:
        """Return empty buckets for one bundle."""
        return self.panes.new_buckets(by_device)

    def emit(self, clock: Callable[[], float] = time.time) -> beam.PTransform:
        """Return the transform from drained buckets to `Interval`s; `clock` gives seconds since the epoch."""
        return EmitHoppingIntervals(self, clock)

    def starts(self, bucket: int) -> Sequence[int]:
        """Return the starts of the intervals that hold a pane, in order; all are microseconds since the epoch."""
        return range(bucket - (self.interval - self.hop) * SECOND, bucket + 1, self.hop * SECOND)

    def window_fn(self) -> WindowFn:
        """Return Beam's windows for these intervals."""
        return SlidingWindows(self.interval, self.hop, self.grace % self.hop)

    def expiry_window_fn(self) -> WindowFn:
        """Return Beam's windows that end where these intervals expire."""
        return SlidingWindows(self.interval + self.allowed_lateness, self.hop, self.grace % self.hop)


class EmitHoppingIntervals(beam.PTransform):
    """Combines (pane's start, Sums by device) into panes, and these into `Interval`s: on time, late, and expired.

    A pane that is on time is so for all its intervals, and holds the watermark back until it is in them. What came late
    for its pane is young or aged as sums are in `EmitFixedIntervals`; what has expired for its pane, and so for its
    first interval, may be late or on time for the others.
    """

    def __init__(self, intervals: HoppingIntervals, clock: Callable[[], float]):
        super().__init__()
        self._intervals = intervals
        self._clock = clock

    def expand(self, sums: beam.PCollection) -> beam.PCollection:
        """Apply both groupings."""
        panes = self._intervals.panes
        split = (
            sums
            | "EmitPanes" >> panes.emit(self._clock)
            | "SplitByAge" >> par_do(_SplitByAge(panes, self._clock)).with_outputs(AGED, main="young")
        )
        return emit(self._intervals, split.young, split[AGED])


class _SplitByAge(beam.DoFn):
    def __init__(self, panes: FixedIntervals, clock: Callable[[], float]):
        self._panes = panes
        self._clock = clock

    def start_bundle(self) -> None:
        self._aged_before = aged_before(self._panes, self._clock())

    def process(self, pane: Interval) -> tuple[Any]:
        element = pane.row_time, {pane.device: pane.sums}
        young = pane.late is None or pane.row_time >= self._aged_before
        return (element if young else beam.pvalue.TaggedOutput(AGED, element),)
