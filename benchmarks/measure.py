"""All contenders under one load: rows compared first, then CPU time in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.contenders import NAMES, Contender, Result
from benchmarks.load import Load, bundles, past
from benchmarks.rounds import DifferentRows, cpu_micros, take_turns

# Readings made per load, at least, so that an interval is as full as it would be; and bundles.
READINGS = 15_000
_BUNDLES = 2

Call = Callable[[], object]


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

    @property
    def records_ratio(self) -> float:
        """How many records the seed shuffles for one of the shipped graph."""
        return self.results["seed"].shuffled / self.results["shipped"].shuffled


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
    count = max(_BUNDLES, -(-readings // load.readings))
    sent = list(bundles(load, count, past()))
    made = count * load.readings
    results, turns = {}, {}
    for name in NAMES:
        contender = Contender(name, load)
        prepared = [contender.prepare(bundle) for bundle in sent]
        left = [contender.run(bundle) for bundle in prepared]
        results[name] = contender.result(left)
        calls = [partial(contender.run, bundle) for bundle in prepared]
        turns[name] = partial(_turn, calls, contender.after(left), load.readings, len(sent), seconds)
    compare(load, results)
    found = take_turns(turns, rounds)
    micros = {name: [before + after for before, after in turn] for name, turn in found.items()}
    return Measured(load, made, results, micros, {name: [after for _, after in turn] for name, turn in found.items()})


def _turn(
    calls: Sequence[Call], after: Sequence[Call], readings: int, bundles: int, seconds: float
) -> tuple[float, float]:
    """Return the microseconds per reading up to the first shuffle, and after it."""
    from_there = (cpu_micros([call], readings * bundles, seconds / 10) for call in after)
    return cpu_micros(calls, readings, seconds), sum(from_there)


def compare(load: Load, results: Mapping[str, Result]) -> None:
    """Raise DifferentRows unless all make the same rows, and refuse as many; the floor makes none."""
    expected = results["seed"]
    for name, result in results.items():
        if name != "floor" and (result.rows, result.bad) != (expected.rows, expected.bad):
            raise DifferentRows(f"{load}: {name} and seed differ: {result.bad} and {expected.bad} refused")
