"""What grows with readings, devices and sensors, and what does not, by counting. No test here looks at a clock."""

import json

import pytest

from benchmarks import growth
from benchmarks.contenders import partial_sums
from benchmarks.growth import run, shape
from benchmarks.load import messages, past
from pipeline.aggregate.shards import SHARDS

START = past(3600, multiple_of=3600)  # on a boundary of every interval used here


class TestRecords:
    @pytest.mark.parametrize("load", [shape(bundle=10), shape(bundle=2000), shape(bundle=10, packed=100)], ids=str)
    def test_is_one_per_interval_for_any_number_of_readings(self, load):
        assert [len(bundle) for bundle in run(load, 3, START)] == [1, 1, 1]

    @pytest.mark.parametrize("devices", [2, 50, 100, 1000])
    def test_is_one_per_shard_with_fixed_windows(self, devices):
        for bundle in run(shape(bundle=100, devices=devices), 3, START):
            assert len(bundle) <= min(devices, SHARDS)
            assert sum(len(partial_sums(record, grace=0)) for record in bundle) == min(devices, 100)

    @pytest.mark.parametrize("devices", [2, 50, 100, 1000])
    def test_is_one_per_device_with_sessions(self, devices):
        load = shape(bundle=100, devices=devices, window="session")
        assert [len(bundle) for bundle in run(load, 3, START)] == [min(devices, 100)] * 3

    def test_has_only_present_sensors(self):
        [[record]] = run(shape(sensors=64, present=1, bundle=3), 1, START)
        [(_, _, sums)] = partial_sums(record, grace=0)
        assert [count for _, count in sums.values()] == [1, 1, 1]


class TestFanIn:
    @pytest.mark.parametrize(
        ("load", "expected"),
        [
            (shape(rate=100, bundle=50), 31),
            (shape(rate=500, bundle=50), 151),
            (shape(rate=1000, bundle=50, packed=10), 31),
            (shape(rate=100, bundle=50, flags=("--interval=60s",)), 121),
        ],
        ids=str,
    )
    def test_is_one_record_per_bundle_and_interval(self, load, expected):
        counted = growth.fan_in(load, rounds=1)
        assert (counted["records"], counted["by rule"]) == (expected, expected)


class TestState:
    @pytest.mark.parametrize("window", growth.WINDOWS)
    def test_does_not_grow_with_readings(self, window):
        sizes = {growth.state_per_device(shape(window=window), readings) for readings in (1_000, 10_000)}
        assert len(sizes) == 1

    @pytest.mark.parametrize("window", growth.WINDOWS)
    def test_grows_with_sensors_by_name_sum_and_count(self, window):
        four, sixteen, all_of_64 = (
            growth.state_per_device(shape(sensors=sensors, present=sensors, window=window), 1_000)
            for sensors in (4, 16, 64)
        )
        one_by_one = growth.state_per_device(shape(sensors=64, present=1, window=window), 32_000)
        # Headers of MessagePack grow by a few bytes with the number of sensors.
        assert abs(all_of_64 - sixteen - 4 * (sixteen - four)) <= 16
        assert (sixteen - four) / 12 <= len("Sensor00") + 20
        assert one_by_one == all_of_64

    def test_is_below_200_bytes_for_four_sensors_with_fixed_windows(self):
        assert growth.state_per_device(shape(), 10_000) < 200

    def test_grows_with_panes_and_not_with_bundles_for_a_day(self):
        rows = growth.open_day(1_000, (1, 10, 100))
        # A bundle reaches all devices, and has a record for each of 32 shards. A pane of 15 minutes is 90 bundles; of
        # one that is over, a record for each shard is left: of 100 readings, 10 are in the second pane.
        assert [(row["bundles"], row["one window: records"]) for row in rows] == [(1, 32), (10, 320), (100, 3200)]
        assert [row["panes: records"] for row in rows] == [32, 320, 32 + 320]
        first, tenth, hundredth = rows
        assert hundredth["one window: MB"] == pytest.approx(100 * first["one window: MB"], rel=0.05)
        assert hundredth["panes: MB"] == pytest.approx(first["combined, MB"] + tenth["panes: MB"], rel=0.05)
        assert hundredth["combined, MB"] == pytest.approx(first["combined, MB"], rel=0.05)

    def test_is_even_among_keys_of_many_devices(self):
        interval = growth.crowded_interval(10_000, rounds=1)
        assert interval["keys"] == 32
        assert 10_000 / 32 <= interval["devices of the largest key"] < 1.1 * 10_000 / 32
        assert interval["state, MB"] * 1e6 / 10_000 < 100


class TestMemory:
    def test_endure_finds_no_growth_of_memory_with_readings(self):
        # Every reading has a second, a fraction and a device of its own: an entry for each would be 90,000 blocks.
        before, after = growth.endure("", growth.ENDURED["one by one, four months"], (4, 5))
        assert after["blocks in use"] - before["blocks in use"] < 20_000


class TestMessages:
    def test_messages_have_distinct_timestamps_in_order(self):
        for load in (shape(), shape(rate=0.09999), shape(packed=100)):
            sent = [json.loads(data) for _, data in messages(load, 1500 // load.packed, START)]
            stamps = [item["Timestamp"] for message in sent for item in (message if load.packed > 1 else [message])]
            assert len(stamps) == 1500
            assert stamps == sorted(set(stamps))

    def test_messages_have_sensors_in_turn(self):
        sent = [json.loads(data) for _, data in messages(shape(sensors=16, present=1), 16, START)]
        names = {"Timestamp", "Device", *(f"Sensor{number:02}" for number in range(16))}
        assert {name for reading in sent for name in reading} == names


def test_publish_writes_figures_and_chart(tmp_path):
    endured = growth.endure("one by one", shape(), (4,))
    loads = [shape(bundle=10), shape(present=1, bundle=10), shape(bundle=10, window="session")]
    bundles = growth.compare(loads, rounds=1, seconds=0)
    growth.chart(endured, bundles, bundles).savefig(tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
