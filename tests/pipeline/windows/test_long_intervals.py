"""Long intervals, put together from panes: interval=2h, so panes of 15 minutes, grace_period=5s.

NOON is 13:00, in the middle of the interval from 12:00 to 14:00. Its row is due 3,605 seconds after NOON.
"""

import json

import apache_beam as beam
import pytest

from pipeline.aggregate.fold import FoldReadings
from pipeline.aggregate.shards import SHARDS
from pipeline.windows.fixed import EmitFixedIntervals
from pipeline.windows.hopping import pane_length
from tests.pipeline.conftest import Stream, captured, message, parse

LONG = ("--interval=2h", "--grace_period=5s")
HOPPING = ("--window=hopping", "--interval=4h", "--hop=2h", "--grace_period=5s")


def temps(rows: list[dict]) -> list[tuple]:
    return sorted((row["Timestamp"][11:16], row.get("Revision", 0), row["Temp"]) for row in rows)


def late(letters: list[dict]) -> list[tuple]:
    """Return (error, the interval's Timestamp, sum and count of Temp) of each dead letter."""
    found = []
    for letter in letters:
        payload = json.loads(letter["payload"])
        temp = payload["readings"]["Temp"]
        found.append((letter["error"], payload["Timestamp"][11:16], temp["sum"], temp["count"]))
    return sorted(found)


@pytest.mark.parametrize(
    ("hop", "pane"),
    [
        (1, 1),
        (899, 899),
        (900, 900),
        (901, 901),  # 17 * 53, both too short
        (1000, 500),
        (1035, 345),  # 3 * 345
        (1802, 106),  # 2 * 17 * 53
        (7200, 900),
        (60 * 907, 60),  # 907 is prime
        (59 * 907, 59 * 907),
        (86_400, 900),
    ],
)
def test_pane_is_the_longest_of_1_to_15_minutes_that_divides_the_hop(hop, pane):
    assert pane_length(hop) == pane


class TestRows:
    def test_hold_the_readings_of_all_panes(self, run_graph):
        # The first and the last moment of the interval, both sides of the edge of two panes, and the next interval.
        stream = Stream().add(message(-3600, Temp=1), message(899.999, Temp=2)).watermark(900)
        stream.add(message(900, Temp=3)).watermark(3500).add(message(3599.999, Temp=10), message(3600, Temp=50))
        rows, letters = run_graph(stream, *LONG)
        assert temps(rows) == [("12:00", 0, 4.0), ("14:00", 0, 50.0)]
        assert letters == []

    @pytest.mark.usefixtures("age")
    def test_hold_what_came_late_for_its_pane(self, run_graph):
        # The pane of 13:00 is due at 13:15:05, and the row 3,605 seconds after NOON.
        stream = Stream().add(message(10, Temp=1)).watermark(906).add(message(20, Temp=3)).watermark(3604.9)
        rows, letters = run_graph(stream.add(message(30, Temp=8)), *LONG)
        assert temps(rows) == [("12:00", 0, 4.0)]
        assert letters == []

    def test_hold_the_last_pane_until_both_are_due(self, run_graph):
        stream = Stream().add(message(3590, Temp=1)).watermark(3604.9).add(message(3595, Temp=3))
        assert temps(run_graph(stream, *LONG)[0]) == [("12:00", 0, 2.0)]

    def test_are_each_devices_own_when_grouped(self, run_graph):
        stream = Stream().add(message(10, Temp=1, Device="a"), message(20, Temp=5, Device="b")).watermark(2000)
        stream.add(message(15, Temp=3, Device="a"), message(1500, Temp=7, Device="b"))
        rows, _ = run_graph(stream, *LONG, "--group_by_device=true")
        assert [(row["Timestamp"][11:16], row["Device"], row["Temp"]) for row in rows] == [
            ("12:00", "a", 2.0),
            ("12:00", "b", 6.0),
        ]

    @pytest.mark.usefixtures("age")
    def test_of_hopping_windows_with_a_long_hop_hold_the_panes_of_two_hops(self, run_graph):
        # Intervals from 10:00, 12:00 and 14:00; the first of them is due when that of 12:00 would be.
        stream = Stream().add(message(10, Temp=1)).watermark(906).add(message(20, Temp=3)).watermark(3605)
        rows, letters = run_graph(stream.add(message(30, Temp=8), message(3600, Temp=8)), *HOPPING)
        assert temps(rows) == [("10:00", 0, 2.0), ("12:00", 0, 5.0), ("14:00", 0, 8.0)]
        assert late(letters) == [("Late", "10:00", 8.0, 1)]


class TestLate:
    STREAM = (message(10, Temp=1), message(1000, Temp=3))

    @pytest.mark.usefixtures("age")
    def test_for_the_row_is_a_dead_letter(self, run_graph):
        stream = Stream().add(*self.STREAM).watermark(3605).add(message(20, Temp=8))
        rows, letters = run_graph(stream, *LONG)
        assert temps(rows) == [("12:00", 0, 2.0)]
        assert late(letters) == [("Late", "12:00", 8.0, 1)]

    @pytest.mark.usefixtures("age")
    def test_revises_the_row(self, run_graph):
        stream = Stream().add(*self.STREAM).watermark(3605).add(message(20, Temp=8))
        rows, letters = run_graph(stream, *LONG, "--on_late=revise")
        assert temps(rows) == [("12:00", 0, 2.0), ("12:00", 1, 4.0)]
        assert letters == []

    def test_for_its_pane_alone_is_in_the_first_revision(self, run_graph):
        stream = Stream().add(*self.STREAM).watermark(2000).add(message(20, Temp=8))
        rows, letters = run_graph(stream, *LONG, "--on_late=revise")
        assert temps(rows) == [("12:00", 0, 4.0)]
        assert letters == []


@pytest.mark.parametrize("mode", ["dead_letter", "revise"])
def test_reading_expires_with_its_interval_and_not_with_its_pane(run_graph, mode):
    # With allowed_lateness=1m the pane of 13:00 expires at 13:16:05, and the interval at 14:01:05.
    stream = Stream().add(message(1000, Temp=1)).watermark(1000).add(message(10, Temp=3)).watermark(3605 + 60)
    rows, letters = run_graph(stream.add(message(20, Temp=8)), *LONG, "--allowed_lateness=1m", f"--on_late={mode}")
    assert temps(rows) == [("12:00", 0, 2.0)]
    assert late(letters) == [("Expired", "12:00", 8.0, 1)]


@pytest.mark.usefixtures("age")
def test_pane_adds_a_record_for_each_shard_however_many_bundles_there_were():
    devices = [f"device-{number}" for number in range(200)]
    stream = Stream()
    for bundle in range(10):
        stream.add(*(message(bundle, Temp=1, Device=device) for device in devices))
    job, beam_options = parse(*LONG, "--group_by_device=true")
    with captured() as (panes, to_panes):
        with beam.Pipeline(options=beam_options) as pipeline:
            folded = pipeline | stream.end() | FoldReadings(job.mapping, job.max_future_skew, job.intervals)
            _ = (folded.sums, folded.maybe_expired) | EmitFixedIntervals(job.intervals.panes) | to_panes
        assert len(panes) == SHARDS
        counts = {device: sums["Temp"][1] for pane in panes for device, sums in pane.sums_of.items()}
        assert counts == dict.fromkeys(devices, 10)
