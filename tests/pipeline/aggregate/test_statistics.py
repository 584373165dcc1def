"""Each statistic by hand; what is kept for them; and what jobs of the version before have kept."""

import itertools
import json
import math
import pickle
import random
import statistics

import pytest
from apache_beam.coders import FastPrimitivesCoder

from pipeline.aggregate.statistics import MEANS, STATISTICS, Statistics
from pipeline.aggregate.sums import SECOND, CombineSums, Sums
from pipeline.windows.session import SessionIntervals
from tests.contract.test_update import Kept
from tests.pipeline.conftest import Stream, message

ALL = Statistics(list(STATISTICS))


def kept(chosen: Statistics, *readings: tuple[int, float]) -> Sums:
    """What is kept of readings of Temp, given as (second, value)."""
    sums: Sums = {}
    for _, _, values in chosen.lift(iter([(at * SECOND, "", {"Temp": value}) for at, value in readings])):
        chosen.add(sums, values)
    return sums


def of(name: str, *readings: tuple[int, float]) -> float | None:
    chosen = Statistics([name])
    [value] = chosen.values(kept(chosen, *readings)["Temp"])
    return value


class TestByHand:
    READINGS = ((3, 5.0), (1, 2.0), (2, 8.0), (6, 6.0), (5, 4.0), (4, 5.0))

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("mean", 5.0),
            ("count", 6),
            ("min", 2.0),
            ("max", 8.0),
            ("sum", 30.0),
            ("stddev", 2.0),  # squared distances 0 + 9 + 9 + 1 + 1 + 0 = 20, over 5
            ("first", 2.0),
            ("last", 6.0),
        ],
    )
    def test_of_six_readings(self, name, expected):
        found = of(name, *self.READINGS)
        assert found == expected
        assert type(found) is type(expected)

    @pytest.mark.parametrize("name", STATISTICS)
    def test_of_one_reading(self, name):
        assert of(name, (7, 21.5)) == {"count": 1, "stddev": None}.get(name, 21.5)

    def test_first_and_last_of_one_moment_go_by_arrival(self):
        assert of("first", (7, 1.0), (7, 3.0), (7, 2.0)) == 1.0
        assert of("last", (7, 1.0), (7, 3.0), (7, 2.0)) == 2.0

    def test_arrival_decides_whatever_order_bundles_are_merged_in(self):
        chosen = Statistics(["first", "last"])
        bundles = [kept(chosen, (7, value)) for value in (2.0, 3.0, 1.0)]
        for order in itertools.permutations(bundles):
            merged = CombineSums(chosen.merge).merge_accumulators(order)
            assert chosen.values(merged["Temp"]) == [2.0, 1.0]


class TestDeviation:
    @pytest.mark.parametrize(("base", "noise"), [(1e9, 1.0), (1e9, 1e-3), (1e9, 1e-6), (-1e12, 1e-3), (0.0, 1.0)])
    def test_of_small_noise_on_a_large_number_however_it_is_cut(self, base, noise):
        rng = random.Random(7)
        values = [base + noise * rng.gauss(0, 1) for _ in range(2_000)]
        chosen = Statistics(["stddev"])
        edges = [0, *sorted(rng.sample(range(1, 2_000), 9)), 2_000]
        bundles = [kept(chosen, *((0, value) for value in values[a:b])) for a, b in itertools.pairwise(edges)]
        rng.shuffle(bundles)
        [found] = chosen.values(CombineSums(chosen.merge).merge_accumulators(bundles)["Temp"])
        assert found == pytest.approx(statistics.stdev(values), rel=1e-12)

    def test_is_right_where_the_first_reading_is_an_outlier(self):
        values = [0.0, *(1e9 + n for n in range(1_000))]
        assert of("stddev", *((0, value) for value in values)) == pytest.approx(statistics.stdev(values), rel=1e-12)

    def test_of_equal_readings_is_nothing(self):
        assert of("stddev", (0, 0.1), (1, 0.1), (2, 0.1)) == 0.0


class TestWhatIsKept:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ("mean", [30.0, 2]),
            ("sum,mean,count", [30.0, 2]),
            ("sum", [30.0]),
            ("count", [2]),
            ("max,min", [10.0, 20.0]),
            ("max,mean", [30.0, 2, 20.0]),
            ("stddev", [(2, 10.0, 5.0, 50.0)]),
        ],
    )
    def test_is_only_what_is_asked_for_in_one_order(self, names, expected):
        assert kept(Statistics(names.split(",")), (0, 10.0), (1, 20.0)) == {"Temp": expected}

    def test_of_means_is_added_up_by_the_fast_path(self):
        assert MEANS.merge is Statistics(["count", "mean"]).merge
        assert MEANS.merge is not Statistics(["count"]).merge

    def test_adding_changes_no_sums_but_those_added_to(self):
        one, other = kept(ALL, (0, 1.0)), kept(ALL, (1, 2.0))
        before = repr(other)
        for _ in range(2):
            into: Sums = {}
            ALL.merge(into, one)
            ALL.merge(into, other)
        assert repr(other) == before
        assert ALL.values(one["Temp"])[1] == 1

    def test_travels_to_workers(self):
        travelled = pickle.loads(pickle.dumps(ALL))
        assert travelled == ALL
        assert travelled.values(kept(travelled, (0, 1.0), (1, 3.0))["Temp"])[:2] == [2.0, 2]

    def test_is_what_beams_coder_takes(self):
        sums = kept(ALL, (0, 1.0), (1, 3.0))
        assert FastPrimitivesCoder().decode(FastPrimitivesCoder().encode(sums)) == sums


