"""Fixed windows: one row per interval of a set length, aligned to the epoch.

The window of an interval is the interval shifted by `grace`. Beam emits a window when the watermark passes its end, so
an interval is emitted once, `grace` after its own end, without a timer:

    interval  [00:00 ------- 00:15)                    interval=15s, grace=5s
    window        [00:05 ------- 00:20)                fires when the watermark passes 00:20
    row                                *               Timestamp 00:00, holds every reading that arrived until then
    late                                 x  x          until 00:20 + allowed lateness; each fires a pane
    expired                                     x  x   after that; Beam would silently drop these

`lateness` decides between these. docs/event-time.md has the timestamps of all elements, and what holds the
watermark until they are combined.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.aggregate.buckets import MAYBE_EXPIRED, FixedBuckets
from pipeline.aggregate.shards import SHARDS, Shard, by_shard, merge_devices
from pipeline.aggregate.statistics import MEANS, Statistics
from pipeline.aggregate.sums import SECOND, CombineSums, Interval, SumsOf
from pipeline.beam_internals import declare_windowing
from pipeline.side_output import NEVER_DROPPED, to_side_output
from pipeline.windows import lateness
from pipeline.windows.labels import emit_label

# Tag of intervals that have expired.
_EXPIRED = "expired"

# Seconds by which the watermark may be ahead of a worker's clock, besides `max_future_skew`.
_CLOCK_SLACK = 3600


@dataclass(frozen=True)
class FixedIntervals:
    """Intervals of `interval` seconds, emitted `grace` seconds after their end; a row's Timestamp is the start.

    What arrives after that is late for `allowed_lateness` seconds, and then expired. Late sums are emitted as late
    intervals; with `revise`, the complete interval is emitted again instead. Expired sums are always emitted as expired
    intervals. `statistics` says what is accumulated of the readings; these are at most `max_future_skew` seconds ahead
    of the clock.
    """

    interval: int
    grace: int
    allowed_lateness: int
    revise: bool
    statistics: Statistics = MEANS
    by_device: bool = False
    max_future_skew: int = 600

    @property
    def label(self) -> str:
        """The label of the step that holds open intervals, with each parameter that must not change while it does."""
        return emit_label(**self._held())

    def _held(self) -> dict[str, tuple[int | str, int | str]]:
        return {
            "interval": (self.interval, 15),
            "grace_period": (self.grace, 5),
            "on_late": ("revise" if self.revise else "dead_letter", "dead_letter"),
            # With `revise`, a row is held for as long as it can be revised. A reading that is within a longer allowed
            # lateness, but whose row is no longer held, would begin another row in its place.
            "allowed_lateness": (self.allowed_lateness if self.revise else 3600, 3600),
            "components": (self.statistics.component_names, MEANS.component_names),
            "key": (f"{SHARDS} shards" if self.sharded else "device" if self.by_device else "none", "none"),
        }

    @property
    def expires_after(self) -> int:
        """Seconds from when a row is due to when its interval has expired."""
        return self.allowed_lateness

    @property
    def sharded(self) -> bool:
        """Whether devices are shuffled by the shard. With `revise` each is a key, as revisions count panes of a key."""
        return self.by_device and not self.revise

    def new_buckets(self) -> FixedBuckets:
        """Return empty buckets for one bundle."""
        return FixedBuckets(self.interval, self.statistics, self.by_device)

    def place(
        self, drained: Iterable[tuple[int, SumsOf]], now: float
    ) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput[str, Any]]:
        """Yield (key, sums) in the windows of the intervals, for the buckets that were drained; `now` is in seconds.

        Sums that may have expired by the clock go to the side output instead, as (start of the interval, key, sums).
        """
        cutoff = self.expiry_cutoff(now)
        for start, sums_of in drained:
            due, held_in = window_for(self.grace, start, self.interval)
            for key, sums in self.to_keyed(sums_of):
                if start >= cutoff:
                    yield WindowedValue((key, sums), due, held_in)
                else:
                    yield to_side_output(MAYBE_EXPIRED, (start, key, sums), due)

    def emit(self) -> beam.PTransform[Any, Any]:
        """Return the transform from sums to `Interval`s."""
        return EmitFixedIntervals(self)

    def starts(self, bucket: int) -> Sequence[int]:
        """Return the starts of the intervals that hold a bucket, in order; all are microseconds since the epoch."""
        return (bucket,)

    def expiry_cutoff(self, now: float) -> float:
        """Return the start, in microseconds, of the oldest interval that has not expired at `now`, in seconds."""
        return lateness.expiry_cutoff(now, self.interval + self.grace, self.allowed_lateness)

    @property
    def element_type(self) -> Any:
        """The type of (key, sums) that `place` yields."""
        return tuple[str, Shard] if self.sharded else tuple[str, Any]

    def to_keyed(self, sums_of: SumsOf) -> Iterable[tuple[str, Any]]:
        """Return (key, sums) for all devices: the key is a device, and the sums its own, or those of a shard."""
        return by_shard(sums_of) if self.sharded else sums_of.items()

    def from_keyed(self, key: str, sums: Any) -> SumsOf:
        """Return the sums by device of an element that `to_keyed` returned."""
        return sums if self.sharded else {key: sums}

    def combine_sums(self) -> CombineSums:
        """Return the CombineFn that adds up the sums of a key that `to_keyed` returns."""
        merge = self.statistics.merge
        return CombineSums(functools.partial(merge_devices, merge) if self.sharded else merge)

    @property
    def windowing(self) -> beam.Windowing:
        """The windows in which sums are combined.

        Sums come here directly if they have not expired by the worker's clock. So that none of them is dropped when the
        watermark is ahead of that clock, a window accepts sums for longer than `allowed_lateness`, by as much as the
        watermark may be ahead. It follows the timestamps of readings, which are at most `max_future_skew` ahead.
        """
        return beam.Windowing(
            self.window_fn(),
            triggerfn=AfterWatermark(late=AfterCount(1)),
            # When discarding, a late pane holds only the late sums; when accumulating, the complete interval.
            accumulation_mode=AccumulationMode.ACCUMULATING if self.revise else AccumulationMode.DISCARDING,
            allowed_lateness=self.allowed_lateness + self.max_future_skew + _CLOCK_SLACK,
        )

    @property
    def expiry_windowing(self) -> beam.Windowing:
        """The windows in which sums are classified as expired or not.

        Panes keep the earliest timestamp of their sums, so that the watermark cannot overtake them. The trigger is not
        `AfterWatermark(early=AfterCount(1), late=AfterCount(1))`, because Beam's Python trigger driver then holds the
        watermark until the window's end, though the early pane has been emitted.
        """
        return beam.Windowing(
            self.expiry_window_fn(),
            triggerfn=Repeatedly(AfterCount(1)),
            accumulation_mode=AccumulationMode.DISCARDING,
            timestamp_combiner=TimestampCombiner.OUTPUT_AT_EARLIEST,
            allowed_lateness=NEVER_DROPPED,
        )

    def window_fn(self) -> WindowFn:
        """Return Beam's windows for these intervals."""
        return FixedWindows(self.interval, self.grace % self.interval)

    def expiry_window_fn(self) -> WindowFn:
        """Return Beam's windows that end where these intervals expire."""
        return SlidingWindows(self.interval + self.expires_after, self.interval, self.grace % self.interval)


