"""Check the table against what was published, with plain arithmetic that shares no code with the pipeline."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOLERANCE = 1e-9  # relative


@dataclass(frozen=True)
class Reading:
    """What can be averaged: its event time and the value of each known sensor in it."""

    time: datetime
    device: str | None
    values: Mapping[str, float]


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
    def of(cls, record: Mapping[str, Any], sensors: Sequence[str]) -> "Row":
        """Read a record of the table, by column name."""
        # By its keys: a BigQuery Row itself is asked for values.
        ranged = [name for name in sensors if f"{name}_min" in record.keys()]  # noqa: SIM118
        ranges = {name: (record[f"{name}_min"], record[f"{name}_max"]) for name in ranged}
        return cls(record["Timestamp"], {name: record[name] for name in sensors}, ranges)


@dataclass(frozen=True)
class Account:
    """Where all readings went, counting each sensor's value, and a message that cannot be read as one.

    `averaged` counts only those whose row is there once and right. `problems` is one line for each thing wrong.
    """

    published: int
    averaged: int
    dead_lettered: int
    problems: Sequence[str]


@dataclass
class _Cell:
    """What the mean of one sensor in one interval must be made of."""

    values: list[float] = field(default_factory=list)
    late_sums: list[float] = field(default_factory=list)
    late_count: int = 0

    @property
    def count(self) -> int:
        return len(self.values) - self.late_count

    @property
    def range(self) -> Range | None:
        """None when it cannot be told, as the sums of late readings do not say which of the values they were."""
        if self.late_count:
            return None
        return (min(self.values), max(self.values)) if self.values else (None, None)

    @property
    def mean(self) -> float | None:
        return math.fsum([*self.values, *(-s for s in self.late_sums)]) / self.count if self.count > 0 else None


Cells = dict[datetime, dict[str, _Cell]]


def unpack(data: bytes) -> list[bytes]:
    """Each reading of a message by itself: the items of an array, written as the publisher writes them, or the data."""
    try:
        content = json.loads(data)
    except ValueError:
        return [data]
    return [json.dumps(item).encode() for item in content] if isinstance(content, list) and content else [data]


def read(data: bytes, sensors: Sequence[str]) -> Reading | None:
    """Read one reading as the publisher writes them; None if it belongs to the dead letters."""
    try:
        content = json.loads(data)
        time = datetime.fromisoformat(content["Timestamp"])
        values = {name: float(content[name]) for name in sensors if name in content}
        return Reading(time.astimezone(UTC), content.get("Device"), values) if values else None
    except (ValueError, TypeError, KeyError):
        return None


def interval_start(time: datetime, interval: timedelta) -> datetime:
    """The start of the interval `time` is in; intervals are counted from 1970, as BigQuery and Beam do."""
    return EPOCH + (time - EPOCH) // interval * interval


def reconcile(
    published: Iterable[bytes],
    rows: Iterable[Row],
    dead_letters: Iterable[bytes],
    sensors: Sequence[str],
    interval: timedelta,
) -> Account:
    """Recompute every interval's means and compare.

    Args:
      published: the data of every message, each once, unpacked.
      rows: all rows of the table.
      dead_letters: the payloads of all dead letters: a message's own data, or the sums of readings that came late
        ({"Timestamp": start, "readings": {sensor: {"sum": s, "count": n}}}), which are then not in the row.
      sensors: the sensor columns.
      interval: length of an interval.
    """
    problems: list[str] = []
    cells: Cells = defaultdict(lambda: defaultdict(_Cell))
    total = dead = 0

    letters = Counter(dead_letters)
    for data, times in Counter(published).items():
        reading = read(data, sensors)
        size = len(reading.values) if reading else 1
        total += size * times
        refused = min(times, letters[data])
        letters[data] -= refused
        dead += size * refused
        if reading:
            for name, value in reading.values.items():
                cells[interval_start(reading.time, interval)][name].values += [value] * (times - refused)
        elif times > refused:
            problems.append(f"lost: {times - refused} x {_shown(data)} is neither averaged nor dead-lettered")

    for payload in letters.elements():
        late = _take_late(payload, cells)
        dead += late
        if not late:
            problems.append(f"unexpected dead letter: {_shown(payload)}")

    averaged = _compare(cells, rows, problems)
    if total != averaged + dead:
        problems.append(f"published {total} is not averaged {averaged} + dead-lettered {dead}")
    return Account(total, averaged, dead, problems)


def _take_late(payload: bytes, cells: Cells) -> int:
    """Take sums that came late out of what their row must hold; returns how many readings they are."""
    try:
        content = json.loads(payload)
        start = datetime.fromisoformat(content["Timestamp"])
        sums = {name: (float(part["sum"]), int(part["count"])) for name, part in content["readings"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0
    for name, (total, count) in sums.items():
        cells[start][name].late_sums.append(total)
        cells[start][name].late_count += count
    return sum(count for _, count in sums.values())


def _compare(cells: Cells, rows: Iterable[Row], problems: list[str]) -> int:
    """Add a line to `problems` for every row missing, doubled, unexpected or wrong; count readings in right ones."""
    found: dict[datetime, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.start].append(row)
    expected = {start for start, by_sensor in cells.items() if any(cell.count for cell in by_sensor.values())}
    averaged = 0
    for start in sorted(expected | set(found)):
        if start not in expected:
            problems.append(f"unexpected row: {start.isoformat()}")
        elif start not in found:
            problems.append(f"missing row: {start.isoformat()}")
        elif len(found[start]) > 1:
            problems.append(f"doubled row: {start.isoformat()} is there {len(found[start])} times")
        else:
            averaged += _compare_row(cells[start], found[start][0], problems)
    return averaged


def _compare_row(cells: Mapping[str, _Cell], row: Row, problems: list[str]) -> int:
    averaged = 0
    for name in sorted(set(cells) | set(row.means)):
        cell = cells.get(name, _Cell())
        found = row.means.get(name)
        if same(cell.mean, found):
            averaged += cell.count
        else:
            problems.append(f"wrong row: {row.start.isoformat()} {name} is {found}, must be {cell.mean}")
        if name in row.ranges and cell.range not in (None, row.ranges[name]):
            problems.append(
                f"wrong row: {row.start.isoformat()} {name} ranges over {row.ranges[name]}, must over {cell.range}"
            )
    return averaged


def same(expected: float | None, found: float | None) -> bool:
    """Whether two means are equal but for rounding; None stands for NULL and equals only itself."""
    if expected is None or found is None:
        return expected is found
    return math.isclose(expected, found, rel_tol=TOLERANCE, abs_tol=1e-12)


def _shown(data: bytes) -> str:
    return repr(data if len(data) <= 120 else data[:117] + b"...")
