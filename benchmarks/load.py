"""Realistic messages: readings a millisecond apart, a few of them bad, a few of them out of order."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
INTERVAL = 15  # seconds

BAD = 0.01
OUT_OF_ORDER = 0.02


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
      bundle: messages per bundle.
      packed: readings per message; 1 is a bare object, more are an array.
      devices: how many send in turn; with more than one, each has its own row per interval.
      size: bytes per reading, roughly.
    """

    bundle: int = 1000
    packed: int = 1
    devices: int = 1
    size: int = 100

    @property
    def by_device(self) -> bool:
        """Whether each device has its own rows."""
        return self.devices > 1

    def __str__(self) -> str:
        return f"{self.bundle:,} x {self.packed}, devices: {self.devices:,}, {self.size} B"


def messages(load: Load, count: int, start: float, seed: int = 7) -> Iterator[tuple[float, bytes]]:
    """Yield `count` messages as (publish time, data); times are seconds since the epoch, from `start` on."""
    rng = random.Random(seed)
    for number in range(count):
        first = number * load.packed
        items = [_reading(rng, load, start + index / 1000) for index in range(first, first + load.packed)]
        document: Any = items if load.packed > 1 else items[0]
        yield start + (first + load.packed) / 1000, json.dumps(document).encode()


def _reading(rng: random.Random, load: Load, moment: float) -> dict[str, Any]:
    if rng.random() < OUT_OF_ORDER:
        moment -= rng.uniform(0.1, 2)
    stamp = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # Quarters, so that sums are exact in whatever order they are made.
    temp, pressure = rng.randrange(80, 100) / 4, rng.randrange(4000, 4100) / 4
    reading = {"Timestamp": stamp, "Device": f"device-{rng.randrange(load.devices)}", "Temp": temp, "AtmP": pressure}
    if load.size > 100:
        reading |= {f"Other{number}": "x" * 25 for number in range((load.size - 100) // 39)}
    if rng.random() < BAD:
        reading |= rng.choice([{"Timestamp": None}, {"Timestamp": "yesterday"}, {"Temp": "warm"}, {"AtmP": "n/a"}])
    return reading