class TestStateOfTheVersionBefore:
    """Encoded by the version without `statistics`, with the coders that Beam inferred for it."""

    ACCUMULATOR = (
        b"\x07\x02\x04\x04Temp\x05\x02\x02@E\x80\x00\x00\x00\x00\x00\x01\x03"
        b"\x04\x04AtmP\x05\x02\x02@\x8f\xaa\x00\x00\x00\x00\x00\x01\x01"
    )
    SESSIONS = (
        b"\x06\x02\x01\x00\x05\x01\x06\x06\x01\x80\xc2\xd7/\x01\x80\xc2\xd7/"
        b"\x07\x01\x04\x04Temp\x05\x02\x02@5\x80\x00\x00\x00\x00\x00\x01\x01\x01\x00\x06\x00\t\x01"
    )

    def test_of_an_open_window_is_added_to(self):
        combine = CombineSums(MEANS.merge)
        accumulator = FastPrimitivesCoder().decode(self.ACCUMULATOR)
        assert accumulator == {"Temp": [43.0, 3], "AtmP": [1013.25, 1]}
        merged = combine.merge_accumulators([accumulator, combine.add_input({}, kept(MEANS, (0, 7.0)))])
        assert {name: MEANS.values(parts) for name, parts in merged.items()} == {"Temp": [12.5], "AtmP": [1013.25]}

    def test_of_an_open_session_is_added_to(self):
        state = Kept()
        state.write(FastPrimitivesCoder().decode(self.SESSIONS))
        bucket = ("device-1", (130 * SECOND, 130 * SECOND, kept(MEANS, (130, 22.5))))
        SessionIntervals(60, 5, 3600, False).emit().fn.process(bucket, state, Kept(), Kept())
        assert state.value == (0, [(100 * SECOND, 130 * SECOND, {"Temp": [44.0, 2]}, 0, (), True)])

    def test_is_what_this_version_keeps_too(self):
        sums = CombineSums(MEANS.merge).merge_accumulators(
            [{"Temp": [40.5, 2], "AtmP": [1013.25, 1]}, kept(MEANS, (0, 2.5))]
        )
        assert FastPrimitivesCoder().encode(sums) == self.ACCUMULATOR


class TestRows:
    FLAGS = ("--sensors=Temp,AtmP", "--statistics=max,mean,count,stddev")

    def test_have_the_columns_sensor_by_sensor_as_asked_for(self, run_graph):
        rows, _ = run_graph(Stream().add(message(1, Temp=1), message(2, Temp=4)), *self.FLAGS)
        assert [list(row.items())[1:] for row in rows] == [
            [
                ("Temp_max", 4.0),
                ("Temp", 2.5),
                ("Temp_count", 2),
                ("Temp_stddev", math.sqrt(4.5)),
                ("AtmP_max", None),
                ("AtmP", None),
                ("AtmP_count", None),
                ("AtmP_stddev", None),
            ]
        ]

    def test_have_no_mean_that_is_not_asked_for(self, run_graph):
        rows, _ = run_graph(Stream().add(message(1, Temp=1)), "--sensors=Temp", "--statistics=last")
        assert [list(row)[1:] for row in rows] == [["Temp_last"]]

    def test_late_readings_leave_the_same_statistics_a_mean_as_sum_and_count(self, run_graph):
        stream = Stream().watermark(30).add(message(1, Temp=1), message(2, Temp=4))
        _, [letter] = run_graph(stream, *self.FLAGS)
        assert json.loads(letter["payload"])["readings"] == {
            "Temp": {"sum": 5.0, "count": 2, "max": 4.0, "stddev": math.sqrt(4.5)}
        }

    @pytest.mark.parametrize(("names", "fits"), [("stddev", False), ("mean,min", False), ("min,max", True)])
    def test_what_a_float_cannot_hold_is_dead_lettered(self, run_graph, names, fits):
        stream = Stream().add(message(1, Temp=1.5e308), message(2, Temp=1.5e308), message(3, Temp=-1.5e308))
        rows, letters = run_graph(stream, "--sensors=Temp", f"--statistics={names}")
        assert [(row["Temp_min"], row["Temp_max"]) for row in rows] == ([(-1.5e308, 1.5e308)] if fits else [])
        assert [(letter["stage"], letter["error"]) for letter in letters] == ([] if fits else [("average", "Overflow")])
