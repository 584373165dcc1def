"""Silences: when they are noticed and when they are over, by hand and against brute force. Times are seconds."""

import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.aggregate.activity import STREAM, BundleActivity, DeviceActivity
from pipeline.aggregate.runs import Run
from pipeline.aggregate.sums import SECOND
from pipeline.silences import REMEMBERED, NoticeSilences
from pipeline.timestamps import rfc3339
from tests.pipeline.conftest import NOON, StateCell, Stream, Timers, captured, message, parse, run_captured

AFTER, GRACE = 30, 5
START = datetime.fromtimestamp(NOON, UTC)


def seconds(stamp: str | None) -> float | None:
    """Seconds after NOON."""
    return None if stamp is None else (datetime.fromisoformat(stamp) - START).total_seconds()


def shown(row: dict[str, Any]) -> tuple:
    assert list(row) == ["Device", "SilentSince", "NoticedAt", "BackAt"]
    return row["Device"], *(seconds(row[name]) for name in ("SilentSince", "NoticedAt", "BackAt"))


class Watch:
    """Beam in small: bundles are folded, and a device's timer fires once the watermark has passed it.

    `rows` are (device, SilentSince, NoticedAt, BackAt). The clock shows the watermark unless `clock` is set.
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self.rows: list[tuple] = []
        self._watermark = 0.0
        self._notice: Any = NoticeSilences(AFTER, GRACE, lambda: NOON + self.clock)._notice
        self._cells: dict[str, tuple[StateCell, Timers]] = {}

    def observe(self, *readings: tuple[str, float], watching: str | None = None) -> "Watch":
        """Fold readings (device, seconds) as a bundle; those of other devices than `watching` are left out."""
        activity = DeviceActivity(AFTER * SECOND)
        for _ in activity.observe(iter([(micros(at), device, {}) for device, at in readings])):
            pass
        for earliest, (device, found) in activity.drain():
            assert earliest == found.runs[0].first
            if watching in (None, device):
                state, timers = self._cells.setdefault(device, (StateCell(), Timers()))
                self.rows += map(shown, self._notice.process((device, found), state, timers))
        self._fire()
        return self

    def watermark(self, at: float, clock: float | None = None) -> "Watch":
        self._watermark, self.clock = at, max(self.clock, at) if clock is None else clock
        self._fire()
        return self

    def drain(self) -> "Watch":
        return self.watermark(1e9, self.clock)

    @property
    def kept(self) -> dict[str, Any]:
        return {device: state.value for device, (state, _) in self._cells.items() if state.value is not None}

    def _fire(self) -> None:
        for device, (state, timers) in self._cells.items():
            for _, due in timers.fire(Timestamp(micros=micros(self._watermark))):
                self.rows += map(shown, self._notice.notice_due(device, due, state, timers))


def micros(at: float) -> int:
    return round((NOON + at) * SECOND)


def only(device: str | None, rows: list[tuple]) -> list[tuple]:
    return [row[1:] for row in rows if row[0] == device]


class TestOneDevice:
    def test_is_noticed_when_the_watermark_has_passed_the_grace_and_over_when_it_is_back(self):
        watch = Watch().observe(("a", 0), ("a", 10)).watermark(44.999)
        assert watch.rows == []
        watch.watermark(45)
        assert only("a", watch.rows) == [(10, 45, None)]
        watch.watermark(80).observe(("a", 80.25))
        assert only("a", watch.rows) == [(10, 45, None), (10, 45, 80.25)]

    def test_is_reported_once_however_long_it_lasts(self):
        watch = Watch().observe(("a", 0))
        for at in range(0, 86_400, 60):
            watch.watermark(at)
        assert only("a", watch.rows) == [(0, 60, None)]

    def test_device_that_sends_often_enough_is_never_silent(self):
        watch = Watch()
        for at in range(0, 3000, 29):
            watch.watermark(at).observe(("a", at))
        assert watch.rows == []

    def test_readings_exactly_that_far_apart_have_a_silence_between_them(self):
        watch = Watch().observe(("a", 0), ("a", 29.999)).observe(("a", 59.999), ("a", 60)).watermark(65)
        assert only("a", watch.rows) == [(29.999, 65, 59.999)]

    def test_two_silences_in_a_row(self):
        watch = (
            Watch().observe(("a", 0)).watermark(40).observe(("a", 41)).watermark(80).observe(("a", 81)).watermark(90)
        )
        assert only("a", watch.rows) == [(0, 40, None), (0, 40, 41), (41, 80, None), (41, 80, 81)]

    def test_device_that_flaps_has_a_silence_each_time(self):
        watch = Watch()
        for at in range(0, 400, 40):
            watch.watermark(at).observe(("a", at))
        assert only("a", watch.rows)[:4] == [(0, 40, None), (0, 40, 40), (40, 80, None), (40, 80, 80)]
        assert len(only("a", watch.rows)) == 18

    def test_silence_that_is_over_when_it_is_noticed_is_one_row(self):
        watch = Watch().observe(("a", 0)).observe(("a", 34), ("a", 100)).watermark(200)
        assert only("a", watch.rows) == [(0, 200, 34), (34, 200, 100), (100, 200, None)]

    def test_is_forgotten_a_month_after_it_was_noticed_and_then_new(self):
        watch = Watch().observe(("a", 0)).watermark(35)
        gone = REMEMBERED + 35
        assert watch.watermark(gone - 1).kept
        assert not watch.watermark(gone).kept
        watch.observe(("a", gone + 1))
        assert only("a", watch.rows) == [(0, 35, None)]

    def test_is_forgotten_though_its_last_reading_was_old_when_it_came(self):
        watch = Watch()
        watch.clock = 2.0 * REMEMBERED
        watch.observe(("a", 0)).watermark(2 * REMEMBERED + 35)
        assert only("a", watch.rows) == [(0, 2 * REMEMBERED + 35, None)]
        assert watch.watermark(3 * REMEMBERED + 34).kept
        assert not watch.watermark(3 * REMEMBERED + 35).kept

    def test_without_a_grace_gets_a_second_because_clocks_differ(self):
        assert NoticeSilences(AFTER, 0)._notice._grace == SECOND


class TestLateReadings:
    def test_older_than_the_last_change_nothing(self):
        watch = Watch().observe(("a", 100)).watermark(110).observe(("a", 20), ("a", 99))
        assert watch.watermark(134.9).rows == []
        watch.watermark(135).observe(("a", 50), ("a", 100))
        assert only("a", watch.rows) == [(100, 135, None)]

    def test_readings_that_fill_the_gap_in_time_prevent_a_silence(self):
        watch = Watch().observe(("a", 0), ("a", 50)).watermark(34).observe(("a", 25)).watermark(79)
        assert watch.rows == []

    def test_in_a_silence_already_noticed_end_it_and_another_may_follow(self):
        watch = Watch().observe(("a", 0)).watermark(60).observe(("a", 10))
        assert only("a", watch.rows) == [(0, 60, None), (0, 60, 10)]
        # By the clock something came at 60.
        assert only("a", watch.watermark(94).rows)[2:] == []
        assert only("a", watch.watermark(95).rows)[2:] == [(10, 95, None)]

    def test_in_a_silence_that_is_over_say_that_it_was_over_before(self):
        watch = Watch().observe(("a", 0)).watermark(60).observe(("a", 100)).watermark(101).observe(("a", 50))
        assert only("a", watch.rows) == [(0, 60, None), (0, 60, 100), (0, 60, 50), (50, 101, 100)]

    def test_in_a_silence_before_the_latest_change_nothing(self):
        watch = Watch().observe(("a", 0)).observe(("a", 100)).observe(("a", 200)).watermark(210)
        before = watch.rows.copy()
        assert watch.observe(("a", 50)).watermark(220).rows == before

    def test_of_both_sides_in_one_bundle_show_that_there_was_none(self):
        watch = Watch().observe(("a", 10)).watermark(60).observe(("a", 5), ("a", 12))
        assert only("a", watch.rows) == [(10, 60, None), (10, 60, 10)]
        watch.observe(("a", 15)).observe(("a", 20))
        assert len(only("a", watch.rows)) == 2  # written once, not with each bundle that follows


class TestTheStream:
    def test_is_silent_when_all_devices_are(self):
        watch = Watch().observe(("a", 0), ("b", 20), ("", 22)).watermark(60).observe(("b", 61)).watermark(70)
        assert only("a", watch.rows) == [(0, 60, None)]
        assert only("b", watch.rows) == [(20, 60, None), (20, 60, 61)]
        assert only(None, watch.rows) == [(22, 60, None), (22, 60, 61)]

    def test_readings_without_a_device_belong_to_nothing_else(self):
        assert Watch().observe(("", 0)).kept.keys() == {STREAM}


class TestTheClock:
    def test_stalled_watermark_is_no_silence(self):
        watch = Watch().observe(("a", 0)).watermark(34, clock=5000)
        assert watch.rows == []

    def test_backlog_read_at_once_shows_only_silences_that_were(self):
        # An hour of a day ago, read within a second: a has a hole in it.
        readings = [("a", at) for at in range(0, 3600, 10) if not 1000 < at < 2000]
        watch = Watch()
        watch.clock = 86_400
        for start in range(0, len(readings), 7):
            watch.observe(*readings[start : start + 7]).watermark(readings[start][1], clock=86_400)
        assert only("a", watch.rows) == [(1000, 86_400, 2000)]
        # The last reading was at 3590. Nothing is known until the watermark is where the clock was, and then some.
        assert len(only("a", watch.watermark(86_434).rows)) == 1
        assert only("a", watch.watermark(86_435).rows)[1:] == [(3590, 86_435, None)]

    def test_drain_reports_no_device_that_was_not_silent(self):
        watch = Watch().watermark(1000).observe(("a", 1000), ("b", 980)).watermark(1001).drain()
        assert watch.rows == []

    def test_drain_amid_a_backlog_reports_no_device_that_was_not_silent(self):
        watch = Watch().watermark(100, clock=86_400).observe(("a", 100), ("a", 200)).drain()
        assert only("a", watch.rows) == [(100, 86_400, 200)]

    def test_watermark_ahead_of_the_clock_reports_nothing_twice(self):
        watch = Watch().observe(("a", 0), ("a", 100)).watermark(200, clock=60).observe(("a", 210)).watermark(220)
        assert only("a", watch.rows) == [(0, 60, 100), (100, 60, 210)]

    @pytest.mark.parametrize("ahead", [0, 4, 20, 300, 3000])
    def test_watermark_ahead_of_the_clock_postpones_a_silence_until_the_clock_says_so_too(self, ahead):
        watch = Watch().watermark(ahead, clock=0).observe(("a", 0))
        for clock in range(30):
            watch.watermark(clock + ahead, clock)
        assert watch.rows == []
        for clock in range(30, 2 * ahead + 66):
            watch.watermark(clock + ahead, clock)
        assert [(since, back) for since, _, back in only("a", watch.rows)] == [(0, None)]

    def test_drain_needs_few_firings_for_a_device(self):
        watch = Watch().observe(("a", 0)).watermark(29.999)
        state, timers = watch._cells["a"]
        fired = 0
        for _, due in timers.fire():
            fired += 1
            watch._notice.notice_due("a", due, state, timers)
        assert fired < 16

    def test_drain_reports_what_was_silent_for_so_long_and_held_for_stragglers(self):
        watch = Watch().observe(("a", 0), ("b", 3)).watermark(31).drain()
        assert only("a", watch.rows) == [(0, 31, None)]
        assert only("b", watch.rows) == []


class TestUpdate:
    def test_state_and_timer_of_the_version_before_still_work(self):
        before = Watch().observe(("a", 0)).watermark(20)
        after = Watch().watermark(20)
        after._cells = before._cells
        assert only("a", after.watermark(36).rows) == [(0, 36, None)]


# Seconds on a grid of five, so that gaps of exactly thirty do occur; arrival within the grace or not at all late.
spans = st.lists(st.sampled_from([5, 10, 25, 30, 35, 60, 200]), min_size=1, max_size=25)


class TestAgainstBruteForce:
    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(
        of_device=st.fixed_dictionaries({"a": spans, "b": spans}),
        seed=st.integers(0, 2**32),
        lead=st.floats(0, 500),
    )
    def test_readings_on_time_in_any_order_and_bundling_give_the_gaps_between_them(self, of_device, seed, lead):
        rng = random.Random(seed)
        times = {device: [sum(steps[:n]) for n in range(len(steps) + 1)] for device, steps in of_device.items()}
        first = [(device, 0) for device in times]
        rest = [(device, at) for device, ats in times.items() for at in ats[1:]]
        # What arrives early does so by up to `lead`; what is late by less than the grace.
        rest.sort(key=lambda reading: reading[1] - rng.uniform(0, lead))
        watch = Watch().observe(*first)
        while rest:
            size = rng.randint(1, 6)
            watch.observe(*rest[:size])
            del rest[:size]
            if rest:
                oldest = min(at for _, at in rest)
                watch.watermark(max(watch.clock, min(oldest + rng.uniform(-20, GRACE - 0.001), oldest + 4)))
        watch.watermark(1e5)
        everything = sorted(at for ats in times.values() for at in ats)
        for device, ats in [*times.items(), (None, everything)]:
            gaps = [(one, other) for one, other in pairwise(ats) if other - one >= AFTER]
            rows = only(device, watch.rows)
            # In the order they were emitted, so that an earlier BackAt replaces a later one.
            assert {since: back for since, _, back in rows if back is not None} == dict(gaps)
            assert [since for since, _, back in rows if back is None][-1] == ats[-1]
            assert {since for since, _, _ in rows} == {since for since, _ in gaps} | {ats[-1]}
            assert len(rows) == len(set(rows))
            assert all(noticed >= since + AFTER + GRACE for since, noticed, _ in rows)

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(
        bundles=st.lists(
            st.tuples(st.lists(st.integers(0, 80).map(lambda n: n * 5.0), max_size=5), st.integers(0, 50)), max_size=30
        )
    )
    def test_whatever_arrives_whenever_each_silence_begins_and_ends_once_and_is_true_when_noticed(self, bundles):
        watch = Watch()
        known: set[float] = set()
        latest: float | None = None
        seen: dict[float, float | None] = {}
        at = 0.0
        for ats, step in bundles:
            before = len(watch.rows)
            watch.observe(*[("a", one) for one in ats], watching="a")
            known.update(ats)
            at += step
            watch.watermark(at)
            for _, since, noticed, back in watch.rows[before:]:
                assert since in known
                if since == latest:
                    assert back is not None
                    assert back == since or back in known
                    assert seen[since] is None or back < seen[since]
                    seen[since] = back
                    continue
                assert since not in seen
                assert latest is None or seen[latest] is not None
                latest = since
                assert noticed in (at - step, at)
                assert noticed >= since + AFTER + GRACE
                seen[since] = back
                if back is None:
                    assert since == max(known)
                else:
                    assert back - since >= AFTER
        watch.watermark(1e5)
        if known:
            _, since, _, back = watch.rows[-1]
            assert (since, back) == (max(known), None)


_CLOCK = [0.0]


def clock() -> float:
    return _CLOCK[0]


def set_clock(element: tuple[float, Any]) -> list:
    _CLOCK[0] = NOON + element[0]
    return [element[1]] if element[1] else []


@pytest.mark.bundles_as_sent
class TestOnTheRunner:
    def run(self, *events: Any) -> list[tuple]:
        """Run (clock, device, first, last) of a device that sent readings, and watermarks, through the engine."""
        stream = TestStream().advance_watermark_to(NOON)
        watermark = 0
        for event in events:
            if isinstance(event, tuple):
                now, device, *run = event
                element = (device, BundleActivity([Run(*map(micros, run))])) if run else None
                # What only sets the clock holds the watermark back until it has, on whatever engine.
                stream = stream.add_elements([TimestampedValue((now, element), NOON + (run or [watermark])[0])])
            else:
                stream, watermark = stream.advance_watermark_to(NOON + event), event
        with captured() as (rows, to_rows):
            with beam.Pipeline(options=parse()[1]) as pipeline:
                activity = beam.FlatMap(set_clock).with_output_types(tuple[str, BundleActivity])
                notice = NoticeSilences(AFTER, GRACE, clock)
                _ = pipeline | stream.advance_watermark_to_infinity() | activity | notice | to_rows
            return [shown(row) for row in rows]

    def test_noticed_back_and_drained(self):
        rows = self.run((10, "a", 0, 10), 44, (60, ""), 60, (61, "a", 61, 61), 62)
        assert rows == [("a", 10, 60, None), ("a", 10, 60, 61)]

    def test_many_devices(self):
        devices = [f"d{number}" for number in range(20)]
        rows = self.run(*[(n, device, n, n) for n, device in enumerate(devices)], 20, (47, ""), 47)
        # By 47 nothing had come for 30 s, and in time for 5 s of grace, of thirteen; the drain cuts short what else is
        # known to be silent then.
        assert sorted(rows, key=lambda row: row[1]) == [(f"d{n}", n, 47, None) for n in range(18)]


class TestInTheGraph:
    FLAGS = ("--silence_after=30s", "--grace_period=5s")

    def silences(self, stream: Stream, *flags: str) -> list[tuple]:
        with captured() as (rows, to_rows):
            found, letters = run_captured(stream.end(), *self.FLAGS, *flags, write_silences=to_rows)
            assert letters == []
            assert found
            return sorted(
                ((row["Device"], seconds(row["SilentSince"]), seconds(row["BackAt"])) for row in rows), key=str
            )

    @pytest.mark.parametrize("by_device", ["true", "false"])
    @pytest.mark.parametrize("window", ["fixed", "session"])
    def test_devices_and_the_stream_are_watched_however_rows_are_grouped(self, window, by_device):
        # The end of the stream is a drain: what has no end by then is not reported.
        stream = Stream().add(message(0, Temp=1.0, Device="a"), message(5, Temp=1.0, Device="b"))
        stream.watermark(6).add(message(20, Temp=2.0, Device="a")).add(message(60, Temp=3.0, Device="b")).watermark(90)
        stream.add(message(93, Temp=1.0))
        assert self.silences(stream, f"--window={window}", f"--group_by_device={by_device}") == [
            ("b", 5, 60),
            (None, 20, 60),
            (None, 60, 93),
        ]

    def test_very_many_of_a_device_in_one_message_are_all_noticed(self):
        packed = b"[" + b",".join(message(at * 60, Temp=at, Device="a") for at in range(300)) + b"]"
        found = self.silences(Stream().add(packed).watermark(9_000), "--interval=1h")
        assert found == sorted(
            [(device, at * 60, at * 60 + 60) for at in range(299) for device in ("a", None)], key=str
        )

    def test_only_good_readings_are_activity(self):
        stream = Stream().add(message(0, Temp=1.0, Device="a")).add(message(20, Temp=None, Device="a"))
        with captured() as (rows, to_rows):
            run_captured(stream.add(message(40, Temp=1.0, Device="a")).end(), *self.FLAGS, write_silences=to_rows)
            assert [(row["Device"], seconds(row["BackAt"])) for row in rows if row["Device"]] == [("a", 40)]


def in_seconds(activity: BundleActivity) -> list[tuple[float, float]]:
    """First and last reading of each run, in seconds after NOON."""
    return [(run.first / SECOND - NOON, run.last / SECOND - NOON) for run in activity.runs]


class TestDeviceActivity:
    def test_gives_a_run_of_each_device_and_of_the_stream_and_begins_anew(self):
        activity = DeviceActivity(AFTER * SECOND)
        readings = [(micros(at), device, {}) for device, at in [("a", 5), ("b", 50), ("a", 0), ("a", 20), ("", 100)]]
        assert list(activity.observe(iter(readings))) == readings
        drained = ((earliest, device, in_seconds(found)) for earliest, (device, found) in activity.drain())
        assert sorted(drained) == [
            (micros(0), "", [(0, 20), (50, 50), (100, 100)]),
            (micros(0), "a", [(0, 20)]),
            (micros(50), "b", [(50, 50)]),
        ]
        assert list(activity.drain()) == []

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(ats=st.lists(st.integers(0, 60).map(lambda n: n * 10), min_size=1, max_size=40))
    def test_runs_are_cut_where_neighbours_in_time_are_that_far_apart(self, ats):
        activity = DeviceActivity(AFTER * SECOND)
        assert len(list(activity.observe(iter([(micros(at), "a", {}) for at in ats])))) == len(ats)
        expected: list[list[int]] = []
        for at in sorted(ats):
            if expected and at - expected[-1][-1] < AFTER:
                expected[-1].append(at)
            else:
                expected.append([at])
        found = dict(element for _, element in activity.drain())["a"]
        assert in_seconds(found) == [(run[0], run[-1]) for run in expected]

    def test_is_full_when_there_are_very_many_devices(self, monkeypatch):
        monkeypatch.setattr("pipeline.aggregate.activity.MAX_BUCKETS", 3)
        activity = DeviceActivity(AFTER * SECOND)
        list(activity.observe(iter([(micros(0), device, {}) for device in "ab"])))
        assert not activity.full
        list(activity.observe(iter([(micros(0), "c", {})])))
        assert activity.full
        list(activity.drain())
        assert not activity.full


def test_stamps_are_of_the_tables_own_form():
    assert rfc3339(micros(0)) == "2024-11-22T13:00:00.000000Z"
