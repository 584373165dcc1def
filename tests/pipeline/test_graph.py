"""The shipped graph, from messages and watermarks to rows and dead letters."""

import gc
import json
import math
import random
import weakref
from itertools import pairwise
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.aggregate import fold
from pipeline.decode.errors import NotJson, Rejection
from pipeline.decode.mapping import Mapping
from pipeline.timestamps import rfc3339
from pipeline.windows.fixed import FixedIntervals
from tests.pipeline.conftest import NOON, Stream, captured, message, parse


def at(clock: str) -> str:
    return f"2024-11-22T{clock}Z"


def row(clock: str, **means):
    return {"Timestamp": at(clock), "Airtight": None, "AtmP": None, "H2OC": None, "Temp": None, **means}


class TestFixedWindows:
    def test_yield_one_row_per_interval_with_mean_of_each_sensor(self, run_graph):
        stream = Stream().add(
            message(0, Temp=20.0),
            message(14.999, Temp=23.0, AtmP=1000.0),
            message(15, Temp=1.0),
            message(16, Temp=2.0),
            message(17, Temp=6),
        )
        rows, dead_letters = run_graph(stream)
        assert rows == [row("13:00:00.000000", Temp=21.5, AtmP=1000.0), row("13:00:15.000000", Temp=3.0)]
        assert dead_letters == []

    def test_combine_bundles_of_one_interval(self, run_graph):
        stream = Stream().add(message(1, Temp=1.0)).add(message(2, Temp=2.0), message(3, Temp=6.0))
        assert run_graph(stream)[0] == [row("13:00:00.000000", Temp=3.0)]

    def test_yield_no_row_for_interval_without_readings(self, run_graph):
        rows, _ = run_graph(Stream().add(message(0, Temp=1.0), message(45, Temp=2.0)))
        assert [r["Timestamp"] for r in rows] == [at("13:00:00.000000"), at("13:00:45.000000")]

    def test_include_stragglers_within_grace_period(self, run_graph):
        stream = Stream().add(message(1, Temp=1.0)).watermark(19.9).add(message(14, Temp=3.0)).watermark(20)
        rows, dead_letters = run_graph(stream)
        assert rows == [row("13:00:00.000000", Temp=2.0)]
        assert dead_letters == []

    @pytest.mark.parametrize(("interval", "grace"), [("5s", "12s"), ("10s", "10s"), ("7s", "0s")])
    def test_stay_aligned_with_any_grace_period(self, run_graph, interval, grace):
        length = int(interval[:-1])
        start = -(-NOON // length) * length - NOON
        stream = Stream().add(message(start, Temp=1.0), message(start + length - 0.001, Temp=2.0))
        rows, _ = run_graph(stream, f"--interval={interval}", f"--grace_period={grace}")
        assert [r["Temp"] for r in rows] == [1.5]
        assert rows[0]["Timestamp"] == at(f"13:00:{start:02d}.000000")

    def test_dead_letter_late_readings_without_changing_the_row(self, run_graph):
        stream = (
            Stream()
            .add(message(1, Temp=1.0))
            .watermark(20)
            .add(message(2, Temp=10.0, AtmP=900.0), message(3, Temp=30.0))
            .watermark(60)
        )
        rows, dead_letters = run_graph(stream)
        assert rows == [row("13:00:00.000000", Temp=1.0)]
        (dead_letter,) = dead_letters
        assert (dead_letter["stage"], dead_letter["error"], dead_letter["event_time"]) == (
            "late",
            "Late",
            at("13:00:00.000000"),
        )
        assert json.loads(dead_letter["payload"]) == {
            "Timestamp": at("13:00:00.000000"),
            "Device": None,
            "readings": {"Temp": {"sum": 40.0, "count": 2}, "AtmP": {"sum": 900.0, "count": 1}},
        }

    def test_yield_no_row_when_all_readings_are_late(self, run_graph):
        rows, dead_letters = run_graph(Stream().watermark(30).add(message(1, Temp=1.0)))
        assert rows == []
        assert [dead_letter["stage"] for dead_letter in dead_letters] == ["late"]

    def test_dead_letter_sums_beyond_a_float(self, run_graph):
        stream = Stream().add(message(1, Temp=1e308), message(2, Temp=1e308), message(3, AtmP=1.0))
        rows, dead_letters = run_graph(stream)
        assert rows == []
        assert [(dead_letter["stage"], dead_letter["error"]) for dead_letter in dead_letters] == [
            ("average", "Overflow")
        ]


class TestDevices:
    def test_share_a_row_by_default(self, run_graph):
        rows, _ = run_graph(Stream().add(message(1, Temp=1.0, Device="a"), message(2, Temp=3.0, Device="b")))
        assert rows == [row("13:00:00.000000", Temp=2.0)]

    def test_have_a_row_each_with_group_by_device(self, run_graph):
        stream = Stream().add(
            message(1, Temp=1.0, Device="b"),
            message(2, Temp=3.0, Device="a"),
            message(3, Temp=5.0, Device="a"),
            message(4, Temp=7.0),
        )
        rows, _ = run_graph(stream, "--group_by_device=true")
        assert rows == [
            row("13:00:00.000000", Temp=7.0, Device=None),
            row("13:00:00.000000", Temp=4.0, Device="a"),
            row("13:00:00.000000", Temp=1.0, Device="b"),
        ]


class TestSessions:
    FLAGS = ("--window=session", "--session_gap=10s", "--grace_period=5s", "--group_by_device=true")

    def test_yield_row_per_device_and_burst_at_its_end(self, run_graph):
        stream = Stream().add(
            message(0, Temp=1.0, Device="a"),
            message(9.5, Temp=2.0, Device="a"),
            message(4, Temp=50.0, Device="b"),
            message(18.25, Temp=6.0, Device="a"),
            message(40, Temp=8.0, Device="a"),
        )
        rows, dead_letters = run_graph(stream, *self.FLAGS)
        assert rows == [
            row("13:00:14.000000", Temp=50.0, Device="b"),
            row("13:00:28.250000", Temp=3.0, Device="a"),
            row("13:00:50.000000", Temp=8.0, Device="a"),
        ]
        assert dead_letters == []

    def test_end_when_readings_are_exactly_a_gap_apart(self, run_graph):
        stream = Stream().add(message(0, Temp=1.0)).add(message(10, Temp=2.0), message(20, Temp=3.0))
        assert [r["Temp"] for r in run_graph(stream, *self.FLAGS)[0]] == [1.0, 2.0, 3.0]

    def test_stay_open_when_earlier_session_of_device_is_due(self, run_graph):
        flags = [*self.FLAGS, "--grace_period=8s"]
        # At 18 the first is due. The second ends at 21 and is due at 29, so the reading that comes next belongs to it.
        stream = Stream().add(message(0, Temp=1.0), message(11, Temp=2.0)).watermark(19).add(message(15, Temp=4.0))
        rows, dead_letters = run_graph(stream.watermark(40), *flags)
        assert rows == [row("13:00:10.000000", Temp=1.0, Device=None), row("13:00:25.000000", Temp=3.0, Device=None)]
        assert dead_letters == []

    def test_join_when_straggler_is_between_them(self, run_graph):
        stream = Stream().add(message(0, Temp=1.0), message(16, Temp=3.0)).watermark(14).add(message(8, Temp=5.0))
        assert run_graph(stream, *self.FLAGS)[0] == [row("13:00:26.000000", Temp=3.0, Device=None)]

    def test_very_many_of_a_device_in_one_message_have_a_row_each(self, run_graph):
        packed = b"[" + b",".join(message(at * 100, Temp=at, Device="a") for at in range(300)) + b"]"
        # The watermark passes half of them, then a straggler joins two of the others.
        stream = (
            Stream()
            .add(packed)
            .watermark(15_000)
            .add(*[message(20_000 + at, Device="a", Temp=5) for at in range(9, 100, 9)])
        )
        rows, letters = run_graph(stream, *self.FLAGS)
        joined = (200 + 201 + 11 * 5) / 13
        assert [row["Temp"] for row in rows] == [*range(200), joined, *range(202, 300)]
        assert rows[200]["Timestamp"] == "2024-11-22T18:35:10.000000Z"
        assert letters == []


class TestUnusableMessages:
    def test_become_dead_letters_with_stage_error_and_payload(self, run_graph):
        bad = {
            b"\xff": ("decode", "NotJson"),
            b"[]": ("decode", "NotAReading"),
            b'{"Temp": 1}': ("timestamp", "BadTimestamp"),
            message(0, Humidity=4): ("validate", "NoKnownSensor"),
            message(0, Temp=True): ("validate", "BadValue"),
        }
        rows, dead_letters = run_graph(Stream().add(message(1, Temp=1.0), *bad))
        assert rows == [row("13:00:00.000000", Temp=1.0)]
        assert {
            dead_letter["payload"]: (dead_letter["stage"], dead_letter["error"]) for dead_letter in dead_letters
        } == bad
        assert len(dead_letters) == len(bad)

    def test_become_one_dead_letter_per_bad_item_of_array(self, run_graph):
        packed = b'[{"Timestamp": %d, "Temp": 1}, {"Timestamp":  "noon"}, {"Timestamp": %d, "Temp": 2}]' % (NOON, NOON)
        rows, dead_letters = run_graph(Stream().add(packed))
        assert rows == [row("13:00:00.000000", Temp=1.5)]
        assert [(dead_letter["payload"], dead_letter["message"][:7]) for dead_letter in dead_letters] == [
            (b'{"Timestamp":  "noon"}', "item 1:")
        ]

    def test_keep_attributes_and_message_id_with_keep_attributes(self, run_graph):
        good = PubsubMessage(message(0, Temp=2.0), {"site": "north"}, "17")
        bad = PubsubMessage(b"bad", {"site": "north", "device": "d"}, "18")
        rows, dead_letters = run_graph(Stream().add(good, bad), "--keep_attributes=true")
        assert [r["Temp"] for r in rows] == [2.0]
        assert [(dead_letter["message_id"], dead_letter["attributes"]) for dead_letter in dead_letters] == [
            ("18", [{"key": "device", "value": "d"}, {"key": "site", "value": "north"}])
        ]

    def test_keep_their_own_attributes_and_message_id_in_large_batch(self, run_graph):
        messages = [
            PubsubMessage(b"bad" if number in (0, 40, 99) else message(1, Temp=1.0), {"n": str(number)}, f"id-{number}")
            for number in range(100)
        ]
        rows, dead_letters = run_graph(Stream().add(*messages), "--keep_attributes=true")
        assert rows == [row("13:00:00.000000", Temp=1.0)]
        # In any order: they pass a grouping by random keys.
        found = sorted(
            (dead_letter["attributes"][0]["value"], dead_letter["message_id"]) for dead_letter in dead_letters
        )
        assert found == [("0", "id-0"), ("40", "id-40"), ("99", "id-99")]
        assert [[attribute["key"] for attribute in dead_letter["attributes"]] for dead_letter in dead_letters] == [
            ["n"]
        ] * 3

    def test_become_the_same_dead_letter_when_retried(self):
        bad = PubsubMessage(b"bad", {"site": "north"}, "18")
        rejection = Rejection(NotJson("no"), bad.data, 0, {"NotJson": 1})
        rejected, other = (fold._rejected(rejection, bad, 1732280401.25) for _ in range(2))
        dead_letter = fold._make_dead_letter(rejected)
        assert dead_letter == fold._make_dead_letter(rejected)
        assert dead_letter["received_at"] == "2024-11-22T13:00:01.250000Z"
        assert dead_letter["dead_letter_id"] != fold._make_dead_letter(other)["dead_letter_id"]


class TestSensors:
    def test_decide_columns_and_their_order(self, run_graph):
        rows, _ = run_graph(Stream().add(message(1, CO2=400, Temp=1.0, Noise=3)), "--sensors=Noise,CO2")
        assert [list(r.items()) for r in rows] == [
            [("Timestamp", at("13:00:00.000000")), ("Noise", 3.0), ("CO2", 400.0)]
        ]


def test_fold_does_not_keep_finished_bundle_processors_alive():
    fold._freeze_once.cache_clear()
    alive = []
    for _ in range(20):
        processor: Any = fold._Fold(Mapping.of_columns(["Temp"]), 600, FixedIntervals(15, 5, 3600, False), None)
        # As part of a cycle, like Beam's own, it is freed by the garbage collector alone.
        processor.itself = processor
        processor.setup()
        alive.append(weakref.ref(processor))
    del processor
    gc.collect()
    # The first was alive when the process froze what it had.
    assert sum(ref() is not None for ref in alive) <= 1


# Milliseconds after NOON, device, value: on a grid, so that gaps of exactly ten seconds do occur.
readings = st.lists(
    st.tuples(st.integers(0, 240).map(lambda n: n * 500), st.sampled_from("ab"), st.floats(-1e6, 1e6)),
    min_size=1,
    max_size=40,
)


def split_into_bundles(items: list, seed: int) -> Stream:
    stream, shuffled = Stream(), items.copy()
    rng = random.Random(seed)
    rng.shuffle(shuffled)
    while shuffled:
        size = rng.randint(1, len(shuffled))
        stream.add(*(message(ms / 1000, Temp=value, Device=device) for ms, device, value in shuffled[:size]))
        del shuffled[:size]
    return stream


def means(groups: dict) -> dict:
    return {key: pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-9) for key, values in groups.items()}


