"""`rows_since`: what intervals that begin before it leave behind, and what those after it do not notice."""

import pytest

from tests.pipeline.conftest import Stream, message
from tests.pipeline.test_lateness import SESSIONS, late, revisions, temps

SINCE = "--rows_since=2024-11-22T13:00:30Z"


class TestFixed:
    def test_an_interval_that_begins_before_it_has_no_row_and_one_that_begins_with_it_does(self, run_graph):
        stream = Stream().add(*(message(second, Temp=second) for second in (14, 15, 29, 30, 44, 45)))
        rows, letters = run_graph(stream, SINCE)
        assert temps(rows) == [("00:30", 37.0), ("00:45", 45.0)]
        assert letters == []

    def test_nor_late_expired_or_overflown_sums(self, run_graph):
        stream = Stream().add(message(15, Temp=1e308), message(16, Temp=1e308), message(30, Temp=1)).watermark(51)
        stream.add(message(16, Temp=2)).add(message(31, Temp=3)).watermark(200).add(message(17, Temp=4))
        rows, letters = run_graph(stream.add(message(32, Temp=5)), SINCE, "--allowed_lateness=60s")
        assert temps(rows) == [("00:30", 1.0)]
        assert late(letters) == [("Expired", "00:30", 5.0, 1), ("Late", "00:30", 3.0, 1)]

    def test_nor_revisions(self, run_graph):
        stream = Stream().add(message(15, Temp=1), message(30, Temp=1)).watermark(51)
        rows, letters = run_graph(stream.add(message(16, Temp=3)).add(message(31, Temp=3)), SINCE, "--on_late=revise")
        assert revisions(rows) == [("00:30", 0, 1.0), ("00:30", 1, 2.0)]
        assert letters == []

    def test_a_message_that_cannot_be_read_has_no_interval_and_is_dead_lettered(self, run_graph):
        assert [letter["error"] for letter in run_graph(Stream().add(b"bad"), SINCE)[1]] == ["NotJson"]


class TestSessions:
    def test_begin_with_their_first_reading_however_late_they_end(self, run_graph):
        stream = Stream().add(*(message(second, Temp=second) for second in (25, 29, 35, 60, 64)))
        rows, letters = run_graph(stream, SINCE, *SESSIONS)
        assert temps(rows) == [("01:14", 62.0)]
        assert letters == []

    def test_one_that_the_replay_cut_is_not_written_if_the_replay_began_a_gap_earlier(self, run_graph):
        # The session is 00:05 to 00:33; the replay begins at 00:20, a gap before rows_since.
        stream = Stream().add(*(message(second, Temp=second) for second in (24, 33, 50)))
        assert temps(run_graph(stream, SINCE, *SESSIONS)[0]) == [("01:00", 50.0)]

    def test_late_readings_of_such_a_session_are_not_dead_lettered(self, run_graph):
        stream = Stream().add(message(20, Temp=1)).watermark(50).add(message(24, Temp=2))
        assert run_graph(stream, SINCE, *SESSIONS) == ([], [])

    @pytest.mark.parametrize("first", [25, 31])
    def test_a_row_that_is_gone_is_retracted_only_if_its_session_has_rows(self, run_graph, first):
        stream = Stream().add(message(first, Temp=1), message(first + 16, Temp=3)).watermark(first + 40)
        stream.add(message(first + 8, Temp=5))
        rows, _ = run_graph(stream, SINCE, *SESSIONS, "--on_late=revise", "--allowed_lateness=60s")
        if first == 31:
            assert [(row["Revision"], row["Temp"]) for row in rows] == [(0, 1.0), (1, None), (0, 3.0), (1, 3.0)]
        else:  # the second session, 00:41, was written before it was joined to the one that begins at 00:25
            assert [(row["Revision"], row["Temp"]) for row in rows] == [(0, 3.0)]
