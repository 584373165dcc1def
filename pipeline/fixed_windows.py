"""Fixed windows: one row per interval of a set length, aligned to the epoch.

Grace is a shift of event time. Beam's windows live `grace` later than the intervals they stand for, so an interval is
emitted once, `grace` after its end, without timers of our own:

    interval  [00:00 ------- 00:15)                    interval=15s, grace=5s
    window        [00:05 ------- 00:20)                fires when the watermark passes 00:20
    row                                *               Timestamp 00:00, holds every reading that arrived until then
    late                                 x  x          until 00:20 + allowed lateness; each makes a pane of its own
    expired                                     x  x   after that; Beam would drop these without a word
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import FixedWindows, GlobalWindows, IntervalWindow, SlidingWindows, WindowFn
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import PaneInfoTiming, WindowedValue

from pipeline.labels import emit_label
from pipeline.memo import Memo
from pipeline.readings import Reading
from pipeline.statistics import MEANS, Statistics
from pipeline.sums import MAX_BUCKETS, SECOND, CombineSums, Interval, Sums

AGED, EXPIRED = "aged", "expired"

# By device.
SumsOf = dict[str, Sums]

# Seconds by which the clock of a worker may be behind the watermark.
_CLOCK_SLACK = 60

# Seconds; longer than any reading can be on its way.
_EVER = 10 * 366 * 24 * 3600


@dataclass(frozen=True)
class FixedIntervals:
    """Intervals of `interval` seconds, emitted `grace` seconds after their end; a row's Timestamp is the start.

    What arrives after that is late for `allowed_lateness` seconds, and then expired. Late sums are set apart; with
    `revise` they instead emit the whole corrected interval again. Expired sums are always set apart. What is kept of
    the readings is up to `statistics`.
    """

    interval: int
    grace: int
    allowed_lateness: int
    revise: bool
    statistics: Statistics = MEANS

    # Of what a bundle's buckets hold in the end.
    folded_type: ClassVar[Any] = tuple[int, Any]

    @property
    def label(self) -> str:
        """The name of the step that holds open intervals, with what must not change while it does."""
        return emit_label(**self._held())

    def _held(self) -> dict[str, tuple[int | str, int | str]]:
        return {
            "interval": (self.interval, 15),
            "grace_period": (self.grace, 5),
            "on_late": ("revise" if self.revise else "dead_letter", "dead_letter"),
            "kept": (self.statistics.kept, MEANS.kept),
        }

    def new_buckets(self, by_device: bool) -> "FixedBuckets":
        """Return empty buckets for one bundle."""
        return FixedBuckets(self.interval * SECOND, by_device, self.statistics)

    def emit(self, clock: Callable[[], float] = time.time) -> beam.PTransform:
        """Return the transform from drained buckets to `Interval`s; `clock` gives seconds since the epoch."""
        return EmitFixedIntervals(self, clock)

    def starts(self, bucket: int) -> Sequence[int]:
        """Return the starts of the intervals that hold a bucket, in order; all are microseconds since the epoch."""
        return (bucket,)

    def window_fn(self) -> WindowFn:
        """Return Beam's windows for these intervals."""
        return FixedWindows(self.interval, self.grace % self.interval)

    def expiry_window_fn(self) -> WindowFn:
        """Return Beam's windows that end where these intervals expire."""
        return SlidingWindows(self.interval + self.allowed_lateness, self.interval, self.grace % self.interval)


class FixedBuckets:
    """Sums of one bundle per interval and device. Times are microseconds since the epoch."""

    def __init__(self, interval: int, by_device: bool, statistics: Statistics = MEANS):
        self._interval = interval
        self._by_device = by_device
        self._add = statistics.add
        self._count = 0
        self._sums: dict[int, SumsOf] = {}

    def add(self, readings: Iterator[Reading]) -> bool:
        """Add readings up, until there are no more or the buckets are full; return whether they are full."""
        add = self._add
        start = end = 0
        sums_of: SumsOf = {}
        for event_time, device, values in readings:
            if not start <= event_time < end:
                start = event_time - event_time % self._interval
                end = start + self._interval
                sums_of = self._sums.setdefault(start, {})
            key = device if self._by_device else ""
            sums = sums_of.get(key)
            if sums is None:
                sums = sums_of[key] = {}
                self._count += 1
            add(sums, values)
            if self._count == MAX_BUCKETS:
                return True
        return False

    def drain(self) -> Iterator[tuple[int, tuple[int, SumsOf]]]:
        """Yield (a time no reading precedes, (the interval's start, Sums by device)), and begin anew."""
        drained, self._sums, self._count = self._sums, {}, 0
        for start, sums_of in drained.items():
            yield start, (start, sums_of)


