"""Realistic messages: readings of a few sensors, a few of them bad, a few of them out of order."""

import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
INTERVAL = 15  # seconds

OUT_OF_ORDER = 0.02

_SECOND = 1_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Load:
    """The messages of a benchmark, and the parameters of the pipeline."""

    bundle: int = 1000  # messages per bundle
    packed: int = 1  # readings per message; 1 is a bare object, more are an array
    devices: int = 1  # how many send; with more than one, each has its own row per interval
    size: int = 100  # bytes per reading, roughly
    bad: float = 0.01  # the part of the readings that is invalid
    sensors: tuple[str, ...] = SENSORS  # those configured; a reading has every second one
    in_turn: int = 0  # sensors of a reading, in turn; devices take turns too, all valid and in order; 0 for neither
    rate: float = 1000  # readings per second of event time
    flags: tuple[str, ...] = ()  # more of the pipeline's parameters

    @property
    def readings(self) -> int:
        """Readings per bundle."""
        return self.bundle * self.packed

    @property
    def by_device(self) -> bool:
        """Whether each device has its own rows."""
        return self.devices > 1

    def differs_in(self, field: str) -> bool:
        """Whether no other field differs from the default load."""
        return self == Load(**{field: getattr(self, field)})

    def __str__(self) -> str:
        return f"{self.bundle:,} x {self.packed}, devices: {self.devices:,}, {self.size} B"


def messages(load: Load, count: int, start: float) -> Iterator[tuple[float, bytes]]:
    """Yield `count` messages as (publish time, data), generated on demand.

    Times are seconds since the epoch, from `start` on.
    """
    readings = _readings(load, start)
    for number in range(1, count + 1):
        items = ", ".join(itertools.islice(readings, load.packed))
        yield start + number * load.packed / load.rate, (f"[{items}]" if load.packed > 1 else items).encode()


def bundles(load: Load, count: int, start: float) -> Iterator[list[tuple[float, bytes]]]:
    """Yield so many bundles of `messages`, generated on demand."""
    sent = messages(load, count * load.bundle, start)
    return (list(itertools.islice(sent, load.bundle)) for _ in range(count))


def past(seconds: float = 600, multiple_of: int = 60) -> float:
    """Return a time at least so many seconds ago, a multiple of `multiple_of` seconds since the epoch.

    The default is not so recent that a reading is in the future, nor so old that one might be late.
    """
    return (time.time() - seconds) // multiple_of * multiple_of


def _readings(load: Load, start: float) -> Iterator[str]:
    rng = random.Random(7)
    # Values need not differ as Timestamps do; 64 variants for each sensor are enough.
    variants = [_values(load, rng, number) for number in range(64 * len(load.sensors))]
    first, step = round(start * _SECOND), _SECOND / load.rate
    for number in itertools.count():
        at, device = first + int(number * step), number % load.devices
        if not load.in_turn:
            device = rng.randrange(load.devices)
            if rng.random() < OUT_OF_ORDER:
                at -= rng.randrange(100, 2000) * 1000
        moment = _EPOCH + timedelta(microseconds=at)
        stamp = moment.isoformat(timespec="microseconds" if at % 1000 else "milliseconds")
        values = variants[number % len(variants)]
        reading = f'{{"Timestamp": "{stamp}Z", "Device": "device-{device}", {values}}}'
        yield _spoiled(rng, reading) if not load.in_turn and rng.random() < load.bad else reading


def _values(load: Load, rng: random.Random, number: int) -> str:
    if load.in_turn:
        places = range(number * load.in_turn, (number + 1) * load.in_turn)
        present = [load.sensors[place % len(load.sensors)] for place in places]
    else:
        present = list(load.sensors[1::2])
    # Quarters, like a sensor with a resolution: their sums are exact in any order.
    values = {name: rng.randrange(80, 4100) / 4 for name in present}
    others = {f"Other{number}": "x" * 25 for number in range((load.size - 100) // 39)}
    return json.dumps(values | others, allow_nan=False)[1:-1]


def _spoiled(rng: random.Random, reading: str) -> str:
    """Return a reading of which nothing counts; one bad value among good ones would be a dead letter of its own."""
    fields = json.loads(reading)
    sensors = [name for name, value in fields.items() if isinstance(value, float)]
    how = rng.choice([{"Timestamp": None}, {"Timestamp": "yesterday"}, dict.fromkeys(sensors, "warm")])
    return json.dumps(fields | how, allow_nan=False)
