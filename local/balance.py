"""Account for every reading of a publisher's manifest, from the two tables alone.

Each reading must be in exactly one place: in its interval's row, in a dead letter, or removed because the same
reading_id was sent before. The rules are those of the README, in plain Python that shares no code with the pipeline.

A row holds only means. So a reading is known to be averaged by recomputing its row from all readings of the interval
less the sums of those that came late; one that happens to equal that mean could be missing unnoticed.
"""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from local.reconcile import Row, interval_start, same

MAX_FUTURE_SKEW = timedelta(minutes=10)  # the pipeline's default
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sent:
    """One line of the manifest: a reading that Pub/Sub accepted, and when its message was handed to the client."""

    reading_id: str
    data: bytes
    time: datetime


@dataclass(frozen=True)
class DeadLetter:
    """One row of the dead-letter table."""

    stage: str
    payload: bytes


@dataclass
class Balance:
    """Where all readings went: `published` = `averaged` + `late` + `refused` + `duplicates` when all is well.

    `averaged` counts readings whose row is there once and right. `rows_found` counts all rows of the table, the others
    count intervals. `problems` is one line for each difference.
    """

    published: int = 0
    averaged: int = 0
    late: int = 0
    refused: int = 0
    duplicates: int = 0
    rows_expected: int = 0
    rows_found: int = 0
    rows_doubled: int = 0
    rows_missing: int = 0
    rows_wrong: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Cell:
    """What the mean of one sensor in one interval is made of: values by reading_id, and what came late of them."""

    values: dict[str, float] = field(default_factory=dict)
    late_sum: float = 0.0
    late_count: int = 0

    @property
    def count(self) -> int:
        return len(self.values) - self.late_count

    def mean(self, more: float = 0.0, by: int = 0) -> float | None:
        """The mean of those on time, with `more` added to their sum and `by` to their count."""
        count = self.count + by
        return (math.fsum(self.values.values()) - self.late_sum + more) / count if count > 0 else None


Cells = dict[datetime, dict[str, _Cell]]  # by interval start, then by sensor
Unread = dict[bytes, list[tuple[str, str]]]  # data of messages that must be refused: reading_id and stage of each


def read_manifest(path: Path) -> list[Sent]:
    """Read what `python -m publisher publish --manifest` wrote, in the order in which it was sent."""
    sent = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        data = base64.b64decode(entry["data_base64"]) if entry["data"] is None else entry["data"].encode()
        sent.append(Sent(entry["reading_id"], data, datetime.fromisoformat(entry["sent"])))
    return sorted(sent, key=lambda one: one.time)


def balance(
    manifest: Iterable[Sent],
    rows: Iterable[Row],
    dead_letters: Iterable[DeadLetter],
    sensors: Sequence[str],
    interval: timedelta,
) -> Balance:
    """Compare what was published with what is in the tables.

    Args:
      manifest: every reading in the order sent, each of one sensor or malformed; those of a message are apart.
      rows: all rows of the table.
      dead_letters: all rows of the dead-letter table.
      sensors: the sensor columns.
      interval: length of an interval.
    """
    result = Balance()
    cells: Cells = defaultdict(lambda: defaultdict(_Cell))
    unread: Unread = defaultdict(list)
    seen: set[str] = set()
    for sent in manifest:
        result.published += 1
        if sent.reading_id in seen:
            result.duplicates += 1
            continue
        seen.add(sent.reading_id)
        fate = judge(sent, sensors)
        if isinstance(fate, str):
            unread[sent.data].append((sent.reading_id, fate))
        else:
            time, sensor, value = fate
            cells[interval_start(time, interval)][sensor].values[sent.reading_id] = value

    for letter in dead_letters:
        if letter.stage == "late":
            _take_late(letter, cells, result)
        else:
            _take_refused(letter, unread, result)
    for data, expected in unread.items():
        result.problems += [f"lost: {reading_id} {_shown(data)} has no dead letter" for reading_id, _ in expected]
    _compare(cells, rows, result)

    places = {name: getattr(result, name) for name in ("averaged", "late", "refused", "duplicates")}
    if result.published != sum(places.values()):
        parts = " + ".join(f"{count} {name}" for name, count in places.items())
        result.problems.append(f"{result.published} published is not {parts}")
    return result


