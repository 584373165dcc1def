"""Hopping windows: interval=15s, hop=5s, grace_period=5s, so an interval's row is due 20 s after its start."""

import json

import pytest

from tests.pipeline.conftest import Stream, message
from tests.pipeline.test_lateness import late, revisions, temps

HOPPING = ("--window=hopping", "--interval=15s", "--hop=5s", "--grace_period=5s")
STREAM = (message(1, Temp=1), message(6, Temp=2), message(14, Temp=6), message(40, Temp=9))


def on_the_clock(rows: list[dict]) -> list[tuple]:
    return sorted((row["Timestamp"][11:19], row["Temp"]) for row in rows)


class TestRows:
    def test_row_is_made_every_hop_over_the_last_interval(self, run_graph):
        rows, letters = run_graph(Stream().add(*STREAM), *HOPPING)
        assert on_the_clock(rows) == [
            ("12:59:50", 1.0),
            ("12:59:55", 1.5),
            ("13:00:00", 3.0),
            ("13:00:05", 4.0),
            ("13:00:10", 6.0),
            ("13:00:30", 9.0),
            ("13:00:35", 9.0),
            ("13:00:40", 9.0),
        ]
        assert letters == []

    def test_with_a_hop_of_an_interval_are_those_of_fixed_windows(self, run_graph):
        def run(*flags: str) -> tuple:
            rows, letters = run_graph(Stream().add(*STREAM).watermark(21).add(message(2, Temp=7)), *flags)
            return rows, [letter["payload"] for letter in letters]

        rows, [_] = found = run("--window=hopping", "--interval=15s", "--hop=15s")
        assert on_the_clock(rows) == [("13:00:00", 3.0), ("13:00:30", 9.0)]
        assert found == run("--window=fixed", "--interval=15s")

    def test_are_each_devices_own_when_grouped(self, run_graph):
        stream = Stream().add(message(11, Temp=1, Device="a"), message(12, Temp=3, Device="b"))
        rows, _ = run_graph(stream, *HOPPING, "--group_by_device=true")
        assert [(row["Timestamp"][14:19], row["Device"], row["Temp"]) for row in rows] == [
            ("00:00", "a", 1.0),
            ("00:00", "b", 3.0),
            ("00:05", "a", 1.0),
            ("00:05", "b", 3.0),
            ("00:10", "a", 1.0),
            ("00:10", "b", 3.0),
        ]

    @pytest.mark.parametrize(("grace", "due"), [("0s", 25), ("5s", 30), ("12s", 37)])
    def test_hold_whatever_arrives_within_the_grace(self, run_graph, grace, due):
        flags = (*HOPPING[:3], f"--grace_period={grace}")
        for watermark, expected in ((due - 0.1, [2.0, 2.0, 2.0]), (due, [1.0, 2.0, 2.0])):
            # Of 12 and 13: intervals from 00:00, 00:05 and 00:10, of which the first ends at 00:15.
            stream = Stream().add(message(12, Temp=1)).watermark(watermark - 10).add(message(13, Temp=3))
            assert [temp for _, temp in temps(run_graph(stream, *flags)[0])] == expected


@pytest.mark.usefixtures("age")
class TestLate:
    def test_for_one_interval_is_on_time_for_the_next(self, run_graph):
        # At 00:22 the row of 00:00 is written; those of 00:05 and 00:10 are not.
        stream = Stream().add(message(11, Temp=1)).watermark(22).add(message(12, Temp=3))
        rows, letters = run_graph(stream, *HOPPING)
        assert temps(rows) == [("00:00", 1.0), ("00:05", 2.0), ("00:10", 2.0)]
        assert late(letters) == [("Late", "00:00", 3.0, 1)]

    def test_for_all_is_in_a_letter_of_each(self, run_graph):
        stream = Stream().watermark(60).add(message(11, Temp=1), message(12, Temp=3))
        rows, letters = run_graph(stream, *HOPPING)
        assert rows == []
        assert late(letters) == [("Late", "00:00", 4.0, 2), ("Late", "00:05", 4.0, 2), ("Late", "00:10", 4.0, 2)]

    def test_revises_the_rows_that_are_written(self, run_graph):
        stream = Stream().add(message(11, Temp=1)).watermark(22).add(message(12, Temp=3))
        rows, letters = run_graph(stream, *HOPPING, "--on_late=revise")
        assert revisions(rows) == [("00:00", 0, 1.0), ("00:00", 1, 2.0), ("00:05", 0, 2.0), ("00:10", 0, 2.0)]
        assert letters == []


@pytest.mark.usefixtures("age")
def test_first_and_last_of_each_device_are_revised(run_graph):
    # The first reading passes the coder of shards with its pane; what is late for the pane may not.
    stream = Stream().add(message(11, Temp=1, Device="a")).watermark(22).add(message(12, Temp=3, Device="a"))
    flags = "--on_late=revise", "--group_by_device=true", "--sensors=Temp", "--statistics=first,last"
    rows, letters = run_graph(stream, *HOPPING, *flags)
    found = [(row["Timestamp"][14:19], row["Revision"], row["Temp_first"], row["Temp_last"]) for row in rows]
    assert sorted(found) == [
        ("00:00", 0, 1.0, 1.0),
        ("00:00", 1, 1.0, 3.0),
        ("00:05", 0, 1.0, 3.0),
        ("00:10", 0, 1.0, 3.0),
    ]
    assert letters == []


class TestExpired:
    @pytest.mark.parametrize("mode", ["dead_letter", "revise"])
    def test_for_one_interval_may_be_late_or_on_time_for_others(self, run_graph, mode):
        # With allowed_lateness=2s an interval expires 22 s after its start. At 00:26 that of 00:00 has, that of 00:05
        # is written, and that of 00:10 is open.
        flags = (*HOPPING, "--allowed_lateness=2s", f"--on_late={mode}")
        stream = Stream().add(message(11, Temp=1)).watermark(26).add(message(12, Temp=3))
        rows, letters = run_graph(stream, *flags)
        if mode == "revise":
            assert revisions(rows) == [("00:00", 0, 1.0), ("00:05", 0, 1.0), ("00:05", 1, 2.0), ("00:10", 0, 2.0)]
            assert late(letters) == [("Expired", "00:00", 3.0, 1)]
        else:
            assert temps(rows) == [("00:00", 1.0), ("00:05", 1.0), ("00:10", 2.0)]
            assert late(letters) == [("Expired", "00:00", 3.0, 1), ("Late", "00:05", 3.0, 1)]

    def test_letters_hold_the_statistics_that_rows_do(self, run_graph):
        stream = Stream().watermark(60).add(message(11, Temp=1), message(12, Temp=3))
        _, letters = run_graph(stream, *HOPPING, "--allowed_lateness=0s", "--statistics=max,first", "--hop=15s")
        assert [json.loads(letter["payload"])["readings"] for letter in letters] == [
            {"Temp": {"max": 3.0, "first": 1.0}}
        ]
