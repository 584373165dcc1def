"""What goes wrong between a sensor and its topic, on purpose and repeatably.

    late          held back for about `late_by` seconds, with its original stamp
    duplicate     sent a second time within 2 s, with the same reading_id
    malformed     data that is no reading, in one of the ways of MALFORMED
    out_of_order  held back for a fraction of a second up to 2 s
    skew          stamped a year ahead, or in 1970 because seconds were taken for milliseconds
    dropout       the last of its device for `dropout_for` seconds of event time; what follows is never sent
    burst         every 10 s so many readings are held back until the last of them, then sent at once

All but burst are probabilities per reading, and a reading has one of them at most. With one of the first five it goes
out in a message of its own, so that readings packed together are good and of one moment. A reading of a burst that has
none of its own is marked "burst".
"""

import heapq
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from publisher.messages import Message, encode
from publisher.sensors import Reading

PER_READING = ("late", "duplicate", "malformed", "out_of_order", "skew")
DRAWN = (*PER_READING, "dropout")
BURST_EVERY_MS = 10_000
SHORT_HOLD_MS = (100, 2000)
LATE_SPREAD = (0.75, 1.25)
YEAR_MS = 365 * 24 * 3_600_000

Content = dict[str, Any]


def _stamped(timestamp: Any) -> Callable[[Content], bytes]:
    return lambda content: _json({**content, "Timestamp": timestamp})


def _valued(value: Any) -> Callable[[Content], bytes]:
    # The sensor is the last key.
    return lambda content: _json({**content, list(content)[-1]: value})


def _numbered(text: bytes) -> Callable[[Content], bytes]:
    return lambda content: _valued(12345)(content).replace(b"12345", text)


def _json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


MALFORMED: Mapping[str, Callable[[Content], bytes]] = {
    "not_utf8": lambda content: _json(content).replace(b"device", b"d\xe9vice"),
    "not_json": lambda content: _json(content)[:-1],
    "not_an_object": lambda content: _json("hello"),
    "empty_array": lambda content: b"[]",
    "no_timestamp": lambda content: _json({key: content[key] for key in content if key != "Timestamp"}),
    "null_timestamp": _stamped(None),
    "unreadable_timestamp": _stamped("half past noon"),
    "timestamp_without_offset": _stamped("2026-11-22T13:00:00"),
    "unknown_sensor": lambda content: _json({key: content[key] for key in ("Timestamp", "Device")} | {"Unknown": 1.5}),
    "text_value": _valued("21.4"),
    "null_value": _valued(None),
    "true_value": _valued(True),
    "nan_value": _numbered(b"NaN"),
    "huge_value": _numbered(b"1e999"),
    "numeric_device": lambda content: _json({**content, "Device": 7}),
}


def parse(text: str) -> dict[str, float]:
    """Read `late=0.01,burst=100`.

    Raises:
        ValueError: one line that says what is wrong with it.
    """
    rates: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in (*DRAWN, "burst"):
            raise ValueError(f"{name!r} is not a fault; choose from {', '.join(DRAWN)} and burst")
        if name in rates:
            raise ValueError(f"{name!r} is given twice")
        rates[name] = _burst(number) if name == "burst" else _rate(name, number)
    if sum(rates.get(name, 0) for name in DRAWN) > 1:
        raise ValueError(f"the rates of {text!r} add up to more than 1, but a reading has one fault at most")
    return rates


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if 0 <= rate <= 1:
        return rate
    raise ValueError(f"{name}={text} is not a probability from 0 to 1")


def _burst(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise ValueError(f"burst={text} is not a whole number of readings from 1 to 1000000")


@dataclass(frozen=True)
class Faults:
    """What goes wrong with a run, repeatably: `rates` as `parse` returns them, times in seconds, `seed`."""

    rates: Mapping[str, float] = field(default_factory=dict)
    late_by: float = 60.0
    seed: int = 0
    dropout_for: float = 60.0

    def messages(self, readings: Iterable[Reading], run_id: str) -> Iterator[Message]:
        """Yield the messages of `readings` in the order in which they are due.

        What is held back comes between readings, once event time has got there, and the rest after the last reading.
        """
        if not self.rates:
            for reading in readings:
                yield encode(reading, run_id)
            return
        chance = random.Random(self.seed)
        held: list[tuple[int, int, Message]] = []
        silent_until: dict[str, float] = {}
        for number, (reading, fault) in enumerate(self._in_bursts(iter(readings))):
            while held and held[0][0] <= reading.time_ms:
                yield heapq.heappop(held)[-1]
            if reading.time_ms < silent_until.get(reading.device, 0):
                continue
            drawn = self._draw(chance)
            if drawn == "dropout":
                silent_until[reading.device] = reading.time_ms + self.dropout_for * 1000
            for message in self._spoil(reading, drawn or fault, run_id, chance):
                if message.due_ms > reading.time_ms:
                    heapq.heappush(held, (message.due_ms, number, message))
                else:
                    yield message
        while held:
            yield heapq.heappop(held)[-1]

    def _in_bursts(self, readings: Iterator[Reading]) -> Iterator[tuple[Reading, str | None]]:
        """Yield all readings, and "burst" with those that are gathered before they are yielded."""
        size = int(self.rates.get("burst", 0))
        next_ms = None
        for reading in readings:
            next_ms = next_ms or reading.time_ms + BURST_EVERY_MS
            if not size or reading.time_ms < next_ms:
                yield reading, None
            else:
                next_ms += BURST_EVERY_MS
                yield from [(gathered, "burst") for gathered in (reading, *islice(readings, size - 1))]

    def _draw(self, chance: random.Random) -> str | None:
        drawn = chance.random()
        for name in DRAWN:
            drawn -= self.rates.get(name, 0)
            if drawn < 0:
                return name
        return None

    def _spoil(self, reading: Reading, fault: str | None, run_id: str, chance: random.Random) -> list[Message]:
        message = encode(reading, run_id)
        if fault in (None, "burst", "dropout"):
            return [message._replace(fault=fault)]
        alone = message._replace(fault=fault, alone=True)
        if fault == "late":
            return [_hold(alone, self.late_by * 1000 * chance.uniform(*LATE_SPREAD))]
        if fault == "out_of_order":
            return [_hold(alone, chance.uniform(*SHORT_HOLD_MS))]
        if fault == "duplicate":
            return [alone._replace(fault=None), _hold(alone, chance.uniform(*SHORT_HOLD_MS))]
        if fault == "skew":
            stamp_ms = chance.choice((reading.time_ms + YEAR_MS, reading.time_ms // 1000))
            skewed = encode(reading._replace(time_ms=stamp_ms), run_id)
            return [alone._replace(data=skewed.data, attributes=skewed.attributes, reading=skewed.reading)]
        way = chance.choice(list(MALFORMED))
        return [alone._replace(data=MALFORMED[way](json.loads(message.data)), reading=None, fault=f"malformed: {way}")]


def _hold(message: Message, milliseconds: float) -> Message:
    return message._replace(due_ms=message.due_ms + round(milliseconds))
