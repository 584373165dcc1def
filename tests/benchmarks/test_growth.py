"""What grows with readings, devices and sensors, and what does not, by counting. No test here looks at a clock."""

import json
from dataclasses import replace

import pytest

from benchmarks import growth
from benchmarks.growth import Graph, Shape

START = growth.past(3600)  # on a boundary of every interval used here


def records(shape: Shape, bundles: int = 1) -> list[list]:
    """What each bundle shuffles, as windowed (device, sums)."""
    graph = Graph(shape)
    return [graph.records(graph.run(bundle)) for bundle in graph.prepare(shape.bundles(bundles, START))]


class TestRecords:
    @pytest.mark.parametrize("shape", [Shape(bundle=10), Shape(bundle=2000), Shape(bundle=10, packed=100)], ids=str)
    def test_one_for_an_interval_however_many_readings(self, shape):
        assert [len(bundle) for bundle in records(shape, bundles=3)] == [1, 1, 1]

    @pytest.mark.parametrize("window", ["fixed", "session"])
    @pytest.mark.parametrize("devices", [2, 50, 100, 1000])
    def test_one_for_a_device_but_never_more_than_readings(self, window, devices):
        shape = Shape(bundle=100, devices=devices, by_device=True, window=window)
        assert [len(bundle) for bundle in records(shape, bundles=3)] == [min(devices, 100)] * 3

    def test_none_is_for_more_than_the_sensors_present(self):
        [[record]] = records(Shape(sensors=64, present=1, bundle=3))
        _, sums = record.value
        assert [count for _, count in sums.values()] == [1, 1, 1]


class TestFanIn:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            (Shape(rate=100, bundle=50), 31),
            (Shape(rate=500, bundle=50), 151),
            (Shape(rate=1000, bundle=50, packed=10), 31),
            (Shape(rate=100, bundle=50, interval=60), 121),
        ],
        ids=str,
    )
    def test_a_bundle_is_one_record_for_the_key_of_an_interval(self, shape, expected):
        counted = growth.fan_in(shape)
        assert (counted.records, counted.expected) == (expected, expected)


class TestState:
    @pytest.mark.parametrize("window", ["fixed", "session"])
    def test_it_does_not_grow_with_readings(self, window):
        sizes = {growth.state_per_device(Shape(window=window), readings) for readings in (1_000, 10_000)}
        assert len(sizes) == 1

    @pytest.mark.parametrize("window", ["fixed", "session"])
    def test_it_grows_with_sensors_by_a_name_a_sum_and_a_count(self, window):
        four, sixteen, all_of_64 = (
            growth.state_per_device(Shape(sensors=sensors, present=sensors, window=window), 1_000)
            for sensors in (4, 16, 64)
        )
        one_by_one = growth.state_per_device(Shape(sensors=64, present=1, window=window), 16_000)
        assert all_of_64 - sixteen == 4 * (sixteen - four)
        assert (sixteen - four) / 12 <= len("Sensor00") + 20
        assert one_by_one == all_of_64

    def test_of_fixed_windows_it_stays_below_200_bytes_for_four_sensors(self):
        assert growth.state_per_device(Shape(), 10_000) < 200


class TestMemory:
    def test_a_worker_keeps_nothing_of_readings_gone_by(self):
        # Every reading has a second, a fraction and a device of its own: an entry for each would be 90,000 blocks.
        shape = Shape(rate=0.09999, interval=3600, devices=100_000)
        before, after = growth.endure(shape, (4, 5))
        assert after.blocks - before.blocks < 20_000


class TestMessages:
    def test_stamps_are_distinct_and_in_order(self):
        for shape in (Shape(bundle=500), Shape(bundle=500, rate=0.09999), Shape(bundle=5, packed=100)):
            sent = [json.loads(data) for bundle in shape.bundles(3, START) for data in bundle]
            stamps = [item["Timestamp"] for message in sent for item in (message if shape.packed > 1 else [message])]
            assert len(stamps) == 1500
            assert stamps == sorted(set(stamps))

    def test_sensors_take_turns(self):
        [bundle] = Shape(sensors=16, present=1, bundle=16).bundles(1, START)
        assert {name for data in bundle for name in json.loads(data)} == {
            "Timestamp",
            "Device",
            *(f"Sensor{number:02}" for number in range(16)),
        }


def test_report(tmp_path):
    one = Shape(bundle=10)
    endured = growth.endure(Shape(), (4,))
    bundles = growth.compare([one, replace(one, present=1), replace(one, window="session")], rounds=1, seconds=0)
    growth.chart({"one by one": endured}, bundles, bundles, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
