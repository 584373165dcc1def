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
    """Return where in `runs` those are that `new` is less than `gap` microseconds away from, found by bisection.

    The runs must be in order and at least `gap` apart. They still are once those of the slice are replaced by one that
    spans them and `new`; the slice is empty, at the place of `new`, if it touches none.
    """
    start = bisect.bisect_right(runs, new.first - gap, key=LAST)
    return slice(start, bisect.bisect_left(runs, new.last + gap, lo=start, key=FIRST))


def insert(runs: list[AnyRun], new: AnyRun, gap: int, join: Callable[[AnyRun, AnyRun], AnyRun]) -> int:
    """Insert `new` into `runs`, in place, joined with all that it touches; return its place.

    Args:
      runs: in order and at least `gap` microseconds apart; so they still are afterwards.
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
