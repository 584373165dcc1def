"""What engines have in common, and the host of one in a process of its own.

Each engine's module offers its forms, by name.
"""

import gc
import importlib
import os
import resource
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import Load, messages
from benchmarks.loop import DECODER, latest_allowed
from pipeline.readings import Refusal

BATCH = 1000  # messages that a source hands over at once
LATENESS = 5  # seconds an interval is held open after its end; the shipped default


class Outcome(NamedTuple):
    """What became of the messages."""

    rows: dict[tuple[int, str], dict[str, float]]  # sensor to mean, by interval's start in seconds and device or ""
    refused: int  # readings
    payloads: list[bytes] | None  # of the dead letters, sorted; None where they are counted only


class Sinks:
    """Where one run of an engine puts (start of interval in seconds, device, means), dead letters, and what is late."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, dict[str, float]]] = []
        self.dead_letters: list[bytes] = []
        self.late: list[Any] = []

    def outcome(self) -> Outcome:
        """Return what came, or raise AssertionError if an interval has two rows, or readings came late."""
        rows = {(start, device): means for start, device, means in self.rows}
        if self.late or len(rows) != len(self.rows):
            raise AssertionError("readings came late, or an interval has two rows")
        return Outcome(rows, len(self.dead_letters), sorted(self.dead_letters))


class Form(NamedTuple):
    """A way to use an engine.

    Attributes:
      prepare: from what is sent, as (publish time in seconds since the epoch, data), to what `run` takes.
      run: what is timed: the engine, started anew, from the messages to its end; returns what tells the outcome.
    """

    prepare: Callable[[Load, Sequence[tuple[float, bytes]]], Any]
    run: Callable[[Load, Any], Callable[[], Outcome]]


def payloads(load: Load, sent: Sequence[tuple[float, bytes]]) -> list[bytes]:
    """Return the data alone."""
    return [data for _, data in sent]


class Reading(NamedTuple):
    """One good reading; `at` is microseconds since the epoch, `values` is never empty, `device` may be ""."""

    at: int
    device: str
    values: dict[str, float]


def read(payload: bytes) -> list[Reading | Refusal]:
    """Return an outcome for each reading in a message, by the shipped decoder; for the forms as guides teach them."""
    refusals: list[Refusal] = []
    readings = [Reading(*reading) for reading in DECODER.decode((payload,), latest_allowed(), refusals)]
    return [*readings, *refusals]


# --- in the engine's own process ---


class Host:
    """An engine, its forms, and the messages it is given.

    Args:
      module: the engine's, in this package.
      log: where the process writes what it has to say.
    """

    def __init__(self, module: str, log: Path):
        stream = log.open("w")
        for standard in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), standard.fileno())
        # The parent's packages are not this process's.
        sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [sysconfig.get_path("purelib")]
        engine = importlib.import_module(f"benchmarks.peers.{module}")
        self.forms: dict[str, Form] = engine.FORMS
        self.version = version(engine.DISTRIBUTION)

    def prepare(self, load: Load, count: int, start: float) -> None:
        """Make `count` messages, the same in every process."""
        self._load, self._sent = load, list(messages(load, count, start))
        self._prepared: dict[tuple[str, int], Any] = {}

    def check(self, form: str) -> tuple[Outcome, float]:
        """Process all messages; return what becomes of them, and the CPU seconds it took, the start included."""
        finish, cpu = self._run(form, len(self._sent))
        return finish(), cpu

    def time(self, form: str, count: int) -> float:
        """Return the CPU seconds that the engine takes for the first of the messages, its start included."""
        return self._run(form, count)[1]

    def _run(self, form: str, count: int) -> tuple[Callable[[], Outcome], float]:
        prepare, run = self.forms[form]
        if (form, count) not in self._prepared:
            self._prepared[form, count] = prepare(self._load, self._sent[:count])
        gc.collect()
        before = _cpu()
        return run(self._load, self._prepared[form, count]), _cpu() - before


def _cpu() -> float:
    """Return the CPU seconds of this process, all its threads, and the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


_hosts: list[Host] = []


def begin(module: str, log: Path) -> tuple[list[str], str]:
    """Make this process the host of an engine; return the names of its forms, and its version."""
    _hosts.append(Host(module, log))
    return list(_hosts[0].forms), _hosts[0].version


def ask(method: str, *arguments: Any) -> Any:
    """Call a method of the host."""
    return getattr(_hosts[0], method)(*arguments)
