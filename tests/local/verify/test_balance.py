"""The balance accounts for every reading and reports every kind of difference."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.verify.balance import (
    Balance,
    DeadLetter,
    ManifestEntry,
    Reading,
    balance,
    classify,
    read_dead_letters,
    read_manifest,
)
from local.verify.reconcile import Row
from publisher.faults import MALFORMED, Faults
from publisher.manifest import Manifest
from publisher.sensors import Reading as Simulated

SENSORS = ("AtmP", "Temp")
INTERVAL = timedelta(seconds=5)
START = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
SECOND = START + INTERVAL


def stamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry(reading_id: str, seconds: float, **values: float) -> ManifestEntry:
    time = START + timedelta(seconds=seconds)
    data = json.dumps({"Timestamp": stamp(time), "Device": "device-1", **values}).encode()
    return ManifestEntry(reading_id, data, time)


def late(seconds: float, **sums: tuple[float, int]) -> DeadLetter:
    readings = {name: {"sum": total, "count": count} for name, (total, count) in sums.items()}
    content = {"Timestamp": stamp(START + timedelta(seconds=seconds)), "Device": None, "readings": readings}
    return DeadLetter("late", json.dumps(content).encode())


NOT_JSON = ManifestEntry("r-5", b"{not json", START)
MANIFEST = [
    entry("r-0", 0, Temp=20.0),
    entry("r-1", 1, Temp=21.0),
    entry("r-2", 4.999, Temp=23.5),
    entry("r-3", 4, AtmP=1013.0),
    entry("r-4", 5, Temp=22.0),
    NOT_JSON,
    entry("r-0", 0, Temp=20.0),
]
FIRST_ROW = Row(START, {"AtmP": 1013.0, "Temp": 20.5})
ROWS = [FIRST_ROW, Row(SECOND, {"AtmP": None, "Temp": 22.0})]
REFUSED = DeadLetter("decode", b"{not json")
DEAD_LETTERS = [late(0, Temp=(23.5, 1)), REFUSED]
RIGHT = Balance(published=7, averaged=4, late=1, refused=1, duplicates=1, rows_expected=2, rows_found=2)


def check(manifest=MANIFEST, rows=ROWS, dead_letters=DEAD_LETTERS) -> Balance:
    return balance(manifest, rows, dead_letters, SENSORS, INTERVAL)


def with_first_temp(mean: float | None) -> list[Row]:
    return [Row(START, {"AtmP": 1013.0, "Temp": mean}), ROWS[1]]


def test_balance_has_no_problems_when_tables_are_right() -> None:
    assert check() == RIGHT


def test_balance_reports_a_missing_row_and_leaves_its_readings_out() -> None:
    found = check(rows=ROWS[:1])
    assert (found.averaged, found.rows_missing) == (3, 1)
    assert found.problems == [
        "missing row: 2026-11-22T13:00:05+00:00",
        "7 published is not 3 averaged + 1 late + 1 refused + 1 duplicates",
    ]


def test_balance_reports_a_doubled_row() -> None:
    found = check(rows=[*ROWS, FIRST_ROW])
    assert (found.averaged, found.rows_found, found.rows_doubled) == (1, 3, 1)
    assert "doubled row: 2026-11-22T13:00:00+00:00 is there 2 times" in found.problems


def test_balance_reports_a_row_of_an_interval_without_readings() -> None:
    stray = Row(SECOND + INTERVAL, {"AtmP": 1.0, "Temp": None})
    assert check(rows=[*ROWS, stray]).problems == ["unexpected row: 2026-11-22T13:00:10+00:00"]


def test_balance_reports_a_wrong_row_and_leaves_its_readings_out() -> None:
    found = check(rows=with_first_temp(21.0))
    assert (found.averaged, found.rows_wrong) == (1, 1)
    assert found.problems[0] == "wrong row: 2026-11-22T13:00:00+00:00 Temp is 21.0, must be 20.5, as if r-0 were lost"


def test_balance_reports_a_late_reading_without_dead_letter() -> None:
    found = check(dead_letters=[REFUSED])
    assert found.problems[0].endswith("Temp is 20.5, must be 21.5, as if r-2 were lost")


def test_balance_reports_a_refused_message_without_dead_letter() -> None:
    assert check(dead_letters=DEAD_LETTERS[:1]).problems[0] == "lost: r-5 b'{not json' has no dead letter"


def test_balance_needs_a_dead_letter_for_each_refused_message_of_the_same_bytes() -> None:
    manifest = [*MANIFEST, replace(NOT_JSON, reading_id="r-6")]
    assert check(manifest, dead_letters=[*DEAD_LETTERS, REFUSED]) == replace(RIGHT, published=8, refused=2)
    assert check(manifest).problems[0] == "lost: r-5 b'{not json' has no dead letter"


def test_balance_accounts_for_each_item_that_a_dead_letter_counts() -> None:
    items = [b'{"Temp":  1}', b"7", b'{"Timestamp": "noon"}']
    manifest = [*MANIFEST, *(ManifestEntry(f"r-{n}", data, START) for n, data in enumerate(items, 6))]
    rows = [
        {"stage": "decode", "error": "TooManyRefused", "payload": b"[" + b",".join(items) + b"]"},
        {"stage": "decode", "error": "NotJson", "payload": REFUSED.payload},
    ]
    dead_letters = [DEAD_LETTERS[0], *read_dead_letters(rows)]
    assert check(manifest, dead_letters=dead_letters) == replace(RIGHT, published=10, refused=4)
    assert check(manifest[:-1], dead_letters=dead_letters).problems == [f"unexpected dead letter: decode {items[-1]!r}"]


@pytest.mark.parametrize("dead_letter", [REFUSED, DeadLetter("decode", MANIFEST[4].data)])
def test_balance_reports_a_message_in_two_places(dead_letter) -> None:
    assert check(dead_letters=[*DEAD_LETTERS, dead_letter]).problems == [
        f"unexpected dead letter: decode {dead_letter.payload!r}"
    ]


def test_balance_reports_a_wrong_row_when_a_late_dead_letter_is_there_twice() -> None:
    assert check(dead_letters=[*DEAD_LETTERS, DEAD_LETTERS[0]]).rows_wrong == 1


def test_balance_reports_a_dead_letter_with_another_payload_as_unexpected_and_lost() -> None:
    found = check(dead_letters=[DEAD_LETTERS[0], DeadLetter("decode", b"{not jso")])
    assert found.problems[:2] == [
        "unexpected dead letter: decode b'{not jso'",
        "lost: r-5 b'{not json' has no dead letter",
    ]


def test_balance_reports_a_dead_letter_of_another_stage() -> None:
    found = check(dead_letters=[DEAD_LETTERS[0], replace(REFUSED, stage="validate")])
    assert found.problems == ["wrong stage: r-5 b'{not json' is validate, must be decode"]


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"Timestamp": "2026-11-22T13:00:00Z"}', b'{"readings": {}}'])
def test_balance_reports_a_late_dead_letter_that_cannot_be_read(payload) -> None:
    assert (
        "unreadable dead letter: late" in check(dead_letters=[*DEAD_LETTERS, DeadLetter("late", payload)]).problems[0]
    )


def test_balance_reports_a_wrong_row_when_a_late_dead_letter_has_another_sum() -> None:
    assert check(dead_letters=[late(0, Temp=(23.4, 1)), REFUSED]).rows_wrong == 1


@pytest.mark.parametrize("dead_letter", [late(10, Temp=(1.0, 1)), late(0, Temp=(64.5, 4)), late(5, Temp=(22.1, 1))])
def test_balance_reports_a_late_dead_letter_that_no_readings_add_up_to(dead_letter) -> None:
    assert "does not match the readings of Temp" in check(dead_letters=[*DEAD_LETTERS, dead_letter]).problems[0]


def test_balance_expects_no_row_of_an_interval_whose_readings_all_came_late() -> None:
    assert check(rows=ROWS[:1], dead_letters=[*DEAD_LETTERS, late(5, Temp=(22.0, 1))]) == replace(
        RIGHT, averaged=3, late=2, rows_expected=1, rows_found=1
    )


def test_balance_reports_a_wrong_row_when_duplicates_were_not_removed() -> None:
    found = check(rows=with_first_temp((20 + 20 + 21) / 3))
    assert found.problems[0].endswith("as if r-0 were in it twice")


def test_balance_reports_a_dead_letter_of_a_rejected_row() -> None:
    problem = check(dead_letters=[*DEAD_LETTERS, DeadLetter("insert", b"{}")]).problems[0]
    assert problem == "unexpected dead letter: insert b'{}'"


@pytest.mark.parametrize(
    ("stamped", "stage"),
    [
        ("1999-12-31T23:59:59Z", "timestamp"),
        (stamp(START + timedelta(minutes=11)), "timestamp"),
        (stamp(START + timedelta(minutes=9)), None),
    ],
)
def test_classify_compares_timestamps_with_the_time_of_sending(stamped, stage) -> None:
    reading = classify(ManifestEntry("r", json.dumps({"Timestamp": stamped, "Temp": 1}).encode(), START), SENSORS)
    assert reading == (stage or Reading(START + timedelta(minutes=9), None, "Temp", 1.0))


def test_classify_returns_the_stage_of_every_malformed_message() -> None:
    reading = Simulated(0, "device-1", "Temp", round(START.timestamp() * 1000), 21.4)
    stages = {}
    for seed in range(200):
        (message,) = Faults({"malformed": 1.0}, seed=seed).messages([reading], "run")
        stages[message.fault.removeprefix("malformed: ")] = classify(ManifestEntry("r", message.data, START), SENSORS)
    assert stages == {
        "not_utf8": "decode",
        "not_json": "decode",
        "not_an_object": "decode",
        "empty_array": "decode",
        "no_timestamp": "timestamp",
        "null_timestamp": "timestamp",
        "unreadable_timestamp": "timestamp",
        "timestamp_without_offset": "timestamp",
        "unknown_sensor": "validate",
        "text_value": "validate",
        "null_value": "validate",
        "true_value": "validate",
        "nan_value": "decode",
        "huge_value": "validate",
        "numeric_device": "validate",
    }
    assert stages.keys() == MALFORMED.keys()


def test_read_manifest_returns_what_the_publisher_recorded(tmp_path: Path) -> None:
    reading = Simulated(0, "device-1", "Temp", round(START.timestamp() * 1000), 21.4)
    manifest = Manifest(tmp_path / "manifest")
    messages = [m for seed in range(40) for m in Faults({"malformed": 1.0}, seed=seed).messages([reading], "run")]
    for second, message in reversed(list(enumerate(messages))):
        manifest.record(message, "m", START.timestamp() + second)
    assert any(base64.b64decode("6Q==") in message.data for message in messages)  # one that is not UTF-8
    assert read_manifest(tmp_path / "manifest") == [
        ManifestEntry("run-0", message.data, START + timedelta(seconds=second))
        for second, message in enumerate(messages)
    ]
