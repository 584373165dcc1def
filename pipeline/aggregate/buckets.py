"""Buckets: the sums of one bundle, in memory, until they are drained.

The fold adds readings to buckets and drains them; it does not depend on the kind of windows. Each kind implements
`Bucketing`: it creates the buckets that it needs, and places drained sums in Beam's windows.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.aggregate.runs import Run, insert
from pipeline.aggregate.statistics import Statistics
from pipeline.aggregate.sums import MAX_BUCKETS, SECOND, Sums, SumsOf, WireSums
from pipeline.decode.reading import Reading

# Tag of sums whose intervals may have expired, among the side outputs of the fold.
MAYBE_EXPIRED = "maybe_expired"

Drained_co = TypeVar("Drained_co", covariant=True)


class Buckets(Protocol[Drained_co]):
    """Sums of one bundle."""

    def add(self, readings: Iterator[Reading]) -> bool:
        """Add readings until there are none left or the buckets are full; return whether they are full."""

    def drain(self) -> Iterator[Drained_co]:
        """Yield the sums of the readings since the last drain."""


class Bucketing(Protocol):
    """How readings are added up inside a bundle, and the windows in which their sums leave it."""

    @property
    def element_type(self) -> Any:
        """The type of the elements that `place` yields."""

    def new_buckets(self) -> Buckets[Any]:
        """Return empty buckets for one bundle."""

    def place(self, drained: Iterable[Any], now: float) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput[str, Any]]:
        """Yield drained sums as elements with windows and timestamps; `now` is in seconds since the epoch.

        Sums that may have expired go to the side output, by the tag MAYBE_EXPIRED.
        """


class FixedBuckets:
    """Sums by interval and device.

    Args:
      interval: the length of an interval in seconds; intervals are aligned to the epoch.
      statistics: what is accumulated of the readings.
      by_device: sums for each device; otherwise the device is "".
    """

    def __init__(self, interval: int, statistics: Statistics, by_device: bool):
        self._interval = interval * SECOND
        self._statistics = statistics
        self._by_device = by_device
        self._count = 0
        self._sums: dict[int, SumsOf] = {}

    def add(self, readings: Iterator[Reading]) -> bool:
        """Add readings until there are none left or the buckets are full; return whether they are full."""
        add, by_device = self._statistics.add, self._by_device
        start = end = 0
        sums_of: SumsOf = {}
        for event_time, device, values in self._statistics.lift(readings):
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

    def drain(self) -> Iterator[tuple[int, SumsOf]]:
        """Yield (start of an interval in microseconds since the epoch, its sums by device), and empty the buckets."""
        drained, self._sums, self._count = self._sums, {}, 0
        yield from drained.items()


class SummedRun(Run):
    """A run of readings with their sums.

    Attributes:
      sums: the accumulator of each sensor.
    """

    sums: WireSums


class SessionBuckets:
    """Sums by device and run of readings less than a gap apart.

    Args:
      gap: seconds.
      statistics: what is accumulated of the readings.
      by_device: sums for each device; otherwise the device is "".
    """

    def __init__(self, gap: int, statistics: Statistics, by_device: bool):
        self._gap = gap * SECOND
        self._statistics = statistics
        self._join = functools.partial(_join, statistics.merge)
        self._by_device = by_device
        self._count = 0
        self._runs: dict[str, list[SummedRun]] = {}

    def add(self, readings: Iterator[Reading]) -> bool:
        """Add readings until there are none left or the buckets are full; return whether they are full."""
        add = self._statistics.add
        for event_time, device, values in self._statistics.lift(readings):
            runs = self._runs.setdefault(device if self._by_device else "", [])
            if runs and runs[-1].first <= event_time < runs[-1].last + self._gap:
                run = runs[-1]
                run.last = max(run.last, event_time)
            else:
                before = len(runs)
                run = runs[insert(runs, SummedRun(event_time, event_time, {}), self._gap, self._join)]
                self._count += len(runs) - before
            add(run.sums, values)
            if self._count == MAX_BUCKETS:
                return True
        return False

    def drain(self) -> Iterator[tuple[str, list[SummedRun]]]:
        """Yield (device, its runs in order of time), and empty the buckets."""
        drained, self._runs, self._count = self._runs, {}, 0
        yield from drained.items()


def _join(merge: Callable[[Sums, Sums], None], one: SummedRun, other: SummedRun) -> SummedRun:
    """Join two runs into the first, in place, and return it."""
    one.first, one.last = min(one.first, other.first), max(one.last, other.last)
    merge(one.sums, other.sums)
    return one
