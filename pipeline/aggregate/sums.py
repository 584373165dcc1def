"""Sums, which are accumulated from readings, shuffled and merged; and intervals, which hold the merged sums."""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import msgspec

from pipeline.coders import MessagePackCoder

SECOND = 1_000_000  # microseconds

# Sums that a bundle may hold before they are drained; this bounds its memory with very many intervals or devices.
MAX_BUCKETS = 20_000

# The accumulator of each sensor with readings, by its name: [sum, count], or the components of other `Statistics`. By
# name, not by position, so that the state of a running job survives an update that reorders `sensors`.
Sums = dict[str, list[Any]]

# The type by which msgspec decodes Sums. MessagePack has only one kind of array; within an accumulator it is a tuple.
WireSums = dict[str, list[int | float | tuple[int | float, ...]]]

# Sums by device; the device is "" for readings without one, and for all readings without `group_by_device`.
SumsOf = dict[str, Sums]


class Interval(msgspec.Struct, array_like=True):
    """The sums of an interval when it is emitted, for some or all of its devices.

    Attributes:
      row_time: the row's Timestamp, microseconds since the epoch.
      end: end of the interval, microseconds since the epoch.
      sums_of: sums by device, of all readings of the interval or of late ones; empty sums retract the previous row.
      revision: for rows, the number of earlier rows of the same Timestamp and device; for late sums, a number that
        differs between the intervals of one Timestamp, device and `late`.
      late: None for a row, otherwise why these sums cannot be in one: Late or Expired.
      first: the time of the first reading, if the interval begins there and not at `row_time`; microseconds since the
        epoch.
    """

    row_time: int
    end: int
    sums_of: dict[str, WireSums]
    revision: int = 0
    late: str | None = None
    first: int | None = None

    @property
    def begin(self) -> int:
        """The begin of the interval, microseconds since the epoch."""
        return self.row_time if self.first is None else self.first


class _IntervalCoder(MessagePackCoder, urn="sensor_stream:coder:interval:v1", value_type=Interval):
    pass


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
    """Adds up the sums of bundles.

    Args:
      merge: adds `Sums` to others in place.
    """

    def __init__(self, merge: Callable[[Sums, Sums], None] = add_sums):
        super().__init__()  # type: ignore[no-untyped-call]
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
        """Return the accumulator, which is the result."""
        return accumulator