def judge(sent: Sent, sensors: Sequence[str]) -> tuple[datetime, str, float] | str:
    """Return a message's event time, sensor and value; or the stage at which the pipeline must refuse it."""
    try:
        content = json.loads(sent.data.decode(), parse_constant=_refuse)
    except ValueError:
        return "decode"
    if not isinstance(content, dict):
        return "decode"
    time = _time(content.get("Timestamp"))
    if time is None or not YEAR_2000 <= time <= sent.time + MAX_FUTURE_SKEW:
        return "timestamp"
    found = [(name, content[name]) for name in sensors if name in content]
    if not isinstance(content.get("Device", ""), str) or not found or not _is_number(found[0][1]):
        return "validate"
    ((name, value),) = found
    return time, name, float(value)


def _time(stamp: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(stamp) if isinstance(stamp, str) else None
    except ValueError:
        return None
    return time if time and time.tzinfo else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _take_late(letter: DeadLetter, cells: Cells, result: Balance) -> None:
    """Take sums that came late out of what their row must hold."""
    try:
        content = json.loads(letter.payload)
        cells_of_row = cells[datetime.fromisoformat(content["Timestamp"])]
        parts = {name: (float(part["sum"]), int(part["count"])) for name, part in content["readings"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        result.problems.append(f"unreadable dead letter: late {_shown(letter.payload)}")
        return
    for name, (total, count) in parts.items():
        cell = cells_of_row[name]
        cell.late_sum += total
        cell.late_count += count
        result.late += count
        if cell.count < 0 or (cell.count == 0 and not same(math.fsum(cell.values.values()), cell.late_sum)):
            result.problems.append(f"wrong dead letter: late {_shown(letter.payload)} is not what was sent of {name}")


def _take_refused(letter: DeadLetter, unread: Unread, result: Balance) -> None:
    """Strike a message off those that must be refused."""
    expected = unread.get(letter.payload)
    if not expected:
        result.problems.append(f"unexpected dead letter: {letter.stage} {_shown(letter.payload)}")
        return
    result.refused += 1
    reading_id, stage = expected.pop()
    if stage != letter.stage:
        result.problems.append(f"wrong stage: {reading_id} {_shown(letter.payload)} is {letter.stage}, must be {stage}")


def _compare(cells: Cells, rows: Iterable[Row], result: Balance) -> None:
    """Compare the rows with what they must hold."""
    found: dict[datetime, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.start].append(row)
        result.rows_found += 1
    expected = {start for start, by_sensor in cells.items() if any(cell.count > 0 for cell in by_sensor.values())}
    result.rows_expected = len(expected)
    for start in sorted(expected | set(found)):
        if start not in expected:
            result.problems.append(f"unexpected row: {start.isoformat()}")
        elif start not in found:
            result.rows_missing += 1
            result.problems.append(f"missing row: {start.isoformat()}")
        elif len(found[start]) > 1:
            result.rows_doubled += 1
            result.problems.append(f"doubled row: {start.isoformat()} is there {len(found[start])} times")
        elif differences := list(_differences(cells[start], found[start][0])):
            result.rows_wrong += 1
            result.problems += [f"wrong row: {start.isoformat()} {difference}" for difference in differences]
        else:
            result.averaged += sum(cell.count for cell in cells[start].values())


def _differences(cells: Mapping[str, _Cell], row: Row) -> Iterable[str]:
    for name in sorted(set(cells) | set(row.means)):
        cell, found = cells.get(name, _Cell()), row.means.get(name)
        if not same(cell.mean(), found):
            yield f"{name} is {found}, must be {cell.mean()}{_as_if(cell, found)}"


def _as_if(cell: _Cell, found: float | None) -> str:
    """Say which simple mistake would make the mean that was found."""
    if cell.late_count and same(cell.mean(cell.late_sum, cell.late_count), found):
        return ", as if the late readings were in it too"
    for reading_id, value in cell.values.items():
        if same(cell.mean(-value, -1), found):
            return f", as if {reading_id} were lost"
        if same(cell.mean(value, 1), found):
            return f", as if {reading_id} were in it twice"
    return ""


def _shown(data: bytes) -> str:
    return repr(data if len(data) <= 120 else data[:117] + b"...")
