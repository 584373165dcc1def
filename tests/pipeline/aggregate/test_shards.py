"""Devices are shuffled in shards, which preserve their sums."""

import random
from collections import Counter
from functools import partial

import apache_beam as beam
import pytest
from apache_beam.typehints import Tuple

from pipeline.aggregate.shards import SHARDS, Shard, ShardCoder, by_shard, merge_devices
from pipeline.aggregate.statistics import MEANS, STATISTICS, Statistics
from pipeline.aggregate.sums import SECOND, CombineSums
from pipeline.windows.fixed import FixedIntervals
from tests.pipeline.conftest import NOON, Stream, drained, message


def shard_of(device: str) -> str:
    [(key, _)] = by_shard({device: {}})
    return key


class TestByShard:
    def test_puts_device_in_shard_of_its_crc(self):
        # Its CRC-32 is 0xb72fe279, whose last five bits are 25.
        assert shard_of("device-1") == "shard 25"

    def test_puts_every_device_in_one_shard_with_its_sums(self):
        sums_of = {f"device-{number}": {"Temp": [float(number), 1]} for number in range(500)}
        found = [pair for _, shard in by_shard(sums_of) for pair in shard.items()]
        assert len(found) == 500
        assert dict(found) == sums_of

    def test_spreads_many_devices_evenly(self):
        sizes = Counter(shard_of(f"sensor/{number:06}") for number in range(32_000))
        assert len(sizes) == SHARDS
        assert 800 < min(sizes.values()) <= max(sizes.values()) < 1200

    def test_accepts_device_names_of_any_characters(self):
        names = ["", "\u00e9", "\u6e29\u5ea6", "\U0001f321", "a" * 1024, "\x00"]
        assert {name for _, shard in by_shard({name: {} for name in names}) for name in shard} == set(names)


class TestShardCoder:
    @pytest.mark.parametrize("name", STATISTICS)
    def test_preserves_accumulators_of_every_statistic(self, name):
        chosen = Statistics([name])
        readings = [(NOON * SECOND + at, "d", {"Temp": value}) for at, value in enumerate((-0.0, 1e308, 0.1, 5e-324))]
        merge = partial(merge_devices, chosen.merge)
        lifted = [{"d": {}} for _ in readings]
        for sums_of, reading in zip(lifted, readings, strict=True):
            for _, _, values in chosen.lift(iter([reading])):
                chosen.add(sums_of["d"], values)
        coder = ShardCoder()
        there_and_back = [coder.decode(coder.encode(one)) for one in lifted]
        expected, found = (CombineSums(merge).merge_accumulators(sums) for sums in (lifted, there_and_back))
        assert chosen.values(found["d"]["Temp"]) == chosen.values(expected["d"]["Temp"])

    def test_is_registered_for_shard(self):
        assert isinstance(beam.coders.registry.get_coder(Tuple[str, Shard]).value_coder(), ShardCoder)


def test_fixed_intervals_place_one_element_per_shard():
    intervals = FixedIntervals(15, 5, 3600, False, by_device=True)
    devices = [f"device-{number}" for number in range(5000)]
    elements = drained(intervals, [(NOON * SECOND, device, {"Temp": 1.0}) for device in devices], NOON)
    assert len(elements) == SHARDS
    assert sorted(device for element in elements for device in element.value[1]) == sorted(devices)


def test_fixed_intervals_place_one_element_per_device_with_revise():
    intervals = FixedIntervals(15, 5, 3600, True, by_device=True)
    elements = drained(intervals, [(NOON * SECOND, device, {"Temp": 1.0}) for device in ("a", "b")], NOON)
    assert [element.value for element in elements] == [("a", {"Temp": [1.0, 1]}), ("b", {"Temp": [1.0, 1]})]


def test_graph_yields_row_per_device_with_many_devices(run_graph):
    rng = random.Random(5)
    stream = Stream()
    expected: dict[str, list[float]] = {}
    for _ in range(20):
        bundle = [(f"device-{rng.randrange(300)}", rng.randrange(100) / 4, rng.uniform(0, 14)) for _ in range(100)]
        for device, value, _ in bundle:
            expected.setdefault(device, []).append(value)
        stream.add(*(message(at, Device=device, Temp=value) for device, value, at in bundle))
    stream.watermark(30).add(message(3, Device="device-7", Temp=1.0), message(3, Device="new", Temp=2.0))
    rows, dead_letters = run_graph(stream, "--group_by_device=true")
    assert {row["Device"]: row["Temp"] for row in rows} == {
        device: sum(values) / len(values) for device, values in expected.items()
    }
    assert len(rows) == len(expected)
    assert sorted((dead_letter["error"], dead_letter["device"]) for dead_letter in dead_letters) == [
        ("Late", "device-7"),
        ("Late", "new"),
    ]


def test_merge_devices_neither_changes_nor_shares_added_sums():
    merge = partial(merge_devices, MEANS.merge)
    one = {"a": {"Temp": [1.0, 1]}}
    merged = CombineSums(merge).merge_accumulators([one, one, {"b": {"Temp": [5.0, 2]}}])
    assert merged == {"a": {"Temp": [2.0, 2]}, "b": {"Temp": [5.0, 2]}}
    assert one == {"a": {"Temp": [1.0, 1]}}
