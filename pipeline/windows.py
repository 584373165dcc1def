"""Event-time windows: fixed or session, held open for a grace period, then accounted for until allowed lateness.

Grace is a shift of event time. Windows live `grace` later than the intervals they stand for, so an interval is emitted
once, `grace` after its end, without timers of our own:

    interval  [00:00 ------- 00:15)              interval=15s, grace=5s
    window        [00:05 ------- 00:20)          fires when the watermark passes 00:20
    row                                *         Timestamp 00:00, holds every reading that arrived until then

Inside one bundle, readings are first added up per window and device ("buckets"), so that what reaches the shuffle
grows with bundles x windows x devices, never with messages.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from apache_beam import Windowing
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import FixedWindows, IntervalWindow, Sessions, WindowFn
from apache_beam.utils.timestamp import Duration, Timestamp

from pipeline.sums import Sums, add_sums

SECOND = 1_000_000


@dataclass(frozen=True)
class FixedIntervals:
    """Intervals of `interval` seconds aligned to the epoch; a row's Timestamp is its interval's start."""

    interval: int
    grace: int

    def window_fn(self) -> WindowFn:
        """Return Beam's window function on shifted event time."""
        return FixedWindows(self.interval, offset=self.grace % self.interval)

    def row_time(self, window: IntervalWindow) -> Timestamp:
        """Return the row's Timestamp for a fired window."""
        return window.start - self.grace

    def new_buckets(self) -> "FixedBuckets":
        """Return empty buckets for one bundle."""
        return FixedBuckets(self.interval * SECOND, self.grace * SECOND)


@dataclass(frozen=True)
class SessionIntervals:
    """Sessions that end after `gap` seconds of silence; a row's Timestamp is the session's end, last reading + gap."""

    gap: int
    grace: int

    def window_fn(self) -> WindowFn:
        """Return Beam's window function on shifted event time."""
        return Sessions(self.gap)

    def row_time(self, window: IntervalWindow) -> Timestamp:
        """Return the row's Timestamp for a fired window."""
        return window.end - self.grace

    def new_buckets(self) -> "SessionBuckets":
        """Return empty buckets for one bundle."""
        return SessionBuckets(self.gap * SECOND, self.grace * SECOND)


def windowing(intervals: FixedIntervals | SessionIntervals, allowed_lateness: int) -> Windowing:
    """Return the strategy under which sums are combined: one pane on time, then one per late arrival.

    Panes discard what an earlier pane held, so a late pane holds exactly what came late.
    """
    return Windowing(
        intervals.window_fn(),
        triggerfn=AfterWatermark(late=AfterCount(1)),
        accumulation_mode=AccumulationMode.DISCARDING,
        allowed_lateness=Duration(seconds=allowed_lateness),
    )


class FixedBuckets:
    """Sums of one bundle per fixed window and device. Times are microseconds."""

    def __init__(self, interval: int, grace: int):
        self._interval = interval
        self._grace = grace
        self._sums: dict[tuple[int, str], Sums] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def sums_at(self, event_time: int, device: str) -> Sums:
        """Return the sums, to be added to, of the window that `event_time` falls in."""
        key = (event_time // self._interval, device)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = {}
        return sums

    def drain(self) -> Iterator[tuple[IntervalWindow, str, Sums]]:
        """Yield every window, device and its sums."""
        for (index, device), sums in self._sums.items():
            start = index * self._interval + self._grace
            yield _window(start, start + self._interval), device, sums


class SessionBuckets:
    """Sums of one bundle per device and run of readings less than a gap apart. Times are microseconds."""

    def __init__(self, gap: int, grace: int):
        self._gap = gap
        self._grace = grace
        self._count = 0
        self._runs: dict[str, list[_Run]] = {}

    def __len__(self) -> int:
        return self._count

    def sums_at(self, event_time: int, device: str) -> Sums:
        """Return the sums, to be added to, of the run that `event_time` begins, extends or joins."""
        runs = self._runs.setdefault(device, [])
        joined = _Run(event_time, event_time, {})
        apart = []
        for run in runs:
            # Beam's own rule: windows [first, last + gap) merge when they overlap, not when they only touch.
            if run.first < event_time + self._gap and event_time < run.last + self._gap:
                joined = run.join(joined)
            else:
                apart.append(run)
        apart.append(joined)
        self._count += len(apart) - len(runs)
        self._runs[device] = apart
        return joined.sums

    def drain(self) -> Iterator[tuple[IntervalWindow, str, Sums]]:
        """Yield every run's window, its device and sums."""
        for device, runs in self._runs.items():
            for run in runs:
                yield _window(run.first + self._grace, run.last + self._gap + self._grace), device, run.sums


@dataclass
class _Run:
    first: int
    last: int
    sums: Sums

    def join(self, other: "_Run") -> "_Run":
        add_sums(self.sums, other.sums)
        return _Run(min(self.first, other.first), max(self.last, other.last), self.sums)


def _window(start: int, end: int) -> IntervalWindow:
    return IntervalWindow(Timestamp(micros=start), Timestamp(micros=end))
