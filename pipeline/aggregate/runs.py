"""Runs: readings of one device with less than a gap between neighbours, in order of time."""

import bisect
import functools
import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec


class Run(msgspec.Struct, array_like=True):
    """Readings without a gap between them.

    Attributes:
      first, last: event time of its first and last reading, microseconds since the epoch.
    """

    first: int
    last: int


AnyRun = TypeVar("AnyRun", bound=Run)

FIRST, LAST = operator.attrgetter("first"), operator.attrgetter("last")


def touching(runs: Sequence[Run], new: Run, gap: int) -> slice:
    """Return the slice of `runs` that is less than `gap` microseconds away from `new`, found by bisection.

    `runs` must be in order and at least `gap` apart. They remain so when the slice is replaced by one run that spans it
    and `new`. If no run is that close to `new`, the slice is empty, at the index at which to insert `new`.
    """
    start = bisect.bisect_right(runs, new.first - gap, key=LAST)
    return slice(start, bisect.bisect_left(runs, new.last + gap, lo=start, key=FIRST))


def insert(runs: list[AnyRun], new: AnyRun, gap: int, join: Callable[[AnyRun, AnyRun], AnyRun]) -> int:
    """Insert `new` into `runs` in place, joined with every run less than `gap` away; return its index.

    Args:
      runs: in order and at least `gap` microseconds apart, before and after the call.
      new: the run to insert.
      gap: runs less than this many microseconds apart become one.
      join: returns the run that spans two.
    """
    near = touching(runs, new, gap)
    if near.start < near.stop:
        new = functools.reduce(join, [*runs[near], new])
    runs[near] = [new]
    return near.start


def span(one: Run, other: Run) -> Run:
    """Return the run from the first reading of either to the last reading of either."""
    return Run(min(one.first, other.first), max(one.last, other.last))