class EmitFixedIntervals(beam.PTransform):
    """Combines (start, Sums by device) into `Interval`s: on time, late, and expired.

    Beam drops what reaches a grouping more than the allowed lateness behind the watermark, and no DoFn can see the
    watermark. But a pane of a grouping says on which side of its window's end the watermark was. So sums old enough
    to be dropped pass a grouping first whose windows end where lateness does, and which itself drops nothing:

        interval + grace  [--------)
        expiry window     [--------------------------)   fires for each arrival
        pane                    EARLY: to be combined     LATE: expired

    An EARLY pane holds the watermark back until it is combined, so none is dropped there. Sums younger than that by
    the clock skip the detour, since the watermark is never ahead of the clock.
    """

    def __init__(self, intervals: FixedIntervals, clock: Callable[[], float]):
        super().__init__()
        self._intervals = intervals
        self._clock = clock

    def expand(self, sums: beam.PCollection) -> beam.PCollection:
        """Apply the grouping."""
        split = sums | "SplitByAge" >> par_do(_SplitByAge(self._intervals, self._clock)).with_outputs(
            AGED, main="young"
        )
        return emit(self._intervals, split.young, split[AGED])


def emit(it: FixedIntervals, young: beam.PCollection, aged: beam.PCollection) -> beam.PCollection:
    """Add the steps from (bucket's start, Sums by device) to `Interval`s; the `aged` may have expired."""
    windows = beam.Windowing(
        it.window_fn(),
        triggerfn=AfterWatermark(late=AfterCount(1)),
        # Discarding, a late pane holds exactly what came late; accumulating, the whole interval.
        accumulation_mode=AccumulationMode.ACCUMULATING if it.revise else AccumulationMode.DISCARDING,
        allowed_lateness=Duration(seconds=it.allowed_lateness),
    )
    expiry_windows = beam.Windowing(
        it.expiry_window_fn(),
        triggerfn=AfterWatermark(early=AfterCount(1), late=AfterCount(1)),
        accumulation_mode=AccumulationMode.DISCARDING,
        allowed_lateness=Duration(seconds=_EVER),
    )
    judged = (
        aged
        | "AssignExpiryWindow" >> _InWindows(_AssignExpiryWindow(it), expiry_windows)
        | "GroupUntilExpiry" >> beam.GroupByKey()
        | "Judge" >> par_do(_Judge(it)).with_outputs(EXPIRED, main="unexpired")
    )
    in_time = young | "AssignWindow" >> _InWindows(_AssignWindows(it), windows)
    unexpired = judged.unexpired | "AssignWindowToAged" >> _InWindows(_AssignWindow(it), windows)
    emitted = (
        (in_time, unexpired)
        | "AllUnexpired" >> beam.Flatten()
        | "CombineSums" >> beam.CombinePerKey(CombineSums(it.statistics.merge))
        | "Emit" >> beam.ParDo(_Emit(it)).with_output_types(Any)
        # Out of windows that the watermark has passed: the local runner drops such rows at the next reshuffle.
        | "Unwindow" >> beam.WindowInto(GlobalWindows())
    )
    expired = judged[EXPIRED] | "UnwindowExpired" >> beam.WindowInto(GlobalWindows())
    return (emitted, expired) | "AllIntervals" >> beam.Flatten()


class _InWindows(beam.ParDo):
    """A ParDo that yields elements already windowed, sparing WindowInto's work per element.

    Beam's own Reshuffle restores windows in a ParDo in the same way.
    """

    def __init__(self, fn: beam.DoFn, windowing: beam.Windowing):
        super().__init__(fn)
        self._windowing = windowing
        self.with_output_types(tuple[str, Any])

    def get_windowing(self, unused_inputs: Any) -> beam.Windowing:
        return self._windowing


