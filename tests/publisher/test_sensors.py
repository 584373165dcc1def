from dataclasses import replace
from datetime import UTC, datetime
from statistics import fmean

import pytest

from publisher.sensors import CURVES, GENERIC, readings

NOON = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


def plan(sensors=("Temp",), devices=1, rate=10.0, start_ms=NOON, total=10, seed=1):
    return list(readings(sensors, devices=devices, rate=rate, start_ms=start_ms, total=total, seed=seed))


def hourly(curve, sensor, days=1, device="device-1"):
    return [curve.value(1, device, sensor, NOON // HOUR * HOUR + hour * HOUR) for hour in range(24 * days)]


class TestReadings:
    def test_go_through_the_sensors_of_each_device_in_turn(self):
        assert [(one.device, one.sensor) for one in plan(["A", "B"], devices=2, total=5)] == [
            ("device-1", "A"),
            ("device-1", "B"),
            ("device-2", "A"),
            ("device-2", "B"),
            ("device-1", "A"),
        ]

    def test_are_spaced_by_the_rate(self):
        assert [one.time_ms - NOON for one in plan(rate=10, total=4)] == [0, 100, 200, 300]

    def test_do_not_drift_when_the_rate_does_not_divide_a_second(self):
        times = [one.time_ms - NOON for one in plan(rate=3, total=3001)]
        assert times[:4] == [0, 333, 667, 1000]
        assert times[3000] == 1_000_000

    def test_have_rfc3339_timestamps_with_milliseconds(self):
        first, second = plan(rate=0.8, total=2)
        assert first.timestamp == "2026-11-22T12:00:00.000Z"
        assert second.timestamp == "2026-11-22T12:00:01.250Z"

    def test_are_equal_for_the_same_seed(self):
        assert plan(["Temp", "Other"], devices=3, total=50) == plan(["Temp", "Other"], devices=3, total=50)

    def test_differ_for_another_seed(self):
        assert [one.value for one in plan(seed=1)] != [one.value for one in plan(seed=2)]

    def test_do_not_depend_on_the_start_of_the_run(self):
        all_readings = plan(total=20)
        resumed = plan(start_ms=all_readings[10].time_ms, total=10)
        assert [one.value for one in resumed] == [one.value for one in all_readings[10:]]


class TestCurves:
    @pytest.mark.parametrize(
        ("sensor", "lowest", "highest"),
        [("Airtight", 25, 60), ("AtmP", 1003, 1023), ("H2OC", 28, 62), ("Temp", 15, 27)],
    )
    def test_stay_near_their_level_for_a_month(self, sensor, lowest, highest):
        values = hourly(CURVES[sensor], sensor, days=30)
        assert lowest < min(values)
        assert max(values) < highest

    def test_temperature_peaks_in_the_afternoon_and_humidity_before_dawn(self):
        # hourly() starts at 12:00, so 15:00 is item 3 and 03:00 is item 15.
        temperature, humidity = hourly(CURVES["Temp"], "Temp"), hourly(CURVES["H2OC"], "H2OC")
        assert temperature[3] - temperature[15] > 3
        assert humidity[15] - humidity[3] > 6

    def test_airtight_leaks_by_its_daily_loss(self):
        leak_only = replace(CURVES["Airtight"], daily=0, drift=0, noise=0, device_offset=0)
        # 1970-01-01 was a Thursday; weeks counted from there begin on 2026-11-19.
        monday = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp() * 1000)
        assert [leak_only.value(1, "device-1", "Airtight", monday + day * 24 * HOUR) for day in range(4)] == [
            42.0,
            40.0,
            38.0,
            50.0,
        ]

    def test_values_stay_within_limits(self):
        assert replace(CURVES["H2OC"], base=120).value(1, "device-1", "H2OC", NOON) == 100
        assert replace(CURVES["H2OC"], base=-20).value(1, "device-1", "H2OC", NOON) == 0

    def test_noise_has_its_standard_deviation_and_no_bias(self):
        noisy = replace(GENERIC, base=0, device_offset=0, daily=0, drift=0, noise=2)
        values = [noisy.value(1, "device-1", "X", NOON + ms) for ms in range(4000)]
        assert fmean(values) == pytest.approx(0, abs=0.15)
        assert fmean(value**2 for value in values) == pytest.approx(4, rel=0.1)

    def test_levels_differ_between_devices(self):
        one, two = (fmean(hourly(CURVES["Temp"], "Temp", device=device)) for device in ("device-1", "device-2"))
        assert abs(one - two) > 0.05
