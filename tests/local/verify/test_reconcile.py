"""Rows are compared with the expected ones, and every kind of difference is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud import bigquery

from local.verify.reconcile import Cell, Row, compare, interval_start

INTERVAL = timedelta(seconds=5)
START = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
SECOND = START + INTERVAL

EXPECTED = {
    START: {"AtmP": Cell({"r-0": 1013.0}), "Temp": Cell({"r-1": 20.0, "r-2": 21.0, "r-3": 23.5}, 23.5, 1)},
    SECOND: {"Temp": Cell({"r-4": 22.0, "r-5": 23.0})},
}
ROWS = [Row(START, {"AtmP": 1013.0, "Temp": 20.5}), Row(SECOND, {"AtmP": None, "Temp": 22.5})]


def check(*rows: Row) -> list[str]:
    return [str(difference) for difference in compare(EXPECTED, rows)]


def test_compare_finds_no_difference_in_right_rows() -> None:
    assert check(*ROWS) == []


def test_compare_names_each_kind_of_difference() -> None:
    stray = Row(SECOND + INTERVAL, {"AtmP": 1.0, "Temp": None})
    assert check(ROWS[0], ROWS[0], stray) == [
        "doubled row: 2026-11-22T13:00:00+00:00 is there 2 times",
        "missing row: 2026-11-22T13:00:05+00:00",
        "unexpected row: 2026-11-22T13:00:10+00:00",
    ]


@pytest.mark.parametrize(
    ("mean", "as_if"),
    [
        (20.5 * (1 + 2e-9), ""),
        (None, ""),
        (float("nan"), ""),
        (21.0, ", as if r-1 were lost"),
        ((20 + 20 + 21) / 3, ", as if r-1 were in it twice"),
        ((20 + 21 + 23.5) / 3, ", as if the late readings were in it too"),
    ],
)
def test_compare_names_the_expected_mean_and_the_likely_mistake(mean, as_if) -> None:
    row = Row(START, {"AtmP": 1013.0, "Temp": mean})
    assert check(row, ROWS[1]) == [f"wrong row: 2026-11-22T13:00:00+00:00 Temp is {mean}, must be 20.5{as_if}"]


def test_compare_reports_a_value_in_place_of_null() -> None:
    row = Row(SECOND, {"AtmP": 1.0, "Temp": 22.5})
    assert check(ROWS[0], row) == ["wrong row: 2026-11-22T13:00:05+00:00 AtmP is 1.0, must be None"]


def test_compare_tolerates_rounding_in_the_last_digits() -> None:
    assert check(Row(START, {"AtmP": 1013.0, "Temp": 20.5 * (1 + 1e-15)}), ROWS[1]) == []


RANGED = Row(SECOND, ROWS[1].means, {"AtmP": (None, None), "Temp": (22.0, 23.0)})


def test_compare_finds_no_difference_in_right_ranges() -> None:
    assert check(ROWS[0], RANGED) == []


def test_compare_names_a_wrong_greatest_value() -> None:
    row = replace(RANGED, ranges={**RANGED.ranges, "Temp": (22.0, 22.5)})
    assert check(ROWS[0], row) == [
        "wrong row: 2026-11-22T13:00:05+00:00 Temp has the range (22.0, 22.5), must have (22.0, 23.0)"
    ]


def test_compare_ignores_ranges_when_readings_were_late() -> None:
    assert check(replace(ROWS[0], ranges={"Temp": (20.0, 20.9)}), ROWS[1]) == []


def test_interval_start_is_a_multiple_of_the_length_from_1970() -> None:
    assert interval_start(START + timedelta(seconds=9.999999), INTERVAL) == SECOND
    assert interval_start(SECOND, INTERVAL) == SECOND


def test_from_record_reads_ranges_only_when_the_job_has_them() -> None:
    columns = {"Timestamp": 0, "Temp": 1, "Temp_min": 2, "Temp_max": 3}
    record = bigquery.Row((START, 20.5, 20.0, 21.0), columns)
    assert Row.from_record(record, ["Temp"], has_ranges=True) == Row(START, {"Temp": 20.5}, {"Temp": (20.0, 21.0)})
    # Without these statistics, the columns belong to sensors whose names only look like statistics.
    sensors = ("Temp", "Temp_min", "Temp_max")
    assert Row.from_record(record, sensors) == Row(START, {"Temp": 20.5, "Temp_min": 20.0, "Temp_max": 21.0})