def by_clock(rows: list[dict]) -> dict:
    return {(r["Timestamp"], r["Device"]): r["Temp"] for r in rows}


class MeanPerSensor(beam.CombineFn):
    """As simple as can be: an accumulator is all the readings."""

    def create_accumulator(self):
        return []

    def add_input(self, accumulator, fields):
        return [*accumulator, fields]

    def merge_accumulators(self, accumulators):
        return [fields for accumulator in accumulators for fields in accumulator]

    def extract_output(self, accumulator):
        columns = {name: [fields[name] for fields in accumulator if name in fields] for name in SENSORS}
        return {name: math.fsum(column) / len(column) if column else None for name, column in columns.items()}


def plain_graph(stream: Stream, capture: beam.PTransform) -> None:
    """Each reading stamped, windowed and combined alone, as in Beam's guide."""
    with beam.Pipeline(options=parse()[1]) as pipeline:
        _ = (
            pipeline
            | stream.end()
            | beam.FlatMap(json.loads)
            | beam.Map(lambda fields: TimestampedValue((fields["Device"], fields), fields["Timestamp"]))
            | beam.WindowInto(FixedWindows(15))
            | beam.CombinePerKey(MeanPerSensor())
            | beam.MapTuple(lambda device, row, window=beam.DoFn.WindowParam: (window.start.micros, device, row))
            | capture
        )


