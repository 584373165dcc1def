"""Compare the rows of a table with what they must hold, in plain arithmetic that shares no code with the pipeline."""

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
    """One row of the table: the start of its interval, and the mean of each sensor (None: NULL).

    `ranges` has the least and the greatest value of each sensor, where the table has these columns.
    """

    start: datetime
    means: Mapping[str, float | None]
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any], sensors: Sequence[str], ranged: bool = False) -> "Row":
        """Read a record of the table, by column name; with `ranged` of a job whose statistics are mean, min and max."""
        ranges = {name: (record[f"{name}_min"], record[f"{name}_max"]) for name in sensors if ranged}
        return cls(record["Timestamp"], {name: record[name] for name in sensors}, ranges)


@dataclass
class Cell:
    """What the mean of one sensor in one interval is made of: values by reading_id, and what came late of them."""

    values: dict[str, float] = field(default_factory=dict)
    late_sum: float = 0.0
    late_count: int = 0

    @property
    def count(self) -> int:
        """How many readings are in the mean."""
        return len(self.values) - self.late_count

    @property
    def range(self) -> Range | None:
        """None when it cannot be told, as the sums of late readings do not say which of the values they were."""
        if self.late_count:
            return None
        return (min(self.values.values()), max(self.values.values())) if self.values else (None, None)

    @property
    def _total(self) -> float:
        return math.fsum(self.values.values()) - self.late_sum

    def mean(self) -> float | None:
        """The mean of those on time."""
        return _mean(self._total, self.count)


class Difference(NamedTuple):
    """What is wrong with the row of an interval: it is missing, doubled, unexpected or wrong."""

    kind: str
    start: datetime
    words: str = ""

    def __str__(self) -> str:
        return f"{self.kind} row: {self.start.isoformat()} {self.words}".rstrip()


def interval_start(time: datetime, interval: timedelta) -> datetime:
    """The start of the interval `time` is in; intervals are counted from 1970, as BigQuery and Beam do."""
    return EPOCH + (time - EPOCH) // interval * interval


def same(expected: float | None, found: float | None) -> bool:
    """Whether two means are equal but for rounding; None stands for NULL and equals only itself."""
    if expected is None or found is None:
        return expected is found
    return math.isclose(expected, found, rel_tol=TOLERANCE, abs_tol=1e-12)


def compare(expected: Mapping[datetime, Mapping[str, Cell]], rows: Iterable[Row]) -> Iterator[Difference]:
    """Yield what is wrong with the rows; those expected go by the start of their interval, and then by sensor."""
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
            for words in _compare_row(expected[start], found[start][0]):
                yield Difference("wrong", start, words)


def _mean(total: float, count: int) -> float | None:
    return total / count if count > 0 else None


def _compare_row(cells: Mapping[str, Cell], row: Row) -> Iterator[str]:
    for name in sorted(cells.keys() | row.means.keys()):
        cell, found = cells.get(name, Cell()), row.means.get(name)
        if not same(cell.mean(), found):
            yield f"{name} is {found}, must be {cell.mean()}{_as_if(cell, found)}"
        if name in row.ranges and cell.range not in (None, row.ranges[name]):
            yield f"{name} ranges over {row.ranges[name]}, must over {cell.range}"


def _as_if(cell: Cell, found: float | None) -> str:
    """Say which simple mistake would make the mean that was found."""
    total, count = cell._total, cell.count  # once: there may be very many values
    if cell.late_count and same(_mean(total + cell.late_sum, count + cell.late_count), found):
        return ", as if the late readings were in it too"
    for reading_id, value in cell.values.items():
        if same(_mean(total - value, count - 1), found):
            return f", as if {reading_id} were lost"
        if same(_mean(total + value, count + 1), found):
            return f", as if {reading_id} were in it twice"
    return ""
