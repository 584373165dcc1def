"""What a row can say of a sensor's readings in an interval.

A statistic is worked out when its interval is emitted, from parts. Parts are all that is kept, shuffled and merged
until then, so only those that a statistic asked for needs; a part that two of them need is kept once. Merging must
give the same in any order and grouping, since bundles, late panes and joined sessions come in any.

To add a statistic: a class like those below, an instance of it in STATISTICS, `make metadata`.
"""

import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from pipeline.aggregate.sums import Sums, add_sums, add_values
from pipeline.decode.decoder import Reading


class Part(NamedTuple):
    """Something kept of one sensor's readings, in numbers and tuples of numbers.

    Attributes:
      name: as in the name of the step that keeps it.
      of: makes it of one reading: its value, its event time in microseconds, and a number that grows with arrival.
      merge: makes it of two.
    """

    name: str
    of: Callable[[float, int, int], Any]
    merge: Callable[[Any, Any], Any]


def _value(value: float, event_time: int, arrival: int) -> float:
    return value


def _one(value: float, event_time: int, arrival: int) -> int:
    return 1


def _stamped(value: float, event_time: int, arrival: int) -> tuple[int, int, float]:
    return event_time, arrival, value


# (count, a reading, how far the mean is from that reading, sum of squared distances from the mean). The mean is kept
# as a distance because near a large number a float has no room for a small one.
Spread = tuple[int, float, float, float]


def _spread(value: float, event_time: int, arrival: int) -> Spread:
    return 1, value, 0.0, 0.0


def _merge_spreads(one: Spread, other: Spread) -> Spread:
    count, near, mean, squares = one
    other_count, other_near, other_mean, other_squares = other
    both = count + other_count
    apart = (other_near - near) + (other_mean - mean)
    return (
        both,
        near,
        mean + apart * (other_count / both),
        squares + other_squares + apart * apart * (count * other_count / both),
    )


# Both return tuples, and take lists too: version 0.2 decoded tuples as lists, so its open intervals may hold either.
def _earliest(one: Sequence, other: Sequence) -> tuple:
    first, second = tuple(one), tuple(other)
    return first if first <= second else second


def _latest(one: Sequence, other: Sequence) -> tuple:
    first, second = tuple(one), tuple(other)
    return first if first >= second else second


SUM = Part("sum", _value, operator.add)
COUNT = Part("count", _one, operator.add)
LOWEST = Part("lowest", _value, min)
HIGHEST = Part("highest", _value, max)
SPREAD = Part("spread", _spread, _merge_spreads)
EARLIEST = Part("earliest", _stamped, _earliest)
LATEST = Part("latest", _stamped, _latest)


class Statistic:
    """One statistic; a sensor without readings has none, so it is NULL.

    Attributes:
      name: as asked for, and after the sensor's name in the column's.
      parts: what it is made of.
      type: BigQuery's type of the column.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[Part, ...]]
    type: ClassVar[str] = "FLOAT"

    def of(self, *parts: Any) -> float | None:
        """Return the statistic from its parts; by default the only one, as it is."""
        (value,) = parts
        return value

    def column(self, sensor: str) -> str:
        """Return the column's name."""
        return f"{sensor}_{self.name}"


class Mean(Statistic):
    """The arithmetic mean, sum / count, in the sensor's unit; its column is just the sensor's name."""

    name = "mean"
    parts = (SUM, COUNT)

    def of(self, *parts: Any) -> float:
        """Return the mean."""
        total, count = parts
        return total / count

    def column(self, sensor: str) -> str:
        """Return the column's name."""
        return sensor


class Count(Statistic):
    """How many readings had a value of the sensor, without a unit; NULL, not 0, when none had."""

    name = "count"
    parts = (COUNT,)
    type = "INTEGER"


class Minimum(Statistic):
    """The least value, in the sensor's unit."""

    name = "min"
    parts = (LOWEST,)


class Maximum(Statistic):
    """The greatest value, in the sensor's unit."""

    name = "max"
    parts = (HIGHEST,)


class Sum(Statistic):
    """The sum of the values, in the sensor's unit."""

    name = "sum"
    parts = (SUM,)


