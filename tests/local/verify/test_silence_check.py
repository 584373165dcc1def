"""The check of silences reports every kind of difference."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from local.verify.balance import ManifestEntry
from local.verify.silence_check import SilenceCheck, check_silences

START = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
SILENCE_AFTER = timedelta(seconds=10)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else START + timedelta(seconds=seconds)


def reading(device: str, seconds: float, sent_at: float | None = None, value: float | None = 1.5) -> ManifestEntry:
    data = json.dumps({"Timestamp": at(seconds).isoformat(), "Device": device, "Temp": value}).encode()
    return ManifestEntry("r", data, at(seconds if sent_at is None else sent_at))


def check(rows: list[dict], readings: list[ManifestEntry], pipelines: int = 1) -> SilenceCheck:
    return check_silences(rows, readings, ["Temp"], SILENCE_AFTER, pipelines)


def row(device: str | None, silent_since: float, noticed_at: float, resumed_at: float | None = None) -> dict:
    times = {"SilentSince": silent_since, "NoticedAt": noticed_at, "BackAt": resumed_at}
    return {"Device": device, **{name: at(seconds) for name, seconds in times.items()}}


READINGS = [reading("a", 0), reading("a", 5), reading("b", 9), reading("a", 30), reading("b", 18), reading("b", 27)]
OF_A = [row("a", 5, 17), row("a", 5, 17, 30)]
BY_THE_END = [row("b", 27, 40), row("a", 30, 42), row(None, 30, 42)]


def test_silence_noticed_once_and_ended_is_right() -> None:
    assert check(OF_A, READINGS) == SilenceCheck(1, 0, [], [])


def test_upserted_silence_of_the_stream_has_an_empty_device() -> None:
    assert check([*OF_A, row("", 30, 42)], READINGS) == check([*OF_A, row(None, 30, 42)], READINGS)


def test_silence_without_end_is_listed_and_not_counted() -> None:
    assert check([*OF_A, *BY_THE_END], READINGS) == SilenceCheck(1, 0, ["b", "a", "all devices"], [])


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
def test_differences_are_named_by_kind(rows, problem) -> None:
    [found] = check(rows, READINGS).problems
    assert found.startswith(problem)


def test_silence_filled_by_a_late_reading_is_counted_as_late() -> None:
    readings = [*READINGS, reading("b", 10, sent_at=25)]
    assert check([*OF_A, row("b", 9, 24), row("b", 9, 24, 10)], readings) == SilenceCheck(2, 1, [], [])


def test_silence_may_be_noticed_once_by_each_pipeline() -> None:
    rows = [*OF_A, row("a", 5, 80, 30)]
    assert check(rows, READINGS, pipelines=2).problems == []


def test_malformed_messages_do_not_end_a_silence() -> None:
    bad = [ManifestEntry("s", b"bad", at(8)), reading("a", 12, value=None)]
    assert check(OF_A, [*READINGS, *bad]) == SilenceCheck(1, 0, [], [])
