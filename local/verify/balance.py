"""Accounts for every reading that was published, from the table of rows and the dead-letter table.

Each reading must be in exactly one place: in its interval's row, in a dead letter, or removed because the same
reading_id was sent before. The rules are those of the README, in plain Python that shares no code with the pipeline.

A row holds only means. To see that a reading is part of it, the mean is recomputed from all readings of the interval
less the sums that came late. A missing reading whose value equals the mean is therefore not detected.
"""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from local.verify.reconcile import Cell, Row, compare, interval_start, same

MAX_FUTURE_SKEW = timedelta(minutes=10)  # the pipeline's default
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)


class LateSums(NamedTuple):
    """The readings of one interval that came late: their sum and their count, by sensor."""

    interval_start: datetime
    by_sensor: dict[str, tuple[float, int]]


@dataclass(frozen=True)
class ManifestEntry:
    """A reading that Pub/Sub accepted, and when it was passed to the client: a line of the publisher's manifest."""

    reading_id: str
    data: bytes
    sent_at: datetime


@dataclass(frozen=True)
class Reading:
    """One value of one sensor."""

    time: datetime
    device: str | None
    sensor: str
    value: float


@dataclass(frozen=True)
class DeadLetter:
    """A row of the dead-letter table, or with `counted` one of the items that a TooManyRefused row counts.

    The stage of such a row is that of its first item, not of each.
    """

    stage: str
    payload: bytes
    counted: bool = False

    @property
    def late_sums(self) -> LateSums | None:
        """The payload of a dead letter of the stage late; None if it cannot be read."""
        try:
            content = json.loads(self.payload.decode(), parse_constant=_reject_constant)
            sums = {name: (float(part["sum"]), int(part["count"])) for name, part in content["readings"].items()}
            return LateSums(datetime.fromisoformat(content["Timestamp"]), sums)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def read_dead_letters(rows: Iterable[Mapping[str, Any]]) -> list[DeadLetter]:
    """Return the dead letters in rows of the dead-letter table; a TooManyRefused row counts as all items it holds."""
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
    """How many readings are in each place; `published` must equal `averaged` + `late` + `refused` + `duplicates`.

    `averaged` counts the readings whose row exists once and is right. `rows_found` counts the rows of the table, the
    other `rows_` count intervals. `problems` has one line for each difference.
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
        """The number of readings in dead letters."""
        return self.late + self.refused


Cells = dict[datetime, dict[str, Cell]]  # by interval start, then by sensor
ToRefuse = dict[bytes, list[tuple[str, str]]]  # data of messages that must be refused: reading_id and stage of each


def read_manifest(path: Path) -> list[ManifestEntry]:
    """Read a file that `python -m publisher publish --manifest` wrote, in the order of sending."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        data = base64.b64decode(record["data_base64"]) if record["data"] is None else record["data"].encode()
        entries.append(ManifestEntry(record["reading_id"], data, datetime.fromisoformat(record["sent"])))
    return sorted(entries, key=lambda entry: entry.sent_at)


def balance(
    manifest: Iterable[ManifestEntry],
    rows: Sequence[Row],
    dead_letters: Iterable[DeadLetter],
    sensors: Sequence[str],
    interval: timedelta,
) -> Balance:
    """Compare the manifest with the tables.

    Args:
      manifest: every reading in the order of sending, each of one sensor or malformed; packed ones are listed singly.
      rows: all rows of the table.
      dead_letters: all rows of the dead-letter table.
      sensors: the sensor columns.
      interval: length of an interval.
    """
    result = Balance()
    cells: Cells = defaultdict(lambda: defaultdict(Cell))
    to_refuse: ToRefuse = defaultdict(list)
    seen: set[str] = set()
    for entry in manifest:
        result.published += 1
        if entry.reading_id in seen:
            result.duplicates += 1
            continue
        seen.add(entry.reading_id)
        reading = classify(entry, sensors)
        if isinstance(reading, str):
            to_refuse[entry.data].append((entry.reading_id, reading))
        else:
            cells[interval_start(reading.time, interval)][reading.sensor].values[entry.reading_id] = reading.value

    for dead_letter in dead_letters:
        if dead_letter.stage == "late":
            _subtract_late(dead_letter, cells, result)
        else:
            _match_refused(dead_letter, to_refuse, result)
    for data, expected in to_refuse.items():
        result.problems += [f"lost: {reading_id} {_shorten(data)} has no dead letter" for reading_id, _ in expected]
    _compare(cells, rows, result)

    places = {name: getattr(result, name) for name in ("averaged", "late", "refused", "duplicates")}
    if result.published != sum(places.values()):
        parts = " + ".join(f"{count} {name}" for name, count in places.items())
        result.problems.append(f"{result.published} published is not {parts}")
    return result


def classify(entry: ManifestEntry, sensors: Sequence[str]) -> Reading | str:
    """Return the reading in a message, or the stage at which the pipeline must refuse it."""
    try:
        content = json.loads(entry.data.decode(), parse_constant=_reject_constant)
    except ValueError:
        return "decode"
    if not isinstance(content, dict):
        return "decode"
    time = _parse_time(content.get("Timestamp"))
    if time is None or not YEAR_2000 <= time <= entry.sent_at + MAX_FUTURE_SKEW:
        return "timestamp"
    found = [(name, content[name]) for name in sensors if name in content]
    device = content.get("Device")
    if not isinstance(device, str | None) or not found or not _is_number(found[0][1]):
        return "validate"
    ((name, value),) = found
    return Reading(time, device, name, float(value))


def _parse_time(stamp: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(stamp) if isinstance(stamp, str) else None
    except ValueError:
        return None
    return time if time and time.tzinfo else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reject_constant(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts."""
    raise ValueError(f"{constant} is not JSON")


def _subtract_late(dead_letter: DeadLetter, cells: Cells, result: Balance) -> None:
    """Subtract sums that came late from what their row must hold."""
    if not (late := dead_letter.late_sums):
        result.problems.append(f"unreadable dead letter: late {_shorten(dead_letter.payload)}")
        return
    for name, (total, count) in late.by_sensor.items():
        cell = cells[late.interval_start][name]
        cell.late_sum += total
        cell.late_count += count
        result.late += count
        if cell.count < 0 or (cell.count == 0 and not same(math.fsum(cell.values.values()), cell.late_sum)):
            payload = _shorten(dead_letter.payload)
            result.problems.append(f"wrong dead letter: late {payload} does not match the readings of {name}")


def _match_refused(dead_letter: DeadLetter, to_refuse: ToRefuse, result: Balance) -> None:
    """Remove the message of a dead letter from those that must be refused."""
    payload = _shorten(dead_letter.payload)
    expected = to_refuse.get(dead_letter.payload)
    if not expected:
        result.problems.append(f"unexpected dead letter: {dead_letter.stage} {payload}")
        return
    result.refused += 1
    reading_id, stage = expected.pop()
    if stage != dead_letter.stage and not dead_letter.counted:
        result.problems.append(f"wrong stage: {reading_id} {payload} is {dead_letter.stage}, must be {stage}")


def _compare(cells: Cells, rows: Sequence[Row], result: Balance) -> None:
    """Compare the rows with the cells that they must hold."""
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


def _shorten(data: bytes) -> str:
    return repr(data if len(data) <= 120 else data[:117] + b"...")
