"""What is kept of each sensor's readings and shuffled: sums and counts, or what other statistics are made of."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import apache_beam as beam

SECOND = 1_000_000  # microseconds

# Sums that a bundle may hold before it emits them: bounds its memory when it touches very many windows or devices.
MAX_BUCKETS = 20_000

# Sensor name to [sum, count], or the parts of other `Statistics`, only for sensors that were present. Names, not
# positions: the state of a running job then survives an update that reorders `sensors`.
Sums = dict[str, list]


# By device, or "" for all when devices are not kept apart; so too for readings that name none.
SumsOf = dict[str, Sums]


class Interval(NamedTuple):
    """What is known of one interval, of some or all of its devices, when it is emitted.

    Attributes:
      row_time: the row's Timestamp, microseconds since the epoch.
      end: where the interval ends, microseconds since the epoch.
      sums_of: by device, Sums of the whole interval, or of what came late; empty ones retract a row written before.
      revision: a number that nothing else emitted for this Timestamp, these devices and this `late` has; of rows it
        counts from 0.
      late: None for a row; else why these sums cannot be in one.
      first: the first reading's time, where the interval begins with it and not at `row_time`; in microseconds.
    """

    row_time: int
    end: int
    sums_of: SumsOf
    revision: int = 0
    late: str | None = None
    first: int | None = None

    @property
    def begin(self) -> int:
        """Where the interval begins, microseconds since the epoch."""
        return self.row_time if self.first is None else self.first


def add_values(sums: Sums, values: dict[str, float]) -> None:
    """Add one reading's values to `sums` in place."""
    for name, value in values.items():
        cell = sums.get(name)
        if cell is None:
            sums[name] = [value, 1]
        else:
            cell[0] += value
            cell[1] += 1


def add_sums(into: Sums, other: Sums) -> None:
    """Add `other` to `into` in place; `other` is neither changed nor shared."""
    for name, (total, count) in other.items():
        cell = into.get(name)
        if cell is None:
            into[name] = [total, count]
        else:
            cell[0] += total
            cell[1] += count


class CombineSums(beam.CombineFn):
    """Adds up the partial sums of bundles; `merge` adds `Sums` to others in place."""

    def __init__(self, merge: Callable[[Sums, Sums], None] = add_sums):
        super().__init__()
        self._merge = merge

    def create_accumulator(self) -> Sums:
        """Return empty sums."""
        return {}

    def add_input(self, accumulator: Sums, sums: Sums) -> Sums:
        """Return the accumulator with one bundle's sums added."""
        self._merge(accumulator, sums)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        """Return the sums of all accumulators."""
        merged: Sums = {}
        for accumulator in accumulators:
            self._merge(merged, accumulator)
        return merged

    def extract_output(self, accumulator: Sums) -> Sums:
        """Return the sums as they are."""
        return accumulator