def par_do(fn: beam.DoFn) -> beam.ParDo:
    """Return a ParDo whose main output is (a start in microseconds, Sums by device)."""
    return beam.ParDo(fn).with_output_types(tuple[int, Any])


def aged_before(intervals: FixedIntervals, now: float) -> float:
    """Return the start, in microseconds, of the oldest interval that cannot have expired; `now` is in seconds."""
    return (now - intervals.interval - intervals.grace - intervals.allowed_lateness + _CLOCK_SLACK) * SECOND


class _SplitByAge(beam.DoFn):
    def __init__(self, intervals: FixedIntervals, clock: Callable[[], float]):
        self._intervals = intervals
        self._clock = clock

    def start_bundle(self) -> None:
        self._aged_before = aged_before(self._intervals, self._clock())

    def process(self, element: tuple[int, SumsOf]) -> tuple[Any]:
        start, _ = element
        return (element if start >= self._aged_before else beam.pvalue.TaggedOutput(AGED, element),)


class _AssignWindow(beam.DoFn):
    """To the one interval that starts with the bucket."""

    def __init__(self, intervals: FixedIntervals):
        self._windows = _windows(intervals.grace, intervals.interval)

    def process(self, element: tuple[int, SumsOf]) -> list[WindowedValue]:
        start, sums_of = element
        timestamp, windows = self._windows[start]
        return [WindowedValue(one, timestamp, windows) for one in sums_of.items()]


class _AssignWindows(_AssignWindow):
    """To all intervals that hold the bucket; its timestamp is the end of the first, for which it must not be late."""

    def __init__(self, intervals: FixedIntervals):
        alone = _windows(intervals.grace, intervals.interval)

        def make(bucket: int) -> tuple[Timestamp, tuple[IntervalWindow, ...]]:
            each = [alone[start] for start in intervals.starts(bucket)]
            return each[0][0], tuple(window for _, (window,) in each)

        self._windows = Memo(make, full=max(1, 1_000 // len(intervals.starts(0))))


class _AssignExpiryWindow(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._starts = intervals.starts
        self._windows = _windows(intervals.grace, intervals.interval + intervals.allowed_lateness)

    def process(self, element: tuple[int, SumsOf]) -> list[WindowedValue]:
        bucket, sums_of = element
        return [
            WindowedValue((device, (start, sums)), *self._windows[start])
            for start in self._starts(bucket)
            for device, sums in sums_of.items()
        ]


def _windows(grace: int, length: int) -> Memo[int, tuple[Timestamp, tuple[IntervalWindow, ...]]]:
    """By an interval's start in microseconds, the timestamp for its sums, and the window. Seconds: grace, length."""

    def make(start: int) -> tuple[Timestamp, tuple[IntervalWindow, ...]]:
        begin = start + grace * SECOND
        window = IntervalWindow(Timestamp(micros=begin), Timestamp(micros=begin + length * SECOND))
        # Its end, not the readings' own time: a timestamp before the watermark would be of no use as a hold.
        return window.max_timestamp(), (window,)

    return Memo(make, full=1_000)


class _Judge(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._length = intervals.interval * SECOND

    def process(
        self, element: tuple[str, Iterable[tuple[int, Sums]]], pane: Any = beam.DoFn.PaneInfoParam
    ) -> Iterator[Any]:
        device, arrivals = element
        for start, sums in arrivals:
            if pane.timing == PaneInfoTiming.LATE:
                yield beam.pvalue.TaggedOutput(
                    EXPIRED, Interval(start, start + self._length, device, sums, late="Expired")
                )
            else:
                yield start, {device: sums}


class _Emit(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._grace = intervals.grace
        self._revise = intervals.revise

    def process(
        self, element: tuple[str, Sums], window: Any = beam.DoFn.WindowParam, pane: Any = beam.DoFn.PaneInfoParam
    ) -> list[Interval]:
        device, sums = element
        late = "Late" if pane.timing == PaneInfoTiming.LATE and not self._revise else None
        start, end = (window.start - self._grace).micros, (window.end - self._grace).micros
        return [Interval(start, end, device, sums, pane.index, late)]
