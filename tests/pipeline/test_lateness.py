"""Late readings: what each mode makes of them, for fixed windows and for sessions."""

import json

import pytest

from tests.pipeline.conftest import Stream, message


def clock(timestamp: str) -> str:
    assert timestamp.startswith("2024-11-22T13:")
    assert timestamp.endswith(".000000Z")
    return timestamp[14:19]


def temps(rows: list[dict]) -> list[tuple]:
    return sorted((clock(row["Timestamp"]), row["Temp"]) for row in rows)


def revisions(rows: list[dict]) -> list[tuple]:
    assert all(row["WrittenAt"] > row["Timestamp"] for row in rows)
    return sorted((clock(row["Timestamp"]), row["Revision"], row["Temp"]) for row in rows)


def late(letters: list[dict]) -> list[tuple]:
    """Return (error, the interval's Timestamp, sum and count of Temp) of each letter."""
    assert {letter["stage"] for letter in letters} <= {"late"}
    found = []
    for letter in letters:
        payload = json.loads(letter["payload"])
        assert payload["Timestamp"] == letter["event_time"]
        temp = payload["readings"]["Temp"]
        found.append((letter["error"], clock(payload["Timestamp"]), temp["sum"], temp["count"]))
    return sorted(found)


@pytest.mark.usefixtures("age")
class TestFixedDeadLetter:
    @pytest.mark.bundles_as_sent
    def test_the_row_is_final_and_each_late_bundle_a_letter(self, run_graph):
        stream = Stream().add(message(1, Temp=1)).watermark(20)
        stream.add(message(2, Temp=10), message(3, Temp=30)).add(message(4, Temp=5))
        rows, letters = run_graph(stream)
        assert temps(rows) == [("00:00", 1.0)]
        assert late(letters) == [("Late", "00:00", 5.0, 1), ("Late", "00:00", 40.0, 2)]

    def test_an_interval_still_open_takes_what_is_older_than_the_grace(self, run_graph):
        stream = Stream().add(message(14, Temp=1)).watermark(19).add(message(0, Temp=3))
        assert temps(run_graph(stream)[0]) == [("00:00", 2.0)]


class TestFixedRevise:
    FLAGS = ("--on_late=revise",)

    @pytest.mark.bundles_as_sent
    def test_each_late_bundle_writes_the_whole_corrected_row_again(self, run_graph):
        stream = Stream().add(message(1, Temp=1)).watermark(20).add(message(2, Temp=3)).add(message(3, Temp=8, AtmP=7))
        rows, letters = run_graph(stream, *self.FLAGS)
        assert revisions(rows) == [("00:00", 0, 1.0), ("00:00", 1, 2.0), ("00:00", 2, 4.0)]
        assert max(rows, key=lambda row: row["Revision"])["AtmP"] == 7.0
        assert letters == []


class TestExpired:
    """allowed_lateness=30s, interval=15s, grace=5s: the first interval expires when the watermark passes 00:50."""

    @pytest.mark.bundles_as_sent
    @pytest.mark.parametrize("mode", ["dead_letter", "revise"])
    def test_readings_beyond_the_allowed_lateness_are_dead_lettered_not_dropped(self, run_graph, mode):
        stream = Stream().add(message(1, Temp=1)).watermark(51).add(message(2, Temp=10), message(3, Temp=30))
        stream.add(message(4, Temp=5))
        rows, letters = run_graph(stream, "--allowed_lateness=30s", f"--on_late={mode}")
        assert temps(rows) == [("00:00", 1.0)]
        assert late(letters) == [("Expired", "00:00", 5.0, 1), ("Expired", "00:00", 40.0, 2)]

    def test_readings_just_within_it_are_late(self, run_graph):
        stream = Stream().add(message(1, Temp=1)).watermark(49).add(message(2, Temp=10))
        assert late(run_graph(stream, "--allowed_lateness=30s")[1]) == [("Late", "00:00", 10.0, 1)]

    def test_without_any_allowed_lateness_nothing_is_dropped_either(self, run_graph):
        stream = Stream().add(message(1, Temp=1)).watermark(19).add(message(2, Temp=3)).watermark(21)
        rows, letters = run_graph(stream.add(message(3, Temp=7)), "--allowed_lateness=0s")
        assert temps(rows) == [("00:00", 2.0)]
        assert late(letters) == [("Expired", "00:00", 7.0, 1)]


