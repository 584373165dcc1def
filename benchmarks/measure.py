"""Contenders side by side: rows compared first, then CPU time in alternating slices."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.contenders import NAMES, Contender, Result
from benchmarks.load import INTERVAL, Load, messages

# Readings made per load, at least, so that an interval is as full as it would be; and bundles.
READINGS = 15_000
_BUNDLES = 2


@dataclass(frozen=True)
class Measured:
    """One load, all contenders.

    Attributes:
      load: what was sent.
      readings: how many readings the results are of.
      results: by contender.
      micros: by contender, microseconds of CPU per reading, one per round.
      after: by contender, how much of that is after the shuffle.
    """

    load: Load
    readings: int
    results: dict[str, Result]
    micros: dict[str, list[float]]
    after: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the microseconds of CPU per reading of a contender."""
        return statistics.median(self.micros[name])

    def ratios(self, name: str, to: str) -> list[float]:
        """Return how many times the CPU of `to` a contender takes, in each round; sorted."""
        return sorted(mine / theirs for mine, theirs in zip(self.micros[name], self.micros[to], strict=True))

    def records_ratio(self) -> float:
        """Return how many records the seed shuffles for one of the shipped graph."""
        return self.results["seed"].shuffled / self.results["shipped"].shuffled


class DifferentRows(AssertionError):
    """Two contenders do not make the same rows of the same messages."""


def measure(load: Load, rounds: int, seconds: float, readings: int = READINGS) -> Measured:
    """Compare all contenders under one load.

    Args:
      load: what to send.
      rounds: how often each has its turn.
      seconds: of CPU time, for each turn; whole bundles, so at least one.
      readings: to send, at least.

    Raises:
      DifferentRows: before anything is timed.
    """
    bundles_made = max(_BUNDLES, -(-readings // (load.bundle * load.packed)))
    count = bundles_made * load.bundle
    # Ten minutes ago, so that no reading is in the future, and none so old that it might be late.
    sent = list(messages(load, count, time.time() // INTERVAL * INTERVAL - 600))
    bundles = [sent[start : start + load.bundle] for start in range(0, count, load.bundle)]
    contenders = [Contender(name, load) for name in NAMES]
    prepared = {contender.name: contender.prepare(bundles) for contender in contenders}
    results = {contender.name: contender.result(prepared[contender.name]) for contender in contenders}
    _compare(load, results)

    made = count * load.packed
    calls = {
        contender.name: (
            [partial(contender.run, bundle) for bundle in prepared[contender.name]],
            contender.after(prepared[contender.name]),
        )
        for contender in contenders
    }
    micros: dict[str, list[float]] = {name: [] for name in NAMES}
    after: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        for name, (to_the_shuffle, from_there) in calls.items():
            late = sum(turn([call], seconds / 10) for call in from_there) / made * 1e6
            micros[name].append(turn(to_the_shuffle, seconds) / made * len(bundles) * 1e6 + late)
            after[name].append(late)
    return Measured(load, made, results, micros, after)


def turn(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Return the CPU seconds of one call; they take turns until `seconds` are over."""
    done = 0
    start = now = time.process_time()
    while not done or now - start < seconds:
        calls[done % len(calls)]()
        done += 1
        now = time.process_time()
    return (now - start) / done


def _compare(load: Load, results: dict[str, Result]) -> None:
    expected = results["seed"]
    for name, result in results.items():
        if result.rows is not None and (result.rows, result.bad) != (expected.rows, expected.bad):
            raise DifferentRows(f"{load}: {name} and seed differ: {result.bad} and {expected.bad} refused")
