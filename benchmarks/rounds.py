"""Contenders take short turns, one round after the other: what every benchmark of CPU time here is made of.

Not pyperf, nor other tools that let one contender finish, in processes of its own, before the next begins: the machine
drifts by a factor of two within minutes, so a ratio is only good between turns that were a moment apart.
"""

import logging
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

QUICK = os.environ.get("BENCH_QUICK") == "1"

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class DifferentRows(AssertionError):
    """Two contenders do not make the same rows of the same messages."""


def settle() -> None:
    """Keep this process on one core, and Beam from logging."""
    logging.disable(logging.WARNING)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def take_turns(contenders: Mapping[K, Callable[[], T]], rounds: int, warm_up: int = 0) -> dict[K, list[T]]:
    """Return what each contender returns in its turns, one per round, but for so many rounds of warming up."""
    found: dict[K, list[T]] = {name: [] for name in contenders}
    for number in range(-warm_up, rounds):
        for name, turn in contenders.items():
            result = turn()
            if number >= 0:
                found[name].append(result)
    return found


def cpu_micros(calls: Sequence[Callable[[], object]], each: float, seconds: float = 0) -> float:
    """Return the microseconds of CPU per reading, of which a call takes `each`; in turn, until `seconds` are over."""
    done = 0
    start = now = time.process_time()
    while not done or now - start < seconds:
        calls[done % len(calls)]()
        done += 1
        now = time.process_time()
    return (now - start) / (done * each) * 1e6


def ratios(rounds: Mapping[K, Sequence[float]], name: K, to: K) -> list[float]:
    """Return how many times the figure of `to` a contender's is, in each round."""
    return [mine / theirs for mine, theirs in zip(rounds[name], rounds[to], strict=True)]
