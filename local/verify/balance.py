"""Account for every reading that was published, from the two tables alone.

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
from typing import Any, NoReturn

import msgspec

from local.verify.reconcile import Cell, Row, compare, interval_start, same

MAX_FUTURE_SKEW = timedelta(minutes=10)  # the pipeline's default
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)


LateSums = tuple[datetime, dict[str, tuple[float, int]]]  # the start of their interval; sum and count by sensor


@dataclass(frozen=True)
class Sent:
    """A message that Pub/Sub accepted, as a line of the manifest tells, and when it was handed to the client."""

    reading_id: str
    data: bytes
    time: datetime


@dataclass(frozen=True)
class Reading:
    """What can be averaged."""

    time: datetime
    device: str | None
    sensor: str
    value: float


@dataclass(frozen=True)
class DeadLetter:
    """A row of the dead-letter table, or one of the many items that a row counts, whose stage is not the item's."""

    stage: str
    payload: bytes
    counted: bool = False

    @property
    def late_sums(self) -> LateSums | None:
        """What came late, of a letter of that stage; None if it cannot be read."""
        try:
            content = json.loads(self.payload.decode(), parse_constant=_refuse)
            sums = {name: (float(part["sum"]), int(part["count"])) for name, part in content["readings"].items()}
            return datetime.fromisoformat(content["Timestamp"]), sums
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def read_dead_letters(rows: Iterable[Mapping[str, Any]]) -> list[DeadLetter]:
    """Return what rows of the dead-letter table stand for: each is a dead letter, or the array of all it counts."""
    found = []
    for row in rows:
        if row["error"] == "TooManyRefused":
            items = msgspec.json.decode(row["payload"], type=list[msgspec.Raw])
            found += [DeadLetter(row["stage"], bytes(item), counted=True) for item in items]
        else:
            found.append(DeadLetter(row["stage"], row["payload"]))
    return found


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

    @property
    def dead_lettered(self) -> int:
        """How many readings are in a dead letter."""
        return self.late + self.refused


Cells = dict[datetime, dict[str, Cell]]  # by interval start, then by sensor
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
    rows: Sequence[Row],
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
    cells: Cells = defaultdict(lambda: defaultdict(Cell))
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
            cells[interval_start(fate.time, interval)][fate.sensor].values[sent.reading_id] = fate.value

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


def judge(sent: Sent, sensors: Sequence[str]) -> Reading | str:
    """Return the reading in a message; or the stage at which the pipeline must refuse it."""
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
    return Reading(time, content.get("Device"), name, float(value))


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
    if not (late := letter.late_sums):
        result.problems.append(f"unreadable dead letter: late {_shown(letter.payload)}")
        return
    start, sums = late
    for name, (total, count) in sums.items():
        cell = cells[start][name]
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
    if stage != letter.stage and not letter.counted:
        result.problems.append(f"wrong stage: {reading_id} {_shown(letter.payload)} is {letter.stage}, must be {stage}")


def _compare(cells: Cells, rows: Sequence[Row], result: Balance) -> None:
    """Compare the rows with what they must hold."""
    expected = {start: of_row for start, of_row in cells.items() if any(cell.count > 0 for cell in of_row.values())}
    wrong: dict[str, set[datetime]] = defaultdict(set)
    for difference in compare(expected, rows):
        wrong[difference.kind].add(difference.start)
        result.problems.append(str(difference))
    right = expected.keys() - set().union(*wrong.values())
    result.averaged = sum(cell.count for start in right for cell in expected[start].values())
    result.rows_expected, result.rows_found = len(expected), len(rows)
    result.rows_doubled, result.rows_missing, result.rows_wrong = (
        len(wrong[kind]) for kind in ("doubled", "missing", "wrong")
    )


def _shown(data: bytes) -> str:
    return repr(data if len(data) <= 120 else data[:117] + b"...")
