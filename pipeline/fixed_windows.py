"""Fixed windows: one row per interval of a set length, aligned to the epoch.

Grace is a shift of event time. Beam's windows live `grace` later than the intervals they stand for, so an interval is
emitted once, `grace` after its end, without timers of our own:

    interval  [00:00 ------- 00:15)                    interval=15s, grace=5s
    window        [00:05 ------- 00:20)                fires when the watermark passes 00:20
    row                                *               Timestamp 00:00, holds every reading that arrived until then
    late                                 x  x          until 00:20 + allowed lateness; each makes a pane of its own
    expired                                     x  x   after that; Beam would drop these without a word
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark, Repeatedly
from apache_beam.transforms.window import (
    FixedWindows,
    GlobalWindows,
    IntervalWindow,
    SlidingWindows,
    TimestampCombiner,
    WindowFn,
)
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import PaneInfoTiming, WindowedValue

from pipeline.aside import in_windows, set_aside
from pipeline.labels import emit_label
from pipeline.readings import Reading
from pipeline.shards import SHARDS, Shard, by_shard, merge_devices
from pipeline.statistics import MEANS, Statistics
from pipeline.sums import MAX_BUCKETS, SECOND, CombineSums, Interval, SumsOf

AGED, EXPIRED = "aged", "expired"

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
    by_device: bool = False

    # What buckets set aside, with its type.
    aside: ClassVar[dict[str, Any]] = {AGED: tuple[int, str, Any]}

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
            "shards": (str(SHARDS if self.sharded else 0), "0"),
        }

    @property
    def sharded(self) -> bool:
        """Whether devices are shuffled by the shard. With `revise` each is a key, as revisions count panes of a key."""
        return self.by_device and not self.revise

    def new_buckets(self) -> "FixedBuckets":
        """Return empty buckets for one bundle."""
        return FixedBuckets(self)

    @property
    def folded(self) -> "FixedIntervals":
        """The intervals that readings are folded into, inside each bundle."""
        return self

    def emit(self) -> beam.PTransform:
        """Return the transform from what was folded to `Interval`s."""
        return EmitFixedIntervals(self)

    def starts(self, bucket: int) -> Sequence[int]:
        """Return the starts of the intervals that hold a bucket, in order; all are microseconds since the epoch."""
        return (bucket,)

    def aged_before(self, now: float) -> float:
        """Return the start, in microseconds, of the oldest interval that cannot have expired; `now` is in seconds."""
        return (now - self.interval - self.grace - self.allowed_lateness + _CLOCK_SLACK) * SECOND

    @property
    def keyed_type(self) -> Any:
        """The type of (key, what is kept for it)."""
        return tuple[str, Shard] if self.sharded else tuple[str, Any]

    def keyed(self, sums_of: SumsOf) -> Iterable[tuple[str, Any]]:
        """Return (key, what is kept for it) of all devices; `sums_of` undoes it."""
        return by_shard(sums_of) if self.sharded else sums_of.items()

    def sums_of(self, key: str, kept: Any) -> SumsOf:
        """Return the Sums by device of what `keyed` returned."""
        return kept if self.sharded else {key: kept}

    @property
    def windowing(self) -> beam.Windowing:
        """In which windows sums are combined."""
        return beam.Windowing(
            self.window_fn(),
            triggerfn=AfterWatermark(late=AfterCount(1)),
            # Discarding, a late pane holds exactly what came late; accumulating, the whole interval.
            accumulation_mode=AccumulationMode.ACCUMULATING if self.revise else AccumulationMode.DISCARDING,
            allowed_lateness=Duration(seconds=self.allowed_lateness),
        )

    @property
    def expiry_windowing(self) -> beam.Windowing:
        """In which windows sums wait to be judged.

        Panes keep the earliest timestamp of their sums, so that the watermark cannot overtake them. The trigger is not
        `AfterWatermark(early=AfterCount(1), late=AfterCount(1))`, because Beam's Python trigger driver then holds the
        watermark until the window's end, though the early pane has been emitted.
        """
        return beam.Windowing(
            self.expiry_window_fn(),
            triggerfn=Repeatedly(AfterCount(1)),
            accumulation_mode=AccumulationMode.DISCARDING,
            timestamp_combiner=TimestampCombiner.OUTPUT_AT_EARLIEST,
            allowed_lateness=Duration(seconds=_EVER),
        )

    def window_fn(self) -> WindowFn:
        """Return Beam's windows for these intervals."""
        return FixedWindows(self.interval, self.grace % self.interval)

    def expiry_window_fn(self) -> WindowFn:
        """Return Beam's windows that end where these intervals expire."""
        return SlidingWindows(self.interval + self.allowed_lateness, self.interval, self.grace % self.interval)


@functools.lru_cache(maxsize=4_000)
def window(grace: int, start: int, length: int) -> tuple[Timestamp, tuple[IntervalWindow]]:
    """Return when an interval's row is due, as its sums' timestamp, and Beam's window for it.

    The readings' own timestamps would be of no use as a watermark hold. `start` is in microseconds, the others are in
    seconds.
    """
    begin = start + grace * SECOND
    found = IntervalWindow(Timestamp(micros=begin), Timestamp(micros=begin + length * SECOND))
    return found.max_timestamp(), (found,)


