"""What the end-to-end benchmark accepts as correct. No test here measures a speed."""

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks import end_to_end
from benchmarks.end_to_end import GRACE, INTERVAL, SENSORS, Ladder, measure, row
from local.verify.reconcile import Row
from publisher.sensors import CURVES

START_MS = 1_795_352_401_250
OURS = Ladder("shipped", "ours", 1, (100, 200, 300), goal=200)

differences = partial(end_to_end.differences, 10, START_MS, 6)
outcome = partial(row, OURS, 100)


@pytest.fixture
def rows() -> list[Row]:
    """As they must be, of ten readings a second for six seconds."""
    values = defaultdict(lambda: {name: [] for name in SENSORS})
    for number in range(60):
        time_ms, sensor = START_MS + number * 100, SENSORS[number % 4]
        device = f"device-{number // 4 % end_to_end.DEVICES + 1}"
        value = CURVES[sensor].value(end_to_end.SEED, device, sensor, time_ms)
        values[time_ms // 1000 // INTERVAL * INTERVAL][sensor].append(value)
    return [
        Row(datetime.fromtimestamp(start, UTC), {name: fmean(some) for name, some in of_row.items()})
        for start, of_row in values.items()
    ]


def test_differences_are_none_for_rows_of_published_readings(rows) -> None:
    assert len(rows) == 4
    assert differences(rows, []) == []


def test_differences_name_every_wrong_row_and_dead_letter(rows) -> None:
    first, *others = rows
    assert differences(others, [])[0] == f"missing row: {first.start.isoformat()}"
    assert differences([*rows, first], [])[0].startswith(f"doubled row: {first.start.isoformat()}")
    stray = replace(first, start=datetime(2026, 1, 1, tzinfo=UTC))
    assert differences([*rows, stray], [])[0] == "unexpected row: 2026-01-01T00:00:00+00:00"
    wrong = replace(first, means={**first.means, "Temp": None})
    assert differences([wrong, *others], [])[0].startswith(f"wrong row: {first.start.isoformat()} Temp is None")
    assert differences(rows, [b"null"]) == ["dead letter: b'null'"]


def test_row_is_sustained_without_differences_and_increasing_delay() -> None:
    good = [2.5, 2.7, 2.6, 2.8]
    assert outcome(99.5, good, wrong=False)["sustained"] == "yes"
    assert outcome(99.5, good, wrong=True)["sustained"] == "NO"
    assert outcome(97.9, good, wrong=False)["sustained"] == "NO"
    assert outcome(99.5, [2.5, 2.5, 3.6, 4.0], wrong=False)["sustained"] == "NO"
    assert outcome(99.5, [4.0, 3.6, 2.5, 2.5], wrong=False)["sustained"] == "yes"
    assert outcome(99.5, [11.0, 3.6, 2.5, 2.5], wrong=False)["sustained"] == "NO"
    assert outcome(99.5, [2.5], wrong=False)["sustained"] == "yes"
    assert outcome(99.5, [], wrong=False)["sustained"] == "NO"


@pytest.mark.parametrize(
    ("too_much", "climbed", "best", "status"), [(200, 2, 100, 1), (300, 3, 200, 0), (400, 3, 300, 0)]
)
def test_main_tries_rates_until_one_is_not_sustained(monkeypatch, tmp_path, too_much, climbed, best, status) -> None:
    published = []
    monkeypatch.setattr(end_to_end, "LOGS", tmp_path)
    monkeypatch.setattr(end_to_end, "QUICK", False)
    monkeypatch.setattr(end_to_end, "LADDERS", (OURS, OURS._replace(goal=None)))
    monkeypatch.setattr(end_to_end, "measure", lambda ladder, rate, _: row(ladder, rate, rate, [2.5], rate >= too_much))
    monkeypatch.setattr(end_to_end, "publish", lambda _, tables, goals: published.extend((*tables.values(), goals)))
    assert end_to_end.main() == status
    table, goals = published
    assert [found["readings/s"] for found in table] == 2 * [100, 200, 300][:climbed]
    assert [(goal.figures, goal.at_least) for goal in goals] == [([best], 200)]


def test_row_percentiles_are_measured_delays() -> None:
    found = outcome(99.5, [float(n) for n in range(100, 0, -1)], wrong=False)
    assert [found[name] for name in ("p50", "p99", "p100")] == [50, 99, 100]
    assert json.loads(json.dumps(outcome(99.5, [2.5, 2.7, 2.6, 2.8], wrong=False)))["p50"] == 2.6


def test_measure_runs_publisher_and_pipeline(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(end_to_end, "LOGS", tmp_path)
    for variable in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)  # so that it starts its own
    delays = []

    def row_of(ladder, asked, rate, found, wrong):
        delays.extend(found)
        return row(ladder, asked, rate, found, wrong)

    monkeypatch.setattr(end_to_end, "row", row_of)
    found = measure(Ladder("shipped", "ours", 10, (500,)), 500, 3)
    assert capsys.readouterr().out == ""  # no problems
    assert found["rows"] in (2, 3)
    assert len(delays) == found["rows"]
    assert min(delays) > GRACE
    assert all(found[who] > 0 for who in ("publisher", "Pub/Sub", "pipeline", "BigQuery"))
