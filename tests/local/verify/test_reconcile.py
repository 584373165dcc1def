"""Rows are compared with what they must hold, and every kind of difference is named."""

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


def test_right_rows_do_not_differ() -> None:
    assert check(*ROWS) == []


def test_each_kind_of_difference_is_named() -> None:
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
def test_a_wrong_mean_is_named_with_what_it_must_be_and_the_likely_mistake(mean, as_if) -> None:
    row = Row(START, {"AtmP": 1013.0, "Temp": mean})
    assert check(row, ROWS[1]) == [f"wrong row: 2026-11-22T13:00:00+00:00 Temp is {mean}, must be 20.5{as_if}"]


def test_a_value_where_null_belongs_is_wrong() -> None:
    row = Row(SECOND, {"AtmP": 1.0, "Temp": 22.5})
    assert check(ROWS[0], row) == ["wrong row: 2026-11-22T13:00:05+00:00 AtmP is 1.0, must be None"]


def test_rounding_in_the_last_digits_is_no_difference() -> None:
    assert check(Row(START, {"AtmP": 1013.0, "Temp": 20.5 * (1 + 1e-15)}), ROWS[1]) == []


RANGED = Row(SECOND, ROWS[1].means, {"AtmP": (None, None), "Temp": (22.0, 23.0)})


def test_right_least_and_greatest_values_do_not_differ() -> None:
    assert check(ROWS[0], RANGED) == []


def test_a_wrong_greatest_value_is_named() -> None:
    row = replace(RANGED, ranges={**RANGED.ranges, "Temp": (22.0, 22.5)})
    assert check(ROWS[0], row) == [
        "wrong row: 2026-11-22T13:00:05+00:00 Temp ranges over (22.0, 22.5), must over (22.0, 23.0)"
    ]


def test_late_readings_leave_open_what_the_least_and_greatest_values_are() -> None:
    assert check(replace(ROWS[0], ranges={"Temp": (20.0, 20.9)}), ROWS[1]) == []


def test_intervals_are_counted_from_1970() -> None:
    assert interval_start(START + timedelta(seconds=9.999999), INTERVAL) == SECOND
    assert interval_start(SECOND, INTERVAL) == SECOND


def test_a_row_of_bigquery_is_read_with_the_ranges_of_a_job_that_has_them() -> None:
    columns = {"Timestamp": 0, "Temp": 1, "Temp_min": 2, "Temp_max": 3}
    record = bigquery.Row((START, 20.5, 20.0, 21.0), columns)
    assert Row.of(record, ["Temp"], ranged=True) == Row(START, {"Temp": 20.5}, {"Temp": (20.0, 21.0)})
    # Without these statistics they are sensors with such names, of which nothing may be concluded.
    sensors = ("Temp", "Temp_min", "Temp_max")
    assert Row.of(record, sensors) == Row(START, {"Temp": 20.5, "Temp_min": 20.0, "Temp_max": 21.0})
