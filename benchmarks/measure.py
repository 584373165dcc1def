"""Contenders side by side: rows compared first, then CPU time in alternating slices."""

import statistics
import time
from dataclasses import dataclass

from benchmarks.contenders import NAMES, Contender, Result
from benchmarks.load import INTERVAL, Load, messages

# Messages made per load, at least, and bundles: small bundles would otherwise all be alike.
_MESSAGES = 2_000
_BUNDLES = 2


@dataclass(frozen=True)
class Measured:
    """One load, all contenders.

    Attributes:
      load: what was sent.
      readings: how many readings the results are of.
      results: by contender.
      micros: by contender, microseconds of CPU per reading, one per round.
    """

    load: Load
    readings: int
    results: dict[str, Result]
    micros: dict[str, list[float]]

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


def measure(load: Load, rounds: int, seconds: float) -> Measured:
    """Compare all contenders under one load.

    Args:
      load: what to send.
      rounds: how often each has its turn.
      seconds: of CPU time, for each turn; whole bundles, so at least one.

    Raises:
      DifferentRows: before anything is timed.
    """
    count = -(-max(_MESSAGES, _BUNDLES * load.bundle) // load.bundle) * load.bundle
    # Ten minutes ago, so that no reading is in the future, and none so old that it might be late.
    sent = list(messages(load, count, time.time() // INTERVAL * INTERVAL - 600))
    bundles = [sent[start : start + load.bundle] for start in range(0, count, load.bundle)]
    contenders = [Contender(name, load) for name in NAMES]
    prepared = {contender.name: contender.prepare(bundles) for contender in contenders}
    results = {contender.name: contender.result(prepared[contender.name]) for contender in contenders}
    _compare(load, results)

    per_bundle = load.bundle * load.packed
    micros: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        for contender in contenders:
            micros[contender.name].append(_turn(contender, prepared[contender.name], seconds) / per_bundle * 1e6)
    return Measured(load, count * load.packed, results, micros)


def _turn(contender: Contender, prepared: list, seconds: float) -> float:
    """Return the CPU seconds per bundle."""
    run = contender.run
    done = 0
    start = now = time.process_time()
    while not done or now - start < seconds:
        run(prepared[done % len(prepared)])
        done += 1
        now = time.process_time()
    return (now - start) / done


def _compare(load: Load, results: dict[str, Result]) -> None:
    expected = results["seed"]
    for name, result in results.items():
        if result.rows is not None and (result.rows, result.bad) != (expected.rows, expected.bad):
            raise DifferentRows(f"{load}: {name} and seed differ: {result.bad} and {expected.bad} refused")