@functools.lru_cache(maxsize=4_000)
def window_for(grace: int, start: int, length: int) -> tuple[Timestamp, tuple[IntervalWindow]]:
    """Return the timestamp of an interval's sums, which is when its row is due, and its window.

    The timestamps of its readings would not hold the watermark until then.

    Args:
      grace: seconds.
      start: of the interval, microseconds since the epoch.
      length: of the interval, seconds.
    """
    begin = start + grace * SECOND
    found = IntervalWindow(Timestamp(micros=begin), Timestamp(micros=begin + length * SECOND))
    return found.max_timestamp(), (found,)


class EmitFixedIntervals(beam.PTransform[Any, beam.PCollection[Interval]]):
    """Combines the sums of bundles, and emits `Interval`s: on time, late, and expired.

    GroupByKey silently drops elements that are more than the allowed lateness behind the watermark, and a DoFn cannot
    read the watermark. A pane's timing, however, shows on which side of its window's end the watermark was. Sums that
    may have expired therefore first pass a GroupByKey whose windows end when intervals expire, and which drops nothing:

        interval + grace  [--------)
        expiry window     [--------------------------)   fires for each arrival
        pane                    EARLY: to be combined     LATE: expired

    Sums that have not expired by the worker's clock skip it. All sums have the time their row is due as timestamp, and
    keep it until they are combined. So the watermark cannot pass that time before then, and a reading that was on time
    when it was folded is never late.

    Input: two of what `FixedIntervals.place` yields: sums in their windows, and sums that may have expired.
    """

    def __init__(self, intervals: FixedIntervals):
        super().__init__()
        self._intervals = intervals

    def expand(self, sums: Any) -> beam.PCollection[Any]:
        unexpired, maybe_expired = sums
        classified = self._split_expired(maybe_expired)
        intervals = self._combine(unexpired, classified.unexpired)
        # In the global window: the local runner's Reshuffle drops elements of windows that the watermark has passed.
        all_intervals = [
            declare_windowing(emitted, beam.Windowing(GlobalWindows())) for emitted in (intervals, classified[_EXPIRED])
        ]
        return all_intervals | "AllIntervals" >> beam.Flatten()

    def _split_expired(self, maybe_expired: beam.PCollection[Any]) -> Any:
        """Return `unexpired` sums, whose windowing is not declared yet, and `Interval`s of those that have expired."""
        assign = beam.ParDo(_AssignExpiryWindow(self._intervals)).with_output_types(tuple[str, Any])
        waiting = maybe_expired | "AssignExpiryWindow" >> assign
        grouped = declare_windowing(waiting, self._intervals.expiry_windowing) | "GroupUntilExpiry" >> beam.GroupByKey()
        split = beam.ParDo(_SplitExpired(self._intervals))
        split = split.with_output_types(self._intervals.element_type, **{_EXPIRED: Interval})
        return grouped | "SplitExpired" >> split.with_outputs(_EXPIRED, main="unexpired")

    def _combine(self, *unexpired: beam.PCollection[Any]) -> beam.PCollection[Interval]:
        """Return an `Interval` for each pane of the combined sums: when its row is due, and for each late pane."""
        in_windows = [declare_windowing(sums, self._intervals.windowing) for sums in unexpired]
        combine = beam.CombinePerKey(self._intervals.combine_sums())
        combined = in_windows | "AllUnexpired" >> beam.Flatten() | "CombineSums" >> combine
        return combined | "MakeInterval" >> beam.ParDo(_MakeInterval(self._intervals)).with_output_types(Interval)


