"""Values of each statistic, worked out by hand; their accumulators; and accumulators of the previous version."""

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
from tests.pipeline.conftest import Stream, message

ALL = Statistics(list(STATISTICS))


def accumulated(chosen: Statistics, *readings: tuple[int, float]) -> Sums:
    """Return the accumulators of readings of Temp, given as (second, value)."""
    sums: Sums = {}
    for _, _, values in chosen.lift(iter([(at * SECOND, "", {"Temp": value}) for at, value in readings])):
        chosen.add(sums, values)
    return sums


def computed(name: str, *readings: tuple[int, float]) -> float | None:
    chosen = Statistics([name])
    [value] = chosen.values(accumulated(chosen, *readings)["Temp"])
    return value


class TestStatistic:
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
    def test_computes_value_of_six_readings(self, name, expected):
        found = computed(name, *self.READINGS)
        assert found == expected
        assert type(found) is type(expected)

    @pytest.mark.parametrize("name", STATISTICS)
    def test_computes_value_of_one_reading(self, name):
        assert computed(name, (7, 21.5)) == {"count": 1, "stddev": None}.get(name, 21.5)

    def test_orders_first_and_last_by_arrival_when_timestamps_are_equal(self):
        assert computed("first", (7, 1.0), (7, 3.0), (7, 2.0)) == 1.0
        assert computed("last", (7, 1.0), (7, 3.0), (7, 2.0)) == 2.0

    def test_orders_first_and_last_by_arrival_in_any_merge_order(self):
        chosen = Statistics(["first", "last"])
        bundles = [accumulated(chosen, (7, value)) for value in (2.0, 3.0, 1.0)]
        for order in itertools.permutations(bundles):
            merged = CombineSums(chosen.merge).merge_accumulators(order)
            assert chosen.values(merged["Temp"]) == [2.0, 1.0]


class TestStandardDeviation:
    @pytest.mark.parametrize(("base", "noise"), [(1e9, 1.0), (1e9, 1e-3), (1e9, 1e-6), (-1e12, 1e-3), (0.0, 1.0)])
    def test_is_exact_for_small_noise_on_a_large_number_in_any_bundles(self, base, noise):
        rng = random.Random(7)
        values = [base + noise * rng.gauss(0, 1) for _ in range(2_000)]
        chosen = Statistics(["stddev"])
        edges = [0, *sorted(rng.sample(range(1, 2_000), 9)), 2_000]
        bundles = [accumulated(chosen, *((0, value) for value in values[a:b])) for a, b in itertools.pairwise(edges)]
        rng.shuffle(bundles)
        [found] = chosen.values(CombineSums(chosen.merge).merge_accumulators(bundles)["Temp"])
        assert found == pytest.approx(statistics.stdev(values), rel=1e-12)

    def test_is_exact_when_first_reading_is_an_outlier(self):
        values = [0.0, *(1e9 + n for n in range(1_000))]
        assert computed("stddev", *((0, value) for value in values)) == pytest.approx(
            statistics.stdev(values), rel=1e-12
        )

    def test_is_zero_for_equal_readings(self):
        assert computed("stddev", (0, 0.1), (1, 0.1), (2, 0.1)) == 0.0


class TestStatistics:
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
    def test_accumulates_only_needed_components_in_fixed_order(self, names, expected):
        assert accumulated(Statistics(names.split(",")), (0, 10.0), (1, 20.0)) == {"Temp": expected}

    def test_uses_fast_functions_for_means_only(self):
        assert MEANS.merge is Statistics(["count", "mean"]).merge
        assert MEANS.merge is not Statistics(["count"]).merge

    def test_merge_does_not_change_added_sums(self):
        one, other = accumulated(ALL, (0, 1.0)), accumulated(ALL, (1, 2.0))
        before = repr(other)
        for _ in range(2):
            into: Sums = {}
            ALL.merge(into, one)
            ALL.merge(into, other)
        assert repr(other) == before
        assert ALL.values(one["Temp"])[1] == 1

    def test_pickles(self):
        travelled = pickle.loads(pickle.dumps(ALL))
        assert travelled == ALL
        assert travelled.values(accumulated(travelled, (0, 1.0), (1, 3.0))["Temp"])[:2] == [2.0, 2]

    def test_accumulator_survives_beams_coder(self):
        sums = accumulated(ALL, (0, 1.0), (1, 3.0))
        assert FastPrimitivesCoder().decode(FastPrimitivesCoder().encode(sums)) == sums


class TestPreviousVersion:
    """State encoded by the version without `statistics`, with the coders that Beam inferred for it."""

    ACCUMULATOR = (
        b"\x07\x02\x04\x04Temp\x05\x02\x02@E\x80\x00\x00\x00\x00\x00\x01\x03"
        b"\x04\x04AtmP\x05\x02\x02@\x8f\xaa\x00\x00\x00\x00\x00\x01\x01"
    )

    def test_accumulator_of_open_window_is_merged(self):
        combine = CombineSums(MEANS.merge)
        accumulator = FastPrimitivesCoder().decode(self.ACCUMULATOR)
        assert accumulator == {"Temp": [43.0, 3], "AtmP": [1013.25, 1]}
        merged = combine.merge_accumulators([accumulator, combine.add_input({}, accumulated(MEANS, (0, 7.0)))])
        assert {name: MEANS.values(parts) for name, parts in merged.items()} == {"Temp": [12.5], "AtmP": [1013.25]}

    def test_accumulator_is_encoded_as_before(self):
        sums = CombineSums(MEANS.merge).merge_accumulators(
            [{"Temp": [40.5, 2], "AtmP": [1013.25, 1]}, accumulated(MEANS, (0, 2.5))]
        )
        assert FastPrimitivesCoder().encode(sums) == self.ACCUMULATOR


class TestRows:
    FLAGS = ("--sensors=Temp,AtmP", "--statistics=max,mean,count,stddev")

    def test_columns_are_grouped_by_sensor_in_order_of_statistics(self, run_graph):
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

    def test_mean_is_left_out_when_not_chosen(self, run_graph):
        rows, _ = run_graph(Stream().add(message(1, Temp=1)), "--sensors=Temp", "--statistics=last")
        assert [list(row)[1:] for row in rows] == [["Temp_last"]]

    def test_late_payload_has_mean_as_sum_and_count(self, run_graph):
        stream = Stream().watermark(30).add(message(1, Temp=1), message(2, Temp=4))
        _, [dead_letter] = run_graph(stream, *self.FLAGS)
        assert json.loads(dead_letter["payload"])["readings"] == {
            "Temp": {"sum": 5.0, "count": 2, "max": 4.0, "stddev": math.sqrt(4.5)}
        }

    @pytest.mark.parametrize(("names", "fits"), [("stddev", False), ("mean,min", False), ("min,max", True)])
    def test_overflow_is_dead_lettered(self, run_graph, names, fits):
        stream = Stream().add(message(1, Temp=1.5e308), message(2, Temp=1.5e308), message(3, Temp=-1.5e308))
        rows, dead_letters = run_graph(stream, "--sensors=Temp", f"--statistics={names}")
        assert [(row["Temp_min"], row["Temp_max"]) for row in rows] == ([(-1.5e308, 1.5e308)] if fits else [])
        assert [(dead_letter["stage"], dead_letter["error"]) for dead_letter in dead_letters] == (
            [] if fits else [("average", "Overflow")]
        )
