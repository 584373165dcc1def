"""Runs: readings of one device with less than a gap between neighbours, kept in order of time."""

import bisect
import operator
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Run:
    """Readings without a gap between them.

    Attributes:
      first, last: event time of its first and last reading, microseconds since the epoch.
    """

    first: int
    last: int


_FIRST, _LAST = operator.attrgetter("first"), operator.attrgetter("last")


def touching(runs: Sequence[Run], new: Run, gap: int) -> slice:
    """Return where in `runs` those are that `new` is less than `gap` microseconds away from, found by bisection.

    The runs must be in order and at least `gap` apart. They still are once those of the slice are replaced by one that
    spans them and `new`; the slice is empty, at the place of `new`, if it touches none.
    """
    start = bisect.bisect_right(runs, new.first - gap, key=_LAST)
    return slice(start, bisect.bisect_left(runs, new.last + gap, lo=start, key=_FIRST))