class _AssignExpiryWindow(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._until_expiry = intervals.interval + intervals.expires_after

    def process(self, element: tuple[int, str, Any]) -> Iterator[WindowedValue]:
        bucket, key, sums = element
        grace, interval = self._intervals.grace, self._intervals.interval
        for start in self._intervals.starts(bucket):
            # Not the end of the expiry window: until the sums are combined, the watermark must not pass the due time.
            due, _ = window_for(grace, start, interval)
            _, expiry_window = window_for(grace, start, self._until_expiry)
            yield WindowedValue((key, (start, sums)), due, expiry_window)


class _SplitExpired(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._length = intervals.interval * SECOND
        self._combine = intervals.combine_sums()

    def process(
        self,
        element: tuple[str, Iterable[tuple[int, Any]]],
        timestamp: Any = beam.DoFn.TimestampParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        key, arrivals = element
        if not lateness.is_expired(pane):
            for start, sums in arrivals:
                yield WindowedValue((key, sums), *window_for(self._intervals.grace, start, self._intervals.interval))
            return
        # The arrivals are all of the window's interval, so its dead letters are the only ones with the pane's number.
        for start in {start for start, _ in arrivals}:
            sums = self._combine.merge_accumulators(sums for _, sums in arrivals)
            end, sums_of = start + self._length, self._intervals.from_keyed(key, sums)
            expired = Interval(start, end, sums_of, pane.index, lateness.EXPIRED)
            yield beam.pvalue.TaggedOutput(_EXPIRED, GlobalWindows.windowed_value(expired, timestamp))


class _MakeInterval(beam.DoFn):
    def __init__(self, intervals: FixedIntervals):
        self._intervals = intervals
        self._grace = intervals.grace
        self._revise = intervals.revise

    def process(
        self, element: tuple[str, Any], window: Any = beam.DoFn.WindowParam, pane: Any = beam.DoFn.PaneInfoParam
    ) -> list[WindowedValue]:
        late = lateness.pane_lateness(pane, self._revise)
        start, end = (window.start - self._grace).micros, (window.end - self._grace).micros
        interval = Interval(start, end, self._intervals.from_keyed(*element), pane.index, late)
        return [GlobalWindows.windowed_value(interval, window.max_timestamp())]
