"""A backlog older than the allowed lateness, with slow steps, on an engine that runs steps concurrently."""

import functools
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.windows import fixed
from tests.pipeline.conftest import Stream, message, run_captured

HOUR, MINUTE = 3600, 60


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes every ninth element of the two steps of the expiry path take 50 ms; returns the steps that did."""
    slowed: list[str] = []
    calls = itertools.count(1)

    def slow(shipped: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(shipped)  # Beam reads the signature
        def process(self: Any, *arguments: Any, **named: Any) -> Any:
            if next(calls) % 9 == 0:
                slowed.append(type(self).__name__)
                time.sleep(0.05)
            return shipped(self, *arguments, **named)

        return process

    for step in (fixed._AssignExpiryWindow, fixed._SplitExpired):
        monkeypatch.setattr(step, "process", slow(step.process))
    return slowed


def test_backlog_older_than_allowed_lateness_has_no_late_readings_on_slow_steps(slow_steps):
    # Two hours in bundles of five minutes, each of them read before the watermark passes the end of its own readings.
    rng = random.Random(5)
    stream, expected = Stream(), {}
    for start in range(0, 2 * HOUR, 5 * MINUTE):
        values = {(start + second): float(rng.randrange(1000)) for second in range(0, 5 * MINUTE, 15)}
        stream.add(*(message(second, Temp=value) for second, value in values.items()))
        for minute in range(start, start + 5 * MINUTE, MINUTE):
            expected[minute] = sum(values[second] for second in range(minute, minute + MINUTE, 15)) / 4
        stream.watermark(start + 5 * MINUTE - 0.001)
    rows, dead_letters = run_captured(stream.end(), "--interval=60s", "--grace_period=0s", "--allowed_lateness=1m")
    assert dead_letters == []
    assert [row["Temp"] for row in rows] == list(expected.values())
    assert set(slow_steps) == {"_AssignExpiryWindow", "_SplitExpired"}
