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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import FixedWindows, GlobalWindows, IntervalWindow, SlidingWindows
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import PaneInfoTiming, WindowedValue

from pipeline.labels import emit_label
from pipeline.memo import Memo
from pipeline.readings import Reading
from pipeline.sums import MAX_BUCKETS, SECOND, CombineSums, Interval, Sums, add_values

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
    `revise` they instead emit the whole corrected interval again. Expired sums are always set apart.
    """

    interval: int
    grace: int
    allowed_lateness: int
    revise: bool

    # Of what a bundle's buckets hold in the end.
    folded_type: ClassVar[Any] = tuple[int, Any]

    @property
    def label(self) -> str:
        """The name of the step that holds open intervals, with what must not change while it does."""
        on_late = "revise" if self.revise else "dead_letter"
        return emit_label(interval=(self.interval, 15), grace_period=(self.grace, 5), on_late=(on_late, "dead_letter"))

    def new_buckets(self, by_device: bool) -> "FixedBuckets":
        """Return empty buckets for one bundle."""
        return FixedBuckets(self.interval * SECOND, by_device)

    def emit(self, clock: Callable[[], float] = time.time) -> beam.PTransform:
        """Return the transform from drained buckets to `Interval`s; `clock` gives seconds since the epoch."""
        return EmitFixedIntervals(self, clock)


class FixedBuckets:
    """Sums of one bundle per interval and device. Times are microseconds since the epoch."""

    def __init__(self, interval: int, by_device: bool):
        self._interval = interval
        self._by_device = by_device
        self._count = 0
        self._sums: dict[int, SumsOf] = {}

    def add(self, readings: Iterator[Reading]) -> bool:
        """Add readings up, until there are no more or the buckets are full; return whether they are full."""
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
            add_values(sums, values)
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
        it = self._intervals
        offset = it.grace % it.interval
        windows = beam.Windowing(
            FixedWindows(it.interval, offset),
            triggerfn=AfterWatermark(late=AfterCount(1)),
            # Discarding, a late pane holds exactly what came late; accumulating, the whole interval.
            accumulation_mode=AccumulationMode.ACCUMULATING if it.revise else AccumulationMode.DISCARDING,
            allowed_lateness=Duration(seconds=it.allowed_lateness),
        )
        expiry_windows = beam.Windowing(
            SlidingWindows(it.interval + it.allowed_lateness, it.interval, offset),
            triggerfn=AfterWatermark(early=AfterCount(1), late=AfterCount(1)),
            accumulation_mode=AccumulationMode.DISCARDING,
            allowed_lateness=Duration(seconds=_EVER),
        )
        split = sums | "SplitByAge" >> _par_do(_SplitByAge(it, self._clock)).with_outputs(AGED, main="young")
        judged = (
            split[AGED]
            | "AssignExpiryWindow" >> _InWindows(_AssignExpiryWindow(it), expiry_windows)
            | "GroupUntilExpiry" >> beam.GroupByKey()
            | "Judge" >> _par_do(_Judge(it)).with_outputs(EXPIRED, main="unexpired")
        )
        young = split.young | "AssignWindow" >> _InWindows(_AssignWindow(it), windows)
        unexpired = judged.unexpired | "AssignWindowToAged" >> _InWindows(_AssignWindow(it), windows)
        emitted = (
            (young, unexpired)
            | "AllUnexpired" >> beam.Flatten()
            | "CombineSums" >> beam.CombinePerKey(CombineSums())
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


def _par_do(fn: beam.DoFn) -> beam.ParDo:
    return beam.ParDo(fn).with_output_types(tuple[int, Any])


class _SplitByAge(beam.DoFn):
    def __init__(self, intervals: FixedIntervals, clock: Callable[[], float]):
        self._lifetime = intervals.interval + intervals.grace + intervals.allowed_lateness - _CLOCK_SLACK
        self._clock = clock

    def start_bundle(self) -> None:
        self._aged_before = (self._clock() - self._lifetime) * SECOND

    def process(self, element: tuple[int, SumsOf]) -> tuple[Any]:
        start, _ = element
        return (element if start >= self._aged_before else beam.pvalue.TaggedOutput(AGED, element),)


class _AssignWindow(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._windows = _windows(intervals.grace, intervals.interval)

    def process(self, element: tuple[int, SumsOf]) -> list[WindowedValue]:
        start, sums_of = element
        timestamp, windows = self._windows[start]
        return [WindowedValue(one, timestamp, windows) for one in sums_of.items()]


class _AssignExpiryWindow(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._windows = _windows(intervals.grace, intervals.interval + intervals.allowed_lateness)

    def process(self, element: tuple[int, SumsOf]) -> list[WindowedValue]:
        start, sums_of = element
        timestamp, windows = self._windows[start]
        return [WindowedValue((device, (start, sums)), timestamp, windows) for device, sums in sums_of.items()]


def _windows(grace: int, length: int) -> Memo[int, tuple[Timestamp, tuple[IntervalWindow]]]:
    """By an interval's start in microseconds, the timestamp for its sums, and the window. Seconds: grace, length."""

    def make(start: int) -> tuple[Timestamp, tuple[IntervalWindow]]:
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
