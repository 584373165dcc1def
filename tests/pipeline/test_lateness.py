"""Late readings: what each mode makes of them, for fixed windows and for sessions."""

import json
import time

import pytest

from tests.pipeline.conftest import NOON, Stream, message


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


def accounted(rows: list[dict], letters: list[dict]) -> tuple[float, int]:
    """Return sum and count of Temp in the newest row of the only interval, and in all of its dead letters."""
    assert len({row["Timestamp"] for row in rows}) == 1
    latest = max(rows, key=lambda row: row.get("Revision", 0))
    places = [(latest["Temp_sum"], latest["Temp_count"]), *(found[2:] for found in late(letters))]
    return sum(total for total, _ in places), sum(count for _, count in places)


@pytest.mark.usefixtures("age")
class TestFixedDeadLetter:
    @pytest.mark.bundles_as_sent
    def test_row_is_final_and_late_bundles_are_dead_letters(self, run_graph):
        stream = Stream().add(message(1, Temp=1)).watermark(20)
        stream.add(message(2, Temp=10), message(3, Temp=30)).add(message(4, Temp=5))
        rows, letters = run_graph(stream)
        assert temps(rows) == [("00:00", 1.0)]
        assert late(letters) == [("Late", "00:00", 5.0, 1), ("Late", "00:00", 40.0, 2)]

    def test_open_interval_accepts_readings_older_than_the_grace(self, run_graph):
        stream = Stream().add(message(14, Temp=1)).watermark(19).add(message(0, Temp=3))
        assert temps(run_graph(stream)[0]) == [("00:00", 2.0)]


class TestOnEveryEngine:
    """An engine may join bundles, and be kinder to what they hold; each reading is in one place all the same."""

    @pytest.mark.parametrize("mode", ["dead_letter", "revise"])
    @pytest.mark.parametrize("watermark", [20, 51], ids=["late", "expired"])
    def test_readings_of_late_bundles_are_in_the_row_or_in_one_dead_letter(self, run_graph, age, watermark, mode):
        stream = Stream().add(message(1, Temp=1)).watermark(watermark)
        stream.add(message(2, Temp=2), message(3, Temp=4)).add(message(4, Temp=8))
        rows, letters = run_graph(stream, "--allowed_lateness=30s", f"--on_late={mode}", "--statistics=sum,count")
        assert accounted(rows, letters) == (15.0, 4)
        assert {letter["error"] for letter in letters} <= {"Expired", *(["Late"] if mode == "dead_letter" else [])}


class TestFixedRevise:
    FLAGS = ("--on_late=revise",)

    @pytest.mark.bundles_as_sent
    def test_late_bundles_write_the_corrected_row_again(self, run_graph):
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