class FixedBuckets:
    """Sums of one bundle per interval and device. Times are microseconds since the epoch."""

    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._interval = intervals.interval * SECOND
        self._by_device = intervals.by_device
        self._add = intervals.statistics.add
        self._count = 0
        self._sums: dict[int, SumsOf] = {}

    def add(self, readings: Iterator[Reading]) -> bool:
        """Add readings up, until there are no more or the buckets are full; return whether they are full."""
        add, by_device = self._add, self._by_device
        start = end = 0
        sums_of: SumsOf = {}
        for event_time, device, values in readings:
            if not start <= event_time < end:
                start = event_time - event_time % self._interval
                end = start + self._interval
                sums_of = self._sums.setdefault(start, {})
            key = device if by_device else ""
            sums = sums_of.get(key)
            if sums is not None:
                add(sums, values)
                continue
            sums_of[key] = sums = {}
            add(sums, values)
            self._count += 1
            if self._count == MAX_BUCKETS:
                return True
        return False

    def drain(self, now: float) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput]:
        """Yield (key, what is kept for it) in the windows of the intervals, and begin anew; `now` is in seconds.

        What may have expired is set aside instead, as (the bucket's start, key, what is kept for it).
        """
        drained, self._sums, self._count = self._sums, {}, 0
        aged_before = self._intervals.aged_before(now)
        for start, sums_of in drained.items():
            due, held_in = window(self._intervals.grace, start, self._intervals.interval)
            for key, kept in self._intervals.keyed(sums_of):
                if start >= aged_before:
                    yield WindowedValue((key, kept), due, held_in)
                else:
                    yield set_aside(AGED, (start, key, kept), due)


class EmitFixedIntervals(beam.PTransform):
    """Combines Sums, placed in windows, into `Interval`s: on time, late, and expired.

    Beam drops what reaches a grouping more than the allowed lateness behind the watermark, and no DoFn can see the
    watermark. But a pane of a grouping says on which side of its window's end the watermark was. So sums old enough
    to be dropped pass a grouping first whose windows end where lateness does, and which itself drops nothing:

        interval + grace  [--------)
        expiry window     [--------------------------)   fires for each arrival
        pane                    EARLY: to be combined     LATE: expired

    Until it is combined, a pane holds the watermark back at the time its row is due: what was on time when it was
    folded is never late, and no EARLY pane is dropped. Sums younger than that by the clock skip the detour, since the
    watermark is never ahead of the clock.

    Input: two, of what `FixedBuckets` drain: young sums in their windows, and aged ones.
    """

    def __init__(self, intervals: FixedIntervals):
        super().__init__()
        self._intervals = intervals

    def expand(self, sums: Any) -> beam.PCollection:
        """Apply the grouping."""
        it = self._intervals
        young, aged = sums
        assign = beam.ParDo(_AssignExpiryWindow(it)).with_output_types(tuple[str, Any])
        judge = beam.ParDo(_Judge(it)).with_output_types(it.keyed_type, **{EXPIRED: Any})
        waiting = in_windows(aged | "AssignExpiryWindow" >> assign, it.expiry_windowing)
        grouped = waiting | "GroupUntilExpiry" >> beam.GroupByKey()
        judged = grouped | "Judge" >> judge.with_outputs(EXPIRED, main="unexpired")
        in_time = in_windows(young, it.windowing), in_windows(judged.unexpired, it.windowing)
        merge = functools.partial(merge_devices, it.statistics.merge) if it.sharded else it.statistics.merge
        combined = in_time | "AllUnexpired" >> beam.Flatten() | "CombineSums" >> beam.CombinePerKey(CombineSums(merge))
        emitted = combined | "Emit" >> beam.ParDo(_Emit(it)).with_output_types(Any)
        # Out of windows that the watermark has passed: the local runner drops such rows at the next reshuffle.
        everywhen = beam.Windowing(GlobalWindows())
        all_intervals = in_windows(emitted, everywhen), in_windows(judged[EXPIRED], everywhen)
        return all_intervals | "AllIntervals" >> beam.Flatten()


class _AssignExpiryWindow(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._until_expiry = intervals.interval + intervals.allowed_lateness

    def process(self, element: tuple[int, str, Any]) -> Iterator[WindowedValue]:
        bucket, key, kept = element
        grace, interval = self._intervals.grace, self._intervals.interval
        for start in self._intervals.starts(bucket):
            # The timestamp is when the row is due, not the end of the expiry window: until the sums are combined, the
            # watermark must not pass that time.
            due, _ = window(grace, start, interval)
            _, expiry_window = window(grace, start, self._until_expiry)
            yield WindowedValue((key, (start, kept)), due, expiry_window)


class _Judge(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._length = intervals.interval * SECOND

    def process(
        self,
        element: tuple[str, Iterable[tuple[int, Any]]],
        timestamp: Any = beam.DoFn.TimestampParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        key, arrivals = element
        for start, kept in arrivals:
            if pane.timing != PaneInfoTiming.LATE:
                yield WindowedValue((key, kept), *window(self._intervals.grace, start, self._intervals.interval))
                continue
            expired = Interval(start, start + self._length, self._intervals.sums_of(key, kept), late="Expired")
            yield beam.pvalue.TaggedOutput(EXPIRED, GlobalWindows.windowed_value(expired, timestamp))


class _Emit(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._grace = intervals.grace
        self._revise = intervals.revise

    def process(
        self, element: tuple[str, Any], window: Any = beam.DoFn.WindowParam, pane: Any = beam.DoFn.PaneInfoParam
    ) -> list[WindowedValue]:
        late = "Late" if pane.timing == PaneInfoTiming.LATE and not self._revise else None
        start, end = (window.start - self._grace).micros, (window.end - self._grace).micros
        interval = Interval(start, end, self._intervals.sums_of(*element), pane.index, late)
        return [GlobalWindows.windowed_value(interval, window.max_timestamp())]