class StandardDeviation(Statistic):
    """The sample standard deviation, in the sensor's unit; NULL for one reading.

    The root of the squared distances from the mean over count - 1, as BigQuery's STDDEV_SAMP:
    https://cloud.google.com/bigquery/docs/reference/standard-sql/statistical_aggregate_functions#stddev_samp
    Merged without cancellation by the updating formula of Chan, Golub and LeVeque, "Algorithms for Computing the Sample
    Variance: Analysis and Recommendations", The American Statistician 37 (1983).
    """

    name = "stddev"
    parts = (SPREAD,)

    def of(self, *parts: Any) -> float | None:
        """Return the deviation."""
        ((count, _, _, squares),) = parts
        return math.sqrt(squares / (count - 1)) if count > 1 else None


class First(Statistic):
    """The value of the earliest Timestamp, in the sensor's unit; of several, the one that arrived first.

    What arrived first is told by the clocks of the workers that took the readings in, and their order in the bundle.
    """

    name = "first"
    parts = (EARLIEST,)

    def of(self, *parts: Any) -> float:
        """Return the value."""
        ((_, _, value),) = parts
        return value


class Last(Statistic):
    """The value of the latest Timestamp, in the sensor's unit; of several, the one that arrived last (see `First`)."""

    name = "last"
    parts = (LATEST,)

    def of(self, *parts: Any) -> float:
        """Return the value."""
        ((_, _, value),) = parts
        return value


STATISTICS = {
    statistic.name: statistic
    for statistic in (Mean(), Count(), Minimum(), Maximum(), Sum(), StandardDeviation(), First(), Last())
}


class Statistics:
    """The statistics asked for: how readings become what is kept of them, and that the values of a row.

    What is kept of a sensor is a list of parts, in the order of their first use in STATISTICS: so the same for the
    same statistics, in whatever order they are asked for; of the mean [sum, count].

    Args:
      names: of the statistics, in the order of their columns.

    Attributes:
      lift: takes readings, and returns them as `add` wants them.
      add: adds one reading's values to `Sums` in place.
      merge: adds `Sums` to others in place; they are not changed.
    """

    lift: Callable[[Iterator[Reading]], Iterator[Any]]
    add: Callable[[Sums, Any], None]
    merge: Callable[[Sums, Sums], None]

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._chosen = tuple(STATISTICS[name] for name in names)
        needed = [part for statistic in self._chosen for part in statistic.parts]
        known = dict.fromkeys(part for statistic in STATISTICS.values() for part in statistic.parts)
        self._parts = tuple(part for part in known if part in needed)
        self._made_of = [
            (statistic.of, [self._parts.index(part) for part in statistic.parts]) for statistic in self._chosen
        ]
        if self._parts == Mean.parts:
            # What nearly everybody asks for has code of its own, a few times as fast.
            self.lift, self.add, self.merge = iter, add_values, add_sums
        else:
            self.lift, self.add, self.merge = self._lift, self._merge, self._merge

    @property
    def kept(self) -> str:
        """The names of the parts, by which two jobs keep the same or not."""
        return "+".join(part.name for part in self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def columns(self, sensor: str) -> list[tuple[str, str]]:
        """Return name and BigQuery type of a sensor's columns."""
        return [(statistic.column(sensor), statistic.type) for statistic in self._chosen]

    def values(self, parts: list) -> list[float | None]:
        """Return the values of a sensor's columns, from what was kept of it."""
        return [of(*[parts[place] for place in places]) for of, places in self._made_of]

    def told(self, parts: list) -> dict[str, float | None]:
        """Return the values by their statistics' names; a mean as its sum and count, which can be added to a row's."""
        of_mean = {part.name: kept for part, kept in zip(self._parts, parts, strict=True) if part in Mean.parts}
        return of_mean | {
            name: value for name, value in zip(self.names, self.values(parts), strict=True) if name != Mean.name
        }

    def _lift(self, readings: Iterator[Reading]) -> Iterator[tuple[int, str, Sums]]:
        makers = [part.of for part in self._parts]
        for arrival, (event_time, device, values) in enumerate(readings, time.time_ns()):
            yield (
                event_time,
                device,
                {name: [of(value, event_time, arrival) for of in makers] for name, value in values.items()},
            )

    def _merge(self, into: Sums, other: Sums) -> None:
        for name, parts in other.items():
            have = into.get(name)
            if have is None:
                into[name] = parts
            else:
                into[name] = [part.merge(a, b) for part, a, b in zip(self._parts, have, parts, strict=True)]


# The default.
MEANS = Statistics(["mean"])
