"""The statistics of a sensor's readings in an interval.

A statistic is computed from components when its interval is emitted. Until then only components are accumulated,
shuffled and merged: those of the chosen statistics, each of them once.
Bundles, late panes and joined sessions are merged in any order and grouping, so the result must not depend on these.

To add a statistic: a class like those below, an instance of it in STATISTICS, `make metadata`.
"""

import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from pipeline.aggregate.sums import Sums, add_sums, add_values
from pipeline.decode.reading import Reading


class Component(NamedTuple):
    """A value that is accumulated from one sensor's readings: a number, or a tuple of numbers.

    Attributes:
      name: part of the label of the step that holds open intervals.
      lift: returns the component of one reading, from its value, its event time in microseconds since the epoch, and a
        number that grows with arrival.
      merge: returns the component of two sets of readings from those of each.
    """

    name: str
    lift: Callable[[float, int, int], Any]
    merge: Callable[[Any, Any], Any]


def _value(value: float, event_time: int, arrival: int) -> float:
    return value


def _one(value: float, event_time: int, arrival: int) -> int:
    return 1


def _timed(value: float, event_time: int, arrival: int) -> tuple[int, int, float]:
    return event_time, arrival, value


# (count, a reading, the mean less that reading, sum of squared distances from the mean). The mean is a difference
# because near a large number a float has no room for a small one.
Spread = tuple[int, float, float, float]


def _spread(value: float, event_time: int, arrival: int) -> Spread:
    return 1, value, 0.0, 0.0


def _merge_spreads(one: Spread, other: Spread) -> Spread:
    count, near, mean, squares = one
    other_count, other_near, other_mean, other_squares = other
    both = count + other_count
    difference = (other_near - near) + (other_mean - mean)
    return (
        both,
        near,
        mean + difference * (other_count / both),
        squares + other_squares + difference * difference * (count * other_count / both),
    )


# Both return tuples, and accept lists too, because version 0.2 decoded tuples as lists.
def _earlier(one: Sequence[Any], other: Sequence[Any]) -> tuple[Any, ...]:
    first, second = tuple(one), tuple(other)
    return first if first <= second else second


def _later(one: Sequence[Any], other: Sequence[Any]) -> tuple[Any, ...]:
    first, second = tuple(one), tuple(other)
    return first if first >= second else second


SUM = Component("sum", _value, operator.add)
COUNT = Component("count", _one, operator.add)
LOWEST = Component("lowest", _value, min)
HIGHEST = Component("highest", _value, max)
SPREAD = Component("spread", _spread, _merge_spreads)
EARLIEST = Component("earliest", _timed, _earlier)
LATEST = Component("latest", _timed, _later)

# All components in their order in accumulators, which no parameter changes; add new ones at the end.
COMPONENTS = (SUM, COUNT, LOWEST, HIGHEST, SPREAD, EARLIEST, LATEST)


class Statistic:
    """One statistic. It is NULL for a sensor without readings.

    Attributes:
      name: its name in the parameter `statistics`, and the suffix of its columns.
      components: what it is computed from.
      type: BigQuery's type of its columns.
    """

    name: ClassVar[str]
    components: ClassVar[tuple[Component, ...]]
    type: ClassVar[str] = "FLOAT"

    def compute(self, *components: Any) -> float | None:
        """Return the statistic from the values of its components; by default it is the value of its only component."""
        (value,) = components
        return value

    def column(self, sensor: str) -> str:
        """Return the name of its column for a sensor."""
        return f"{sensor}_{self.name}"


class Mean(Statistic):
    """The arithmetic mean, sum / count, in the sensor's unit. Its column has the sensor's name without a suffix."""

    name = "mean"
    components = (SUM, COUNT)

    def compute(self, *components: Any) -> float:
        """Return the mean."""
        total, count = components
        return total / count

    def column(self, sensor: str) -> str:
        """Return the sensor's name."""
        return sensor


class Count(Statistic):
    """The number of readings with a value of the sensor; NULL, not 0, without any."""

    name = "count"
    components = (COUNT,)
    type = "INTEGER"


class Minimum(Statistic):
    """The lowest value, in the sensor's unit."""

    name = "min"
    components = (LOWEST,)


class Maximum(Statistic):
    """The highest value, in the sensor's unit."""

    name = "max"
    components = (HIGHEST,)


class Sum(Statistic):
    """The sum of the values, in the sensor's unit."""

    name = "sum"
    components = (SUM,)


