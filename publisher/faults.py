"""Faults that are injected between a sensor and its topic, the same ones for the same seed.

    late          held back for about `late_by` seconds, with its original timestamp
    duplicate     sent a second time within 2 s, with the same reading_id
    malformed     data that is not a reading, in one of the variants of MALFORMED
    out_of_order  held back for 0.1 to 2 s
    skew          with a timestamp a year ahead, or in 1970 as if seconds were milliseconds
    dropout       the last reading of its device for `dropout_for` seconds of event time; the next ones are not sent
    burst         every 10 s that many readings are held back until the last of them, then sent at once

All but burst are probabilities per reading, and a reading has at most one of them. A reading with one of the first five
has a message to itself, so that packed readings are always good and of the same moment. A reading in a burst without
another fault is marked "burst".
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


def _with_timestamp(timestamp: Any) -> Callable[[Content], bytes]:
    return lambda content: _json({**content, "Timestamp": timestamp})


def _with_value(value: Any) -> Callable[[Content], bytes]:
    # The sensor is the last key.
    return lambda content: _json({**content, list(content)[-1]: value})


def _with_number(text: bytes) -> Callable[[Content], bytes]:
    return lambda content: _with_value(12345)(content).replace(b"12345", text)


def _json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


MALFORMED: Mapping[str, Callable[[Content], bytes]] = {
    "not_utf8": lambda content: _json(content).replace(b"device", b"d\xe9vice"),
    "not_json": lambda content: _json(content)[:-1],
    "not_an_object": lambda content: _json("hello"),
    "empty_array": lambda content: b"[]",
    "no_timestamp": lambda content: _json({key: content[key] for key in content if key != "Timestamp"}),
    "null_timestamp": _with_timestamp(None),
    "unreadable_timestamp": _with_timestamp("half past noon"),
    "timestamp_without_offset": _with_timestamp("2026-11-22T13:00:00"),
    "unknown_sensor": lambda content: _json({key: content[key] for key in ("Timestamp", "Device")} | {"Unknown": 1.5}),
    "text_value": _with_value("21.4"),
    "null_value": _with_value(None),
    "true_value": _with_value(True),
    "nan_value": _with_number(b"NaN"),
    "huge_value": _with_number(b"1e999"),
    "numeric_device": lambda content: _json({**content, "Device": 7}),
}


def parse(text: str) -> dict[str, float]:
    """Parse rates such as `late=0.01,burst=100`.

    Raises:
        ValueError: they are wrong; the message is one line.
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
    """The faults of a run: `rates` as `parse` returns them, and times in seconds."""

    rates: Mapping[str, float] = field(default_factory=dict)
    late_by: float = 60.0
    seed: int = 0
    dropout_for: float = 60.0

    def messages(self, readings: Iterable[Reading], run_id: str) -> Iterator[Message]:
        """Yield the messages of `readings` in the order in which they are due.

        A message that is held back is yielded once event time has reached its due time, or after the last reading.
        """
        if not self.rates:
            for reading in readings:
                yield encode(reading, run_id)
            return
        rng = random.Random(self.seed)
        held: list[tuple[int, int, Message]] = []
        silent_until: dict[str, float] = {}
        for number, (reading, fault) in enumerate(self._in_bursts(iter(readings))):
            while held and held[0][0] <= reading.time_ms:
                yield heapq.heappop(held)[-1]
            if reading.time_ms < silent_until.get(reading.device, 0):
                continue
            drawn = self._draw(rng)
            if drawn == "dropout":
                silent_until[reading.device] = reading.time_ms + self.dropout_for * 1000
            for message in self._apply(reading, drawn or fault, run_id, rng):
                if message.due_ms > reading.time_ms:
                    heapq.heappush(held, (message.due_ms, number, message))
                else:
                    yield message
        while held:
            yield heapq.heappop(held)[-1]

    def _in_bursts(self, readings: Iterator[Reading]) -> Iterator[tuple[Reading, str | None]]:
        """Yield each reading with "burst" or None; those of a burst are all read before the first is yielded."""
        size = int(self.rates.get("burst", 0))
        next_ms = None
        for reading in readings:
            next_ms = next_ms or reading.time_ms + BURST_EVERY_MS
            if not size or reading.time_ms < next_ms:
                yield reading, None
            else:
                next_ms += BURST_EVERY_MS
                yield from [(one, "burst") for one in (reading, *islice(readings, size - 1))]

    def _draw(self, rng: random.Random) -> str | None:
        drawn = rng.random()
        for name in DRAWN:
            drawn -= self.rates.get(name, 0)
            if drawn < 0:
                return name
        return None

    def _apply(self, reading: Reading, fault: str | None, run_id: str, rng: random.Random) -> list[Message]:
        """Return the messages of a reading with this fault: two for a duplicate, else one."""
        message = encode(reading, run_id)
        if fault in (None, "burst", "dropout"):
            return [message._replace(fault=fault)]
        alone = message._replace(fault=fault, alone=True)
        if fault == "late":
            return [_hold(alone, self.late_by * 1000 * rng.uniform(*LATE_SPREAD))]
        if fault == "out_of_order":
            return [_hold(alone, rng.uniform(*SHORT_HOLD_MS))]
        if fault == "duplicate":
            return [alone._replace(fault=None), _hold(alone, rng.uniform(*SHORT_HOLD_MS))]
        if fault == "skew":
            time_ms = rng.choice((reading.time_ms + YEAR_MS, reading.time_ms // 1000))
            skewed = encode(reading._replace(time_ms=time_ms), run_id)
            return [alone._replace(data=skewed.data, attributes=skewed.attributes, reading=skewed.reading)]
        variant = rng.choice(list(MALFORMED))
        data = MALFORMED[variant](json.loads(message.data))
        return [alone._replace(data=data, reading=None, fault=f"malformed: {variant}")]


def _hold(message: Message, milliseconds: float) -> Message:
    return message._replace(due_ms=message.due_ms + round(milliseconds))