class TestNothingVanishes:
    """Every reading is in a row or a dead letter, whatever its stamp, and wherever the watermark is."""

    WINDOWS = pytest.mark.parametrize(
        "flags",
        [("--window=fixed",), ("--window=hopping", "--hop=5s"), ("--window=hopping", "--hop=5s", "--on_late=revise")],
        ids=["fixed", "hopping", "hopping-revise"],
    )

    def accounted(self, found: tuple[list[dict], list[dict]], overlaps: int) -> float:
        """Return how many readings are in rows and dead letters of all of their intervals."""
        rows, letters = found
        # With revise a row is written again, and the last is the one that counts.
        latest = {row["Timestamp"]: row["Temp_count"] for row in sorted(rows, key=lambda row: row.get("Revision", 0))}
        lost = [json.loads(letter["payload"])["readings"]["Temp"]["count"] for letter in letters]
        return (sum(latest.values()) + sum(lost)) / overlaps

    @WINDOWS
    @pytest.mark.parametrize("by_device", ["true", "false"])
    def test_readings_of_the_year_2000_are_dead_lettered(self, run_graph, flags, by_device):
        year_2000 = 946_684_800 - NOON
        stream = Stream().add(message(1, Temp=1), message(year_2000, Temp=2), message(year_2000 + 7, Temp=3))
        found = run_graph(stream, *flags, f"--group_by_device={by_device}", "--statistics=count")
        assert self.accounted(found, 1 if flags[0] == "--window=fixed" else 3) == 3
        assert {letter["error"] for letter in found[1]} == {"Expired"}
        assert {letter["event_time"][:10] for letter in found[1]} <= {"1999-12-31", "2000-01-01"}

    def test_readings_of_the_year_2000_make_sessions(self, run_graph):
        rows, letters = run_graph(Stream().add(message(1, Temp=1), message(946_684_800 - NOON, Temp=2)), *SESSIONS)
        assert [row["Timestamp"][:19] for row in rows] == ["2000-01-01T00:00:10", "2024-11-22T13:00:11"]
        assert letters == []

    @WINDOWS
    @pytest.mark.parametrize("lateness", ["0s", "2m"])
    @pytest.mark.parametrize("ahead", [300, 4000])
    def test_readings_are_accounted_for_when_the_watermark_and_the_clock_differ(
        self, run_graph, flags, lateness, ahead
    ):
        now = int(time.time()) - NOON
        stream = Stream().watermark(now + ahead)
        stream.add(*(message(now - age, Temp=1) for age in (-590, -60, 0, 20, 60, 119, 200, 4000)))
        found = run_graph(stream, *flags, f"--allowed_lateness={lateness}", "--statistics=count")
        assert self.accounted(found, 1 if flags[0] == "--window=fixed" else 3) == 8


SESSIONS = ("--window=session", "--session_gap=10s", "--grace_period=5s")


class TestSessionsDeadLetter:
    def test_reading_that_would_change_a_written_row_is_late(self, run_graph):
        # The row of 00:00 and 00:04 ends at 00:14 and is written at 00:19.
        stream = Stream().add(message(0, Temp=1), message(4, Temp=3)).watermark(19).add(message(6, Temp=50))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:14", 2.0)]
        assert late(letters) == [("Late", "00:16", 50.0, 1)]

    def test_session_is_not_changed_by_a_late_reading_before_it(self, run_graph):
        stream = Stream().add(message(0, Temp=1)).watermark(16).add(message(9, Temp=50)).add(message(14, Temp=7))
        stream.add(message(20, Temp=9))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:10", 1.0), ("00:30", 8.0)]
        assert late(letters) == [("Late", "00:19", 50.0, 1)]

    def test_late_reading_between_two_written_sessions_changes_neither(self, run_graph):
        stream = Stream().add(message(0, Temp=1), message(16, Temp=3)).watermark(40).add(message(8, Temp=50))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:10", 1.0), ("00:26", 3.0)]
        assert late(letters) == [("Late", "00:18", 50.0, 1)]

    def test_session_is_not_written_early_when_another_of_its_device_is(self, run_graph):
        # The first ends at 00:10 and is written at 00:15; the second ended at 00:20 then, and is open until 00:25.
        stream = Stream().add(message(0, Temp=1), message(10, Temp=3)).watermark(15).add(message(12, Temp=5))
        rows, letters = run_graph(stream, *SESSIONS)
        assert temps(rows) == [("00:10", 1.0), ("00:22", 4.0)]
        assert letters == []

    def test_open_session_accepts_readings_older_than_the_grace(self, run_graph):
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

    def test_late_reading_writes_the_session_again(self, run_graph):
        stream = Stream().add(message(0, Temp=1), message(4, Temp=3)).watermark(19).add(message(2, Temp=8))
        rows, letters = run_graph(stream, *self.FLAGS)
        assert revisions(rows) == [("00:14", 0, 2.0), ("00:14", 1, 4.0)]
        assert letters == []

    def test_late_reading_that_joins_two_written_sessions_retracts_the_one_that_is_gone(self, run_graph):
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
