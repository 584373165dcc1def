"""Compares the rows of a table with the expected ones, in plain arithmetic that shares no code with the pipeline."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOLERANCE = 1e-9  # relative

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Row:
    """A row of the table: the start of its interval, and the mean of each sensor (None: NULL).

    `ranges` has the least and the greatest value of each sensor where the table has these columns.
    """

    start: datetime
    means: Mapping[str, float | None]
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], sensors: Sequence[str], has_ranges: bool = False) -> "Row":
        """Convert a record, by column name; with `has_ranges` the job's statistics are mean, min and max."""
        ranges = {name: (record[f"{name}_min"], record[f"{name}_max"]) for name in sensors if has_ranges}
        return cls(record["Timestamp"], {name: record[name] for name in sensors}, ranges)


@dataclass
class Cell:
    """The readings of one sensor in one interval: values by reading_id, and sum and count of those that came late."""

    values: dict[str, float] = field(default_factory=dict)
    late_sum: float = 0.0
    late_count: int = 0

    @property
    def count(self) -> int:
        """The number of readings on time."""
        return len(self.values) - self.late_count

    @property
    def range(self) -> Range | None:
        """The least and the greatest value; None if readings were late, whose values are known only as a sum."""
        if self.late_count:
            return None
        return (min(self.values.values()), max(self.values.values())) if self.values else (None, None)

    @property
    def _total(self) -> float:
        return math.fsum(self.values.values()) - self.late_sum

    def mean(self) -> float | None:
        """Return the mean of the readings on time; None without any."""
        return _mean(self._total, self.count)


class Difference(NamedTuple):
    """A difference in the row of an interval; `kind` is missing, doubled, unexpected or wrong."""

    kind: str
    start: datetime
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} row: {self.start.isoformat()} {self.detail}".rstrip()


def interval_start(time: datetime, interval: timedelta) -> datetime:
    """Return the start of the interval that contains `time`; intervals begin at multiples of their length from 1970."""
    return EPOCH + (time - EPOCH) // interval * interval


def same(expected: float | None, found: float | None) -> bool:
    """Return whether two means are equal within TOLERANCE; None, which stands for NULL, equals only None."""
    if expected is None or found is None:
        return expected is found
    return math.isclose(expected, found, rel_tol=TOLERANCE, abs_tol=1e-12)


def compare(expected: Mapping[datetime, Mapping[str, Cell]], rows: Iterable[Row]) -> Iterator[Difference]:
    """Yield the differences between the rows and the expected cells, by the start of their interval and by sensor."""
    found: dict[datetime, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.start].append(row)
    for start in sorted(expected.keys() | found.keys()):
        if start not in expected:
            yield Difference("unexpected", start)
        elif start not in found:
            yield Difference("missing", start)
        elif len(found[start]) > 1:
            yield Difference("doubled", start, f"is there {len(found[start])} times")
        else:
            for detail in _compare_row(expected[start], found[start][0]):
                yield Difference("wrong", start, detail)


def _mean(total: float, count: int) -> float | None:
    return total / count if count > 0 else None


def _compare_row(cells: Mapping[str, Cell], row: Row) -> Iterator[str]:
    for name in sorted(cells.keys() | row.means.keys()):
        cell, found = cells.get(name, Cell()), row.means.get(name)
        if not same(cell.mean(), found):
            yield f"{name} is {found}, must be {cell.mean()}{_likely_mistake(cell, found)}"
        if name in row.ranges and cell.range not in (None, row.ranges[name]):
            yield f"{name} has the range {row.ranges[name]}, must have {cell.range}"


def _likely_mistake(cell: Cell, found: float | None) -> str:
    """Return the simple mistake that explains the mean that was found; empty if none does."""
    total, count = cell._total, cell.count  # computed once, because a cell may have many values
    if cell.late_count and same(_mean(total + cell.late_sum, count + cell.late_count), found):
        return ", as if the late readings were in it too"
    for reading_id, value in cell.values.items():
        if same(_mean(total - value, count - 1), found):
            return f", as if {reading_id} were lost"
        if same(_mean(total + value, count + 1), found):
            return f", as if {reading_id} were in it twice"
    return ""