class StandardDeviation(Statistic):
    """The sample standard deviation, in the sensor's unit; NULL for one reading.

    The root of the squared distances from the mean over count - 1, as BigQuery's STDDEV_SAMP:
    https://cloud.google.com/bigquery/docs/reference/standard-sql/statistical_aggregate_functions#stddev_samp
    Merged without cancellation by the updating formula of Chan, Golub and LeVeque, "Algorithms for Computing the Sample
    Variance: Analysis and Recommendations", The American Statistician 37 (1983).
    """

    name = "stddev"
    components = (SPREAD,)

    def compute(self, *components: Any) -> float | None:
        """Return the standard deviation, or None for one reading."""
        ((count, _, _, squares),) = components
        return math.sqrt(squares / (count - 1)) if count > 1 else None


class First(Statistic):
    """The value with the earliest Timestamp, in the sensor's unit; of equal Timestamps, the one that arrived first.

    Arrival is by the clocks of the workers that decoded the readings, and by the order of readings in a bundle.
    """

    name = "first"
    components = (EARLIEST,)

    def compute(self, *components: Any) -> float:
        """Return the value of the earliest reading."""
        ((_, _, value),) = components
        return value


class Last(Statistic):
    """The value with the latest Timestamp, in the sensor's unit; of equal Timestamps, the one that arrived last.

    Arrival is as with `First`.
    """

    name = "last"
    components = (LATEST,)

    def compute(self, *components: Any) -> float:
        """Return the value of the latest reading."""
        ((_, _, value),) = components
        return value


STATISTICS = {
    statistic.name: statistic
    for statistic in (Mean(), Count(), Minimum(), Maximum(), Sum(), StandardDeviation(), First(), Last())
}


class Statistics:
    """The chosen statistics: from readings to accumulators, and from an accumulator to the values of a row.

    The accumulator of a sensor is the list of its components, such as [sum, count] for the mean. `Sums` has the
    accumulators of several sensors.

    Args:
      names: names of statistics, in the order of their columns.

    Attributes:
      lift: converts readings to what `add` takes.
      add: adds one reading's values to `Sums` in place.
      merge: adds `Sums` to others in place; the added ones are not changed.
    """

    lift: Callable[[Iterator[Reading]], Iterator[Any]]
    add: Callable[[Sums, Any], None]
    merge: Callable[[Sums, Sums], None]

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._statistics = tuple(STATISTICS[name] for name in names)
        self._components = _components_of(self._statistics)
        # The places of each statistic's components in an accumulator.
        self._places = [tuple(map(self._components.index, one.components)) for one in self._statistics]
        if self._components == Mean.components:
            # The default has its own functions, which are several times as fast as those for any components.
            self.lift, self.add, self.merge = iter, add_values, add_sums
        else:
            self.lift, self.add, self.merge = self._lift, self._merge, self._merge

    @property
    def component_names(self) -> str:
        """The names of the components. A job can take over the state of a job with the same components."""
        return "+".join(component.name for component in self._components)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def columns(self, sensor: str) -> list[tuple[str, str]]:
        """Return name and BigQuery type of a sensor's columns."""
        return [(statistic.column(sensor), statistic.type) for statistic in self._statistics]

    def values(self, accumulator: list[Any]) -> list[float | None]:
        """Return the values of a sensor's columns."""
        return [
            statistic.compute(*[accumulator[place] for place in places])
            for statistic, places in zip(self._statistics, self._places, strict=True)
        ]

    def to_payload(self, accumulator: list[Any]) -> dict[str, float | None]:
        """Return a sensor's values by name, for a dead letter.

        In place of a mean it has sum and count, so that they can be combined with the mean of a row.
        """
        by_component = dict(zip(self._components, accumulator, strict=True))
        sum_and_count = {
            component.name: value for component, value in by_component.items() if component in Mean.components
        }
        by_name = dict(zip(self.names, self.values(accumulator), strict=True))
        by_name.pop(Mean.name, None)
        return sum_and_count | by_name

    def _lift(self, readings: Iterator[Reading]) -> Iterator[tuple[int, str, Sums]]:
        lifts = [component.lift for component in self._components]
        for arrival, (event_time, device, values) in enumerate(readings, time.time_ns()):
            yield (
                event_time,
                device,
                {name: [lift(value, event_time, arrival) for lift in lifts] for name, value in values.items()},
            )

    def _merge(self, into: Sums, other: Sums) -> None:
        for name, accumulator in other.items():
            present = into.get(name)
            if present is None:
                into[name] = accumulator
            else:
                pairs = zip(self._components, present, accumulator, strict=True)
                into[name] = [component.merge(one, more) for component, one, more in pairs]


def _components_of(statistics: Sequence[Statistic]) -> tuple[Component, ...]:
    """Return the components that the statistics are computed from, each once, in the order of COMPONENTS."""
    needed = {component for statistic in statistics for component in statistic.components}
    return tuple(component for component in COMPONENTS if component in needed)


# The default.
MEANS = Statistics(["mean"])
