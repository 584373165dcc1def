"""The check of silences finds every kind of difference."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from local.verify import silences
from local.verify.balance import Sent
from local.verify.silences import Silences

START = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
AFTER = timedelta(seconds=10)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else START + timedelta(seconds=seconds)


def reading(device: str, seconds: float, sent: float | None = None, value: float | None = 1.5) -> Sent:
    data = json.dumps({"Timestamp": at(seconds).isoformat(), "Device": device, "Temp": value}).encode()
    return Sent("r", data, at(seconds if sent is None else sent))


def check(rows: list[dict], readings: list[Sent], pipelines: int = 1) -> Silences:
    return silences.check(rows, readings, ["Temp"], AFTER, pipelines)


def row(device: str | None, since: float, noticed: float, back: float | None = None) -> dict:
    return {"Device": device, "SilentSince": at(since), "NoticedAt": at(noticed), "BackAt": at(back)}


READINGS = [reading("a", 0), reading("a", 5), reading("b", 9), reading("a", 30), reading("b", 18), reading("b", 27)]
OF_A = [row("a", 5, 17), row("a", 5, 17, 30)]
BY_THE_END = [row("b", 27, 40), row("a", 30, 42), row(None, 30, 42)]


def test_what_was_noticed_once_and_closed_is_right() -> None:
    assert check(OF_A, READINGS) == Silences(1, 0, [], [])


def test_an_upserted_silence_of_the_whole_stream_has_an_empty_device() -> None:
    assert check([*OF_A, row("", 30, 42)], READINGS) == check([*OF_A, row(None, 30, 42)], READINGS)


def test_what_has_no_end_yet_may_be_noticed_and_is_not_counted() -> None:
    assert check([*OF_A, *BY_THE_END], READINGS) == Silences(1, 0, ["b", "a", "all devices"], [])


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "missing silence: a since 2026-11-22T13:00:05+00:00"),
        (OF_A[:1], "wrong silence: a since 2026-11-22T13:00:05+00:00 until None, must be 2026-11-22 13:00:30+00:00"),
        ([*OF_A, row("a", 5, 17, 29)], "wrong silence: a since 2026-11-22T13:00:05+00:00 until 2026-11-22 13:00:29"),
        ([*OF_A, row("a", 5, 18)], "silence noticed 2 times: a since 2026-11-22T13:00:05+00:00"),
        ([*OF_A, row("b", 9, 17)], "unexpected silence: b since 2026-11-22T13:00:09+00:00 until None"),
        (
            [*OF_A, row("b", 9, 17, 18)],
            "unexpected silence: b since 2026-11-22T13:00:09+00:00 until 2026-11-22 13:00:18",
        ),
        ([*OF_A, row("c", 9, 17)], "unexpected silence: c since"),
        ([*OF_A, row(None, 9, 27)], "unexpected silence: all devices since"),
    ],
)
def test_each_difference_is_named(rows, problem) -> None:
    [found] = check(rows, READINGS).problems
    assert found.startswith(problem)


def test_a_reading_that_was_sent_too_late_may_have_filled_it() -> None:
    readings = [*READINGS, reading("b", 10, sent=25)]
    assert check([*OF_A, row("b", 9, 24), row("b", 9, 24, 10)], readings) == Silences(2, 1, [], [])


def test_two_pipelines_may_both_have_noticed() -> None:
    rows = [*OF_A, row("a", 5, 80, 30)]
    assert check(rows, READINGS, pipelines=2).problems == []


def test_only_what_is_good_was_heard() -> None:
    bad = [Sent("s", b"bad", at(8)), reading("a", 12, value=None)]
    assert check(OF_A, [*READINGS, *bad]) == Silences(1, 0, [], [])
