"""Simulated sensor readings: a base level, a daily cycle, a slow drift and noise.

A value is a pure function of seed, device, sensor and event time, so that a run can be repeated, resumed and checked.
"""

import hashlib
import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SQRT_3 = math.sqrt(3)
FOUR_NUMBERS = struct.Struct(">4I")

# A sensor's name becomes a column, so it must be a valid column name, and not one of these.
SENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
TAKEN_NAMES = {"timestamp", "device"}


@dataclass(frozen=True)
class Curve:
    """The values of one kind of sensor over time. All levels are in the sensor's unit.

    Attributes:
        base: the middle level.
        device_offset: the most by which the level of a device is above or below `base`.
        daily: the amplitude of a sine with `cycles` peaks a day, one of them at `peak_hour` UTC.
        drift: the amplitude of a sine of `drift_days` days, whose phase differs per device.
        noise: the standard deviation of normally distributed noise.
        leak_per_day: a steady loss per day, which is restored once a week.
        low, high: limits of the value.
    """

    base: float
    device_offset: float
    daily: float
    peak_hour: float
    drift: float
    noise: float
    cycles: int = 1
    drift_days: float = 5.3
    leak_per_day: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def value(self, seed: int, device: str, sensor: str, time_ms: int) -> float:
        """Return the value at `time_ms` (milliseconds since 1970 UTC), to two decimals."""
        offset, phase = _character(seed, device, sensor)
        days = time_ms / DAY_MS
        level = (
            self.base
            + self.device_offset * (2 * offset - 1)
            + self.daily * math.cos(math.tau * self.cycles * (days - self.peak_hour / 24))
            + self.drift * math.sin(math.tau * (days / self.drift_days + phase))
            - self.leak_per_day * (days % 7)
            # The sum of four uniforms is close to a normal distribution; its variance is 4/12.
            + self.noise * (sum(_draw(f"{seed}/{device}/{sensor}/{time_ms}")) / 2**32 - 2) * SQRT_3
        )
        return round(min(max(level, self.low), self.high), 2)


CURVES = {
    # Pressure of a sealed room above its surroundings, in Pa; it leaks, and is restored once a week.
    "Airtight": Curve(50, 4, daily=1.5, peak_hour=15, drift=1, noise=0.4, leak_per_day=2, low=0),
    # Air pressure in hPa, with the two atmospheric tides of a day.
    "AtmP": Curve(1013, 0.6, daily=0.9, peak_hour=10, drift=7, noise=0.1, cycles=2),
    # Water content of the air as relative humidity in %; driest when it is warmest.
    "H2OC": Curve(45, 3, daily=6, peak_hour=3, drift=5, noise=0.5, low=0, high=100),
    # Air temperature in degrees Celsius.
    "Temp": Curve(21, 0.8, daily=2.5, peak_hour=15, drift=1, noise=0.08),
}
# Any other sensor: no unit, around 50.
GENERIC = Curve(50, 5, daily=10, peak_hour=12, drift=5, noise=1)


class Reading(NamedTuple):
    """One sensor of one device, read at `time_ms` (event time, milliseconds since 1970 UTC); `number` counts from 0."""

    number: int
    device: str
    sensor: str
    time_ms: int
    value: float

    @property
    def timestamp(self) -> str:
        """The event time as RFC 3339 in UTC with milliseconds: `2026-11-22T13:00:01.250Z`."""
        return rfc3339(self.time_ms)


def readings(
    sensors: Sequence[str], *, devices: int, rate: float, start_ms: int, total: int | None, seed: int
) -> Iterator[Reading]:
    """Yield `total` readings (None: endlessly), `rate` per second of event time from `start_ms` on.

    The order is: one reading of each sensor of device-1, then of each sensor of device-2, and so on.
    """
    for number in count() if total is None else range(total):
        turn, place = divmod(number, len(sensors))
        device, sensor = f"device-{turn % devices + 1}", sensors[place]
        # Computed from the number, not from the previous reading, so that rounding errors do not accumulate.
        time_ms = start_ms + round(number * 1000 / rate)
        yield Reading(number, device, sensor, time_ms, CURVES.get(sensor, GENERIC).value(seed, device, sensor, time_ms))


def rfc3339(time_ms: int) -> str:
    """Format milliseconds since 1970 UTC as RFC 3339, always of the same length: `2026-11-22T13:00:01.250Z`."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"


# Successive readings share their second; those that are held back differ, but there are few of them at a time.
@lru_cache(maxsize=100)
def _second(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


@lru_cache(maxsize=100_000)
def _character(seed: int, device: str, sensor: str) -> tuple[float, float]:
    """Return two numbers in [0, 1) that are constant for one sensor of one device."""
    offset, phase, _, _ = _draw(f"{seed}/{device}/{sensor}")
    return offset / 2**32, phase / 2**32


def _draw(key: str) -> tuple[int, int, int, int]:
    """Return four integers from 0 to 2**32 - 1 that depend only on `key`, and are the same on every machine."""
    return FOUR_NUMBERS.unpack(hashlib.blake2b(key.encode(), digest_size=FOUR_NUMBERS.size).digest())