def stream_of(bundles: list[list[bytes]]) -> Stream:
    stream = Stream()
    for bundle in bundles:
        stream.add(*bundle)
    return stream


SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
packed_messages = st.lists(
    st.lists(
        st.builds(
            lambda ms, device, values: {"Timestamp": NOON + ms / 1000, "Device": device, **values},
            st.integers(0, 60_000),
            st.sampled_from("abc"),
            st.dictionaries(st.sampled_from(SENSORS), st.floats(-1e6, 1e6) | st.integers(-9, 9), min_size=1),
        ),
        min_size=1,
        max_size=8,
    ),
    min_size=1,
    max_size=12,
)


class TestAgainstAReference:
    SETTINGS = settings(
        max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )

    @SETTINGS
    @given(documents=packed_messages, cuts=st.sets(st.integers(1, 11)))
    def test_packed_messages_yield_means_of_combine_per_key(self, run_graph, documents, cuts):
        edges = [0, *sorted(cut for cut in cuts if cut < len(documents)), len(documents)]
        bundles = [[json.dumps(document).encode() for document in documents[a:b]] for a, b in pairwise(edges)]
        rows, dead_letters = run_graph(stream_of(bundles), "--group_by_device=true")
        with captured() as (captured_rows, to_rows):
            plain_graph(stream_of(bundles), to_rows)
            plain = captured_rows.copy()
        assert {(r["Timestamp"], r["Device"]): [r[name] for name in SENSORS] for r in rows} == {
            (rfc3339(start), device): [
                mean if mean is None else pytest.approx(mean, rel=1e-9, abs=1e-6) for mean in means_of.values()
            ]
            for start, device, means_of in plain
        }
        assert len(rows) == len(plain)
        assert dead_letters == []

    @pytest.mark.parametrize("flags", [(), ("--window=session", "--session_gap=10s")], ids=["fixed", "session"])
    def test_fold_yields_all_readings_when_buckets_fill_up(self, run_graph, monkeypatch, flags):
        monkeypatch.setattr("pipeline.aggregate.buckets.MAX_BUCKETS", 3)
        # Two readings of each of five devices, so that the fold is full, and emptied, several times in the bundle.
        items = [{"Timestamp": NOON + n / 10, "Device": f"d{n % 5}", "Temp": float(n)} for n in range(10)]
        rows, dead_letters = run_graph(Stream().add(json.dumps(items).encode()), "--group_by_device=true", *flags)
        assert dead_letters == []
        assert [(r["Device"], r["Temp"]) for r in rows] == [(f"d{n}", n + 2.5) for n in range(5)]

    @SETTINGS
    @given(items=readings, seed=st.integers(0, 2**32))
    def test_fixed_windows_yield_means_in_any_order_and_bundling(self, run_graph, items, seed):
        expected: dict = {}
        for ms, device, value in items:
            start = ms // 15_000 * 15
            expected.setdefault((at(f"13:{start // 60:02d}:{start % 60:02d}.000000"), device), []).append(value)
        rows, dead_letters = run_graph(split_into_bundles(items, seed), "--group_by_device=true")
        assert by_clock(rows) == means(expected)
        assert len(rows) == len(expected)
        assert dead_letters == []

    @SETTINGS
    @given(items=readings, seed=st.integers(0, 2**32))
    def test_sessions_yield_means_in_any_order_and_bundling(self, run_graph, items, seed):
        sessions: list[list] = []
        for ms, device, value in sorted(items, key=lambda item: (item[1], item[0])):
            if not (sessions and sessions[-1][0] == device and ms - sessions[-1][1] < 10_000):
                sessions.append([device, ms, []])
            sessions[-1][1] = ms
            sessions[-1][2].append(value)
        expected = {}
        for device, last, values in sessions:
            minutes, ms = divmod(last + 10_000, 60_000)
            expected[at(f"13:{minutes:02d}:{ms / 1000:09.6f}"), device] = values
        rows, dead_letters = run_graph(split_into_bundles(items, seed), *TestSessions.FLAGS)
        assert by_clock(rows) == means(expected)
        assert len(rows) == len(expected)
        assert dead_letters == []
