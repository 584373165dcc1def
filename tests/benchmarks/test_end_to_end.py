"""What the end-to-end benchmark takes for right. No test here judges a speed."""

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import end_to_end
from benchmarks.end_to_end import INTERVAL, LADDERS, SENSORS, Ladder, Measured, compare, expected_rows, measure
from local import emulators
from local.reconcile import Row
from publisher.sensors import CURVES

START_MS = 1_795_352_401_250
CORES = dict.fromkeys(("publisher", "Pub/Sub", "pipeline", "BigQuery"), 0.5)
OURS = Ladder("shipped", "ours", 1, (100, 200))
GOOD = Measured(OURS, 100, 99.5, [2.5, 2.7, 2.6, 2.8], [], CORES)


def test_rows_are_expected_as_the_publisher_makes_readings() -> None:
    values = defaultdict(list)
    for number in range(50):
        time_ms, sensor = START_MS + number * 100, SENSORS[number % 4]
        device = f"device-{number // 4 % end_to_end.DEVICES + 1}"
        value = CURVES[sensor].value(end_to_end.SEED, device, sensor, time_ms)
        values[time_ms // 1000 // INTERVAL * INTERVAL, sensor].append(value)
    expected = expected_rows(10, START_MS, 5)
    assert {(at.timestamp(), name): cell.mean() for at, cells in expected.items() for name, cell in cells.items()} == {
        key: pytest.approx(sum(some) / len(some)) for key, some in values.items()
    }


def test_every_difference_is_named() -> None:
    expected = expected_rows(10, START_MS, 6)
    rows = [Row(start, {name: cells[name].mean() for name in SENSORS}) for start, cells in expected.items()]
    assert not compare(expected, rows, [])
    assert compare(expected, rows[1:], [])[0] == f"missing row: {rows[0].start.isoformat()}"
    assert compare(expected, [*rows, rows[0]], [])[0].startswith(f"doubled row: {rows[0].start.isoformat()}")
    stray = replace(rows[0], start=datetime(2026, 1, 1, tzinfo=UTC))
    assert compare(expected, [*rows, stray], [])[0] == "unexpected row: 2026-01-01T00:00:00+00:00"
    wrong = replace(rows[0], means={**rows[0].means, "Temp": None})
    assert compare(expected, [wrong, *rows[1:]], [])[0].startswith(
        f"wrong row: {rows[0].start.isoformat()} Temp is None"
    )
    assert compare(expected, rows, [b"null"]) == ["dead letter: b'null'"]


def test_a_load_is_sustained_when_nothing_is_wrong_and_rows_do_not_come_later_and_later() -> None:
    assert GOOD.sustained
    assert not GOOD._replace(problems=["1 dead letters: late Late"]).sustained
    assert not GOOD._replace(rate=97.9).sustained
    assert not GOOD._replace(delays=[2.5, 2.5, 3.6, 4.0]).sustained
    assert GOOD._replace(delays=[4.0, 3.6, 2.5, 2.5]).sustained
    assert not GOOD._replace(delays=[11.0, 3.6, 2.5, 2.5]).sustained
    assert not GOOD._replace(delays=[]).sustained


def test_the_best_rate_is_the_highest_that_was_sustained() -> None:
    higher = GOOD._replace(asked=200, rate=200.0)
    assert end_to_end.best([GOOD, higher], OURS) == 200
    assert end_to_end.best([GOOD, higher._replace(rate=100.0)], OURS) == 100
    assert end_to_end.best([GOOD], LADDERS[0]) == 0


def test_percentiles_are_delays_that_were_seen() -> None:
    measured = GOOD._replace(delays=[float(n) for n in range(100, 0, -1)])
    assert [measured.delay(percent) for percent in (50, 99, 100)] == [50, 99, 100]


def test_report() -> None:
    assert json.loads(json.dumps(end_to_end.row(GOOD)))["p50"] == 2.6


def test_publisher_and_pipeline_are_measured_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(end_to_end, "LOGS", tmp_path)
    for variable in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(variable, "")  # which the measurement sets, put back
    with emulators.own_pubsub_server() as pubsub, emulators.bigquery_emulator(end_to_end.PROJECT) as bigquery:
        measured = measure(Ladder("shipped", "ours", 10, (500,)), 500, 3, pubsub, bigquery)
    assert measured.problems == []
    assert len(measured.delays) in (2, 3)
    assert set(measured.cores) == set(CORES)
    assert timedelta(seconds=min(measured.delays)) > timedelta(seconds=end_to_end.GRACE)
