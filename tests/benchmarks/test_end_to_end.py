"""What the end-to-end benchmark takes for right. No test here judges a speed."""

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import end_to_end
from benchmarks.end_to_end import INTERVAL, LADDERS, SENSORS, Load, Measured, compare, expected_rows, measure
from local import emulators
from local.reconcile import Row
from publisher.sensors import CURVES

START_MS = 1_795_352_401_250
CORES = dict.fromkeys(end_to_end.PROCESSES, 0.5)
GOOD = Measured(Load("shipped", "ours", 1, 100), 400, 99.5, [2.5, 2.7, 2.6, 2.8], [], CORES)


def test_rows_are_expected_as_the_publisher_makes_readings() -> None:
    values = defaultdict(list)
    for number in range(50):
        time_ms, sensor = START_MS + number * 100, SENSORS[number % 4]
        device = f"device-{number // 4 % end_to_end.DEVICES + 1}"
        value = CURVES[sensor].value(end_to_end.SEED, device, sensor, time_ms)
        values[time_ms // 1000 // INTERVAL * INTERVAL, sensor].append(value)
    expected = expected_rows(10, START_MS, 5)
    assert {(start.timestamp(), name): mean for start, row in expected.items() for name, mean in row.items()} == {
        key: pytest.approx(sum(some) / len(some)) for key, some in values.items()
    }


def test_every_difference_is_named() -> None:
    expected = expected_rows(10, START_MS, 6)
    rows = [Row(start, {name: means.get(name) for name in SENSORS}) for start, means in expected.items()]
    assert not compare(expected, rows)
    assert compare(expected, rows[1:]) == [f"{rows[0].start:%H:%M:%S}: 0 rows, must be 1"]
    assert compare(expected, [*rows, rows[0]]) == [f"{rows[0].start:%H:%M:%S}: 2 rows, must be 1"]
    stray = replace(rows[0], start=datetime(2026, 1, 1, tzinfo=UTC))
    assert compare(expected, [*rows, stray]) == ["00:00:00: 1 rows, must be 0"]
    wrong = replace(rows[0], means={**rows[0].means, "Temp": None})
    assert compare(expected, [wrong, *rows[1:]])[0].startswith(f"{wrong.start:%H:%M:%S}: Temp is None, must be 2")


def test_a_load_is_sustained_when_nothing_is_wrong_and_rows_do_not_come_later_and_later() -> None:
    assert GOOD.sustained
    assert not replace(GOOD, problems=["1 dead letters: late Late"]).sustained
    assert not replace(GOOD, rate=97.9).sustained
    assert not replace(GOOD, delays=[2.5, 2.5, 3.6, 4.0]).sustained
    assert replace(GOOD, delays=[4.0, 3.6, 2.5, 2.5]).sustained
    assert not replace(GOOD, delays=[11.0, 3.6, 2.5, 2.5]).sustained
    assert not replace(GOOD, delays=[]).sustained


def test_the_best_rate_is_the_highest_that_was_sustained() -> None:
    higher = replace(GOOD, load=replace(GOOD.load, rate=200), rate=200.0)
    assert end_to_end.best([GOOD, higher], GOOD.load.ladder) == 200
    assert end_to_end.best([GOOD, replace(higher, rate=100.0)], GOOD.load.ladder) == 100
    assert end_to_end.best([GOOD], ("shipped", "official", 1)) == 0


def test_percentiles_are_delays_that_were_seen() -> None:
    measured = replace(GOOD, delays=[float(n) for n in range(100, 0, -1)])
    assert [measured.delay(percent) for percent in (50, 99, 100)] == [50, 99, 100]


def test_report(tmp_path: Path) -> None:
    measured = [replace(GOOD, load=ladder[0]) for ladder in LADDERS]
    end_to_end.chart(measured, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(json.dumps(end_to_end.as_json(measured, 40)))
    assert found["loads"][0]["p50"] == 2.6
    assert end_to_end.table(measured).row_count == len(LADDERS)


def test_publisher_and_pipeline_are_measured_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(end_to_end, "LOGS", tmp_path)
    for variable in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)
    with emulators.own_pubsub_server() as pubsub, emulators.bigquery_emulator(end_to_end.PROJECT) as bigquery:
        measured = measure(Load("shipped", "ours", 10, 500), 3, pubsub, bigquery)
    assert measured.problems == []
    assert measured.published == 1500
    assert len(measured.delays) in (2, 3)
    assert set(measured.cores) == set(end_to_end.PROCESSES)
    assert timedelta(seconds=min(measured.delays)) > timedelta(seconds=end_to_end.GRACE)
