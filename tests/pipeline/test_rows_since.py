"""`rows_since`: intervals that begin before it have neither rows nor dead letters; the others are unchanged."""

import pytest

from tests.pipeline.conftest import Stream, message
from tests.pipeline.test_lateness import SESSIONS, late, revisions, temps

SINCE = "--rows_since=2024-11-22T13:00:30Z"


class TestFixed:
    def test_leaves_out_intervals_that_begin_before_it(self, run_graph):
        stream = Stream().add(*(message(second, Temp=second) for second in (14, 15, 29, 30, 44, 45)))
        rows, dead_letters = run_graph(stream, SINCE)
        assert temps(rows) == [("00:30", 37.0), ("00:45", 45.0)]
        assert dead_letters == []

    def test_leaves_out_late_expired_and_overflown_sums(self, run_graph):
        stream = Stream().add(message(15, Temp=1e308), message(16, Temp=1e308), message(30, Temp=1)).watermark(51)
        stream.add(message(16, Temp=2)).add(message(31, Temp=3)).watermark(200).add(message(17, Temp=4))
        rows, dead_letters = run_graph(stream.add(message(32, Temp=5)), SINCE, "--allowed_lateness=60s")
        assert temps(rows) == [("00:30", 1.0)]
        assert late(dead_letters) == [("Expired", "00:30", 5.0, 1), ("Late", "00:30", 3.0, 1)]

    def test_leaves_out_revisions(self, run_graph):
        stream = Stream().add(message(15, Temp=1), message(30, Temp=1)).watermark(51)
        rows, dead_letters = run_graph(
            stream.add(message(16, Temp=3)).add(message(31, Temp=3)), SINCE, "--on_late=revise"
        )
        assert revisions(rows) == [("00:30", 0, 1.0), ("00:30", 1, 2.0)]
        assert dead_letters == []

    def test_keeps_dead_letters_of_messages_without_interval(self, run_graph):
        assert [found["error"] for found in run_graph(Stream().add(b"bad"), SINCE)[1]] == ["NotJson"]


class TestSessions:
    def test_leaves_out_session_that_begins_before_it_and_ends_after_it(self, run_graph):
        stream = Stream().add(*(message(second, Temp=second) for second in (25, 29, 35, 60, 64)))
        rows, dead_letters = run_graph(stream, SINCE, *SESSIONS)
        assert temps(rows) == [("01:14", 62.0)]
        assert dead_letters == []

    def test_leaves_out_session_that_the_replay_cut(self, run_graph):
        # The session is 00:05 to 00:33; the replay begins at 00:20, a gap before rows_since.
        stream = Stream().add(*(message(second, Temp=second) for second in (24, 33, 50)))
        assert temps(run_graph(stream, SINCE, *SESSIONS)[0]) == [("01:00", 50.0)]

    def test_leaves_out_late_readings_of_session_that_begins_before_it(self, run_graph):
        stream = Stream().add(message(20, Temp=1)).watermark(50).add(message(24, Temp=2))
        assert run_graph(stream, SINCE, *SESSIONS) == ([], [])

    @pytest.mark.parametrize("first", [25, 31])
    def test_retracts_row_only_when_its_session_has_rows(self, run_graph, first):
        stream = Stream().add(message(first, Temp=1), message(first + 16, Temp=3)).watermark(first + 40)
        stream.add(message(first + 8, Temp=5))
        rows, _ = run_graph(stream, SINCE, *SESSIONS, "--on_late=revise", "--allowed_lateness=60s")
        if first == 31:
            assert [(row["Revision"], row["Temp"]) for row in rows] == [(0, 1.0), (1, None), (0, 3.0), (1, 3.0)]
        else:  # the second session, 00:41, was written before it was joined to the one that begins at 00:25
            assert [(row["Revision"], row["Temp"]) for row in rows] == [(0, 3.0)]
