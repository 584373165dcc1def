"""The demo's check catches every kind of wrong table."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud import bigquery

from local.reconcile import Account, Row, interval_start, read, reconcile, unpack

SENSORS = ("AtmP", "Temp")
INTERVAL = timedelta(seconds=5)
START = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
SECOND = START + INTERVAL
NOT_JSON = b"{not json"


def message(seconds: float, **values: float) -> bytes:
    time = (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"Timestamp": time, "Device": "device-1", **values}).encode()


PUBLISHED = [
    message(0, Temp=20.0),
    message(4.999, Temp=21.0),
    message(4.0, AtmP=1013.0),
    message(5, Temp=22.0),
    NOT_JSON,
]
ROWS = [Row(START, {"AtmP": 1013.0, "Temp": 20.5}), Row(SECOND, {"AtmP": None, "Temp": 22.0})]


def check(published=PUBLISHED, rows=ROWS, dead_letters=(NOT_JSON,)) -> Account:
    return reconcile(published, rows, dead_letters, SENSORS, INTERVAL)


def test_a_right_table_has_no_problems() -> None:
    assert check() == Account(published=5, averaged=4, dead_lettered=1, problems=[])


def test_a_missing_row_is_named_and_its_readings_do_not_count() -> None:
    account = check(rows=ROWS[:1])
    assert account.problems == [
        "missing row: 2026-11-22T13:00:05+00:00",
        "published 5 is not averaged 3 + dead-lettered 1",
    ]


def test_a_doubled_row_is_named() -> None:
    assert "doubled row: 2026-11-22T13:00:00+00:00 is there 2 times" in check(rows=[*ROWS, ROWS[0]]).problems


def test_an_unexpected_row_is_named() -> None:
    stray = Row(SECOND + INTERVAL, {"AtmP": 1.0, "Temp": None})
    assert check(rows=[*ROWS, stray]).problems == ["unexpected row: 2026-11-22T13:00:10+00:00"]


@pytest.mark.parametrize("wrong", [20.5 * (1 + 2e-9), None, float("nan")])
def test_a_wrong_mean_is_named_with_what_it_must_be(wrong) -> None:
    account = check(rows=[replace(ROWS[0], means={"AtmP": 1013.0, "Temp": wrong}), ROWS[1]])
    assert account.problems[0] == f"wrong row: 2026-11-22T13:00:00+00:00 Temp is {wrong}, must be 20.5"
    assert account.averaged == 2


def test_a_value_where_null_belongs_is_wrong() -> None:
    account = check(rows=[ROWS[0], replace(ROWS[1], means={"AtmP": 1.0, "Temp": 22.0})])
    assert account.problems == ["wrong row: 2026-11-22T13:00:05+00:00 AtmP is 1.0, must be None"]


def test_rounding_in_the_last_digits_is_no_problem() -> None:
    assert not check(rows=[replace(ROWS[0], means={"AtmP": 1013.0, "Temp": 20.5 * (1 + 1e-15)}), ROWS[1]]).problems


def test_a_bad_message_that_is_nowhere_is_lost() -> None:
    assert check(dead_letters=()).problems[0].startswith("lost: 1 x b'{not json'")


def test_a_dead_letter_nobody_published_is_unexpected() -> None:
    assert check(dead_letters=(NOT_JSON, NOT_JSON)).problems == ["unexpected dead letter: b'{not json'"]


def test_a_reading_both_averaged_and_dead_lettered_makes_its_row_wrong() -> None:
    account = check(dead_letters=(NOT_JSON, PUBLISHED[1]))
    assert account.problems[0] == "wrong row: 2026-11-22T13:00:00+00:00 Temp is 20.5, must be 20.0"


def test_an_interval_whose_readings_are_all_dead_letters_has_no_row() -> None:
    account = check(rows=ROWS[:1], dead_letters=(NOT_JSON, PUBLISHED[3]))
    assert account == Account(published=5, averaged=3, dead_lettered=2, problems=[])


def test_sums_that_came_late_are_dead_letters_and_not_in_the_row() -> None:
    late = {"Timestamp": "2026-11-22T13:00:00.000000Z", "Device": None, "readings": {"Temp": {"sum": 21.0, "count": 1}}}
    rows = [Row(START, {"AtmP": 1013.0, "Temp": 20.0}), ROWS[1]]
    account = check(rows=rows, dead_letters=(NOT_JSON, json.dumps(late).encode()))
    assert account == Account(published=5, averaged=3, dead_lettered=2, problems=[])


def test_equal_messages_count_as_often_as_they_were_published() -> None:
    assert check(published=[*PUBLISHED, PUBLISHED[1]]).problems[0].startswith("wrong row")


@pytest.mark.parametrize(
    "data",
    [
        NOT_JSON,
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"Temp": 21.4}',
        b'{"Timestamp": "2026-11-22T13:00:00Z", "Wind": 3}',
        b'{"Timestamp": "half past one", "Temp": 3}',
        b'{"Timestamp": "2026-11-22T13:00:00Z", "Temp": null}',
    ],
)
def test_what_belongs_to_the_dead_letters_is_not_read(data: bytes) -> None:
    assert read(data, SENSORS) is None


def test_the_readings_of_an_array_are_taken_one_by_one() -> None:
    assert unpack(b"[" + PUBLISHED[0] + b", " + PUBLISHED[1] + b"]") == PUBLISHED[:2]
    assert unpack(b'[1, "x"]') == [b"1", b'"x"']


@pytest.mark.parametrize("data", [NOT_JSON, b"\xff\xfe", b"[]", b"7", PUBLISHED[0]])
def test_what_is_no_array_of_readings_stays_as_it_is(data: bytes) -> None:
    assert unpack(data) == [data]


def test_intervals_are_counted_from_1970() -> None:
    assert interval_start(START + timedelta(seconds=9.999999), INTERVAL) == SECOND
    assert interval_start(SECOND, INTERVAL) == SECOND


RANGED = [
    Row(START, ROWS[0].means, {"AtmP": (1013.0, 1013.0), "Temp": (20.0, 21.0)}),
    Row(SECOND, ROWS[1].means, {"AtmP": (None, None), "Temp": (22.0, 22.0)}),
]


def test_right_least_and_greatest_values_have_no_problems() -> None:
    assert check(rows=RANGED).problems == []


def test_a_wrong_greatest_value_is_named() -> None:
    rows = [replace(RANGED[0], ranges={**RANGED[0].ranges, "Temp": (20.0, 22.5)}), RANGED[1]]
    assert check(rows=rows).problems == [
        "wrong row: 2026-11-22T13:00:00+00:00 Temp ranges over (20.0, 22.5), must over (20.0, 21.0)"
    ]


def test_late_readings_leave_open_what_the_least_and_greatest_values_are() -> None:
    late = json.dumps({"Timestamp": "2026-11-22T13:00:00Z", "readings": {"Temp": {"sum": 21.0, "count": 1}}}).encode()
    rows = [replace(RANGED[0], means={**ROWS[0].means, "Temp": 20.0}, ranges={"Temp": (20.0, 20.0)}), RANGED[1]]
    assert check(rows=rows, dead_letters=(NOT_JSON, late)).problems == []


def test_a_row_of_bigquery_is_read_with_its_ranges_if_it_has_them() -> None:
    columns = {"Timestamp": 0, "Temp": 1, "Temp_min": 2, "Temp_max": 3, "AtmP": 4}
    record = bigquery.Row((START, 20.5, 20.0, 21.0, None), columns)
    assert Row.of(record, SENSORS) == Row(START, {"AtmP": None, "Temp": 20.5}, {"Temp": (20.0, 21.0)})
