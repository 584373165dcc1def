"""All engines side by side under one load: outcomes compared first, then CPU time in turns."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.load import Load, past
from benchmarks.peers.engine import Outcome
from benchmarks.peers.process import Process
from benchmarks.rounds import DifferentRows, take_turns

# Whose check took longer than this many CPU seconds has turns of a third of the messages.
_LONG = 0.8

REFERENCE = "shipped local"  # whose rows the others' must equal; it keeps the dead letters, too


@dataclass(frozen=True)
class Measured:
    """One load, all forms.

    Attributes:
      load: what was sent.
      outcome: what the reference made of it.
      micros: by form, microseconds of CPU per reading without what the engine takes to start, one per round.
      start: by form, milliseconds of CPU that an engine takes for the first message alone, one per round.
    """

    load: Load
    outcome: Outcome
    micros: Mapping[str, list[float]]
    start: Mapping[str, list[float]]


def measure(processes: Iterable[Process], load: Load, readings: int, rounds: int) -> Measured:
    """Compare all forms of all engines under one load.

    Args:
      processes: one per engine.
      load: what to send.
      readings: to check, and in a turn at most.
      rounds: how often each form has its turn.

    Raises:
      DifferentRows: before anything is timed.
    """
    count, start = readings // load.packed, past()
    outcomes, counts, turns = {}, {}, {}
    for process in processes:
        process.ask("prepare", load, count, start)
        for form in process.forms:
            outcomes[form], cpu = process.ask("check", form)
            counts[form] = count if cpu < _LONG else count // 3
            turns[form] = partial(_turn, process, form, counts[form])
    compare(load, outcomes)
    found = take_turns(turns, rounds)
    micros = {form: per_reading(turns, (counts[form] - 1) * load.packed) for form, turns in found.items()}
    starts = {form: [first * 1e3 for first, _ in turns] for form, turns in found.items()}
    return Measured(load, outcomes[REFERENCE], micros, starts)


def _turn(process: Process, form: str, count: int) -> tuple[float, float]:
    """Return the CPU seconds of the first message alone, and of so many."""
    return process.ask("time", form, 1), process.ask("time", form, count)


def per_reading(turns: Iterable[tuple[float, float]], readings: int) -> list[float]:
    """Return the microseconds of each turn per reading, of those after the first message."""
    firsts, all_of_them = zip(*turns, strict=True)
    return [(seconds - statistics.median(firsts)) / readings * 1e6 for seconds in all_of_them]


def compare(load: Load, outcomes: Mapping[str, Outcome]) -> None:
    """Hold each form's rows, number refused and dead letters against the reference's.

    Raises:
      DifferentRows: they are not equal.
    """
    expected = outcomes[REFERENCE]
    for form, found in outcomes.items():
        if found.rows != expected.rows:
            sizes = f"{len(found.rows)} and {len(expected.rows)}"
            raise DifferentRows(f"{load}: {form} makes other rows than {REFERENCE}: {sizes}")
        if found.refused != expected.refused or found.payloads not in (None, expected.payloads):
            sizes = f"{found.refused} and {expected.refused}"
            raise DifferentRows(f"{load}: {form} refuses other readings than {REFERENCE}: {sizes}")