SESSIONS = ("--window=session", "--session_gap=10s", "--grace_period=5s")


class TestSessionsDeadLetter:
    def test_what_would_change_a_written_row_is_late(self, run_graph):
        # The row of 00:00 and 00:04 ends at 00:14 and is written at 00:19.
        stream = Stream().add(message(0, Temp=1), message(4, Temp=3)).watermark(19).add(message(6, Temp=50))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:14", 2.0)]
        assert late(letters) == [("Late", "00:16", 50.0, 1)]

    def test_a_session_that_follows_a_late_reading_is_not_spoilt_by_it(self, run_graph):
        stream = Stream().add(message(0, Temp=1)).watermark(16).add(message(9, Temp=50)).add(message(14, Temp=7))
        stream.add(message(20, Temp=9))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:10", 1.0), ("00:30", 8.0)]
        assert late(letters) == [("Late", "00:19", 50.0, 1)]

    def test_a_late_reading_between_two_written_sessions_changes_neither(self, run_graph):
        stream = Stream().add(message(0, Temp=1), message(16, Temp=3)).watermark(40).add(message(8, Temp=50))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:10", 1.0), ("00:26", 3.0)]
        assert late(letters) == [("Late", "00:18", 50.0, 1)]

    def test_an_open_session_takes_what_is_older_than_the_grace(self, run_graph):
        stream = Stream().add(message(20, Temp=1)).watermark(30).add(message(12, Temp=3))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:30", 2.0)]
        assert letters == []

    def test_devices_are_late_on_their_own(self, run_graph):
        stream = Stream().add(message(0, Temp=1, Device="a")).watermark(20).add(message(3, Temp=3, Device="b"))
        stream.add(message(4, Temp=5, Device="a"))
        rows, letters = run_graph(stream, *SESSIONS, "--group_by_device=true")
        assert [(row["Device"], clock(row["Timestamp"]), row["Temp"]) for row in rows] == [
            ("a", "00:10", 1.0),
            ("b", "00:13", 3.0),
        ]
        assert [(letter["device"], letter["error"]) for letter in letters] == [("a", "Late")]


class TestSessionsRevise:
    FLAGS = (*SESSIONS, "--on_late=revise", "--allowed_lateness=60s")

    def test_a_late_reading_writes_the_whole_session_again(self, run_graph):
        stream = Stream().add(message(0, Temp=1), message(4, Temp=3)).watermark(19).add(message(2, Temp=8))
        rows, letters = run_graph(stream, *self.FLAGS)
        assert revisions(rows) == [("00:14", 0, 2.0), ("00:14", 1, 4.0)]
        assert letters == []

    def test_a_late_reading_that_joins_two_written_sessions_retracts_the_one_that_is_gone(self, run_graph):
        stream = Stream().add(message(0, Temp=1), message(16, Temp=3)).watermark(40).add(message(8, Temp=5))
        rows, letters = run_graph(stream, *self.FLAGS)
        assert revisions([row for row in rows if row["Temp"]]) == [
            ("00:10", 0, 1.0),
            ("00:26", 0, 3.0),
            ("00:26", 1, 3.0),
        ]
        (retraction,) = [row for row in rows if row["Temp"] is None]
        assert (clock(retraction["Timestamp"]), retraction["Revision"]) == ("00:10", 1)
        assert letters == []

    def test_readings_beyond_the_allowed_lateness_are_dead_lettered(self, run_graph):
        # The session ends at 00:10, is written at 00:15, and can be revised until 01:15.
        stream = Stream().add(message(0, Temp=1)).watermark(76).add(message(2, Temp=5))
        rows, letters = run_graph(stream, *self.FLAGS)
        assert revisions(rows) == [("00:10", 0, 1.0)]
        assert late(letters) == [("Expired", "00:12", 5.0, 1)]
