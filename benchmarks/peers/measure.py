"""All engines side by side: rows compared first, then CPU time in alternating turns."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmarks.load import INTERVAL, Load
from benchmarks.peers.process import Checked, Process

# Whose check took longer than this many CPU seconds has turns of a third of the messages.
_LONG = 0.8

REFERENCE = "shipped local"  # whose rows the others' must equal; it keeps the dead letters, too


class DifferentRows(AssertionError):
    """Two forms do not make the same of the same messages."""


@dataclass(frozen=True)
class Measured:
    """One load, all forms.

    Attributes:
      load: what was sent.
      readings: how many of them.
      rows: how many rows they make.
      refused: how many of them are refused.
      turns: by form, how many of the readings are in a turn.
      seconds: by form, CPU seconds of a turn, one per round.
      start: by form, CPU seconds of a turn with the first message only, one per round.
    """

    load: Load
    readings: int
    rows: int
    refused: int
    turns: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    start: dict[str, list[float]] = field(default_factory=dict)

    def micros(self, form: str) -> list[float]:
        """Return the microseconds of CPU per reading without what the engine takes to start, one per round."""
        start = statistics.median(self.start[form])
        more = self.turns[form] - self.load.packed
        return [(seconds - start) / more * 1e6 for seconds in self.seconds[form]]

    def median(self, form: str) -> float:
        """Return the median of `micros`."""
        return statistics.median(self.micros(form))

    def ratios(self, form: str, to: str) -> list[float]:
        """Return how many times the CPU of `to` a form takes, in each round; sorted."""
        return sorted(mine / theirs for mine, theirs in zip(self.micros(form), self.micros(to), strict=True))


def measure(
    processes: Iterable[Process], load: Load, readings: int, rounds: int, progress: Callable[[], None]
) -> Measured:
    """Compare all forms of all engines under one load.

    Args:
      processes: one per engine.
      load: what to send.
      readings: to check, and in a turn at most.
      rounds: how often each form has its turn.
      progress: called after each check and each turn.

    Raises:
      DifferentRows: before anything is timed.
    """
    count = readings // load.packed
    forms = {form: process for process in processes for form in process.forms}
    # Ten minutes ago, so that no reading is in the future, and none so old that it might be late.
    start = time.time() // INTERVAL * INTERVAL - 600
    results = {}
    for process in dict.fromkeys(forms.values()):
        process.prepare(load, count, start)
    for form, process in forms.items():
        results[form] = process.check(form)
        progress()
    compare(load, results)

    expected = results[REFERENCE]
    measured = Measured(load, count * load.packed, len(expected.rows), expected.refused)
    counts = {form: count if result.cpu < _LONG else count // 3 for form, result in results.items()}
    measured.turns.update((form, messages * load.packed) for form, messages in counts.items())
    for _ in range(rounds):
        for form, process in forms.items():
            measured.start.setdefault(form, []).append(process.time(form, 1))
            measured.seconds.setdefault(form, []).append(process.time(form, counts[form]))
            progress()
    return measured


def compare(load: Load, results: dict[str, Checked]) -> None:
    """Hold each form's rows, number refused and dead letters against the reference's.

    Raises:
      DifferentRows: they are not equal.
    """
    expected = results[REFERENCE]
    for form, result in results.items():
        if result.rows != expected.rows:
            raise DifferentRows(
                f"{load}: {form} makes other rows than {REFERENCE}: {len(result.rows)} and {len(expected.rows)}"
            )
        if result.refused != expected.refused or result.payloads not in (None, expected.payloads):
            raise DifferentRows(
                f"{load}: {form} refuses {result.refused} readings, {REFERENCE} {expected.refused}, or not the same"
            )
