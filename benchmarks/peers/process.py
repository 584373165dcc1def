"""One engine in a process of its own: `python -m benchmarks.peers.process MODULE`, in the engine's environment.

Its parent sends (method of `_Host`, arguments) as pickles over a pipe, and gets back what that returns. First of all
comes (names of the forms, version of the engine).
"""

import gc
import importlib
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.load import Load, messages
from benchmarks.peers.engine import Form, Outcome, Run

ROOT = Path(__file__).parents[2]


class EngineFailed(RuntimeError):
    """An engine's process ended; the text is the end of its log."""


class Process:
    """The parent's end; the engine runs on the parent's cores.

    Args:
      module: the engine's module in this package.
      python: of its environment.
      log: where it writes what it has to say.
    """

    def __init__(self, module: str, python: Path | str, log: Path):
        self.module = module
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", __name__, module],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self.forms: list[str]
        self.forms, self.version = self._answer()

    def prepare(self, load: Load, count: int, start: float) -> None:
        """Make `count` messages, the same in every process."""
        self._ask("prepare", load, count, start)

    def check(self, form: str) -> tuple[Outcome, float]:
        """Process all messages; return what becomes of them, and the CPU seconds it took, the start included."""
        return self._ask("check", form)

    def time(self, form: str, count: int) -> float:
        """Return the CPU seconds that the engine takes for the first of the messages, its start included."""
        return self._ask("time", form, count)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(timeout=30)

    def _ask(self, *command: Any) -> Any:
        pickle.dump(command, self._process.stdin)  # type: ignore[arg-type]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self._answer()

    def _answer(self) -> Any:
        try:
            return pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except EOFError:
            self._process.wait()
            text = self._log.read_text()[-2000:]
            raise EngineFailed(f"{self.module} ended; {self._log}:\n{text}") from None


class _Host:
    def __init__(self, forms: dict[str, Form]):
        self._forms = forms
        self._jobs: dict[tuple[str, int], Run] = {}

    def prepare(self, load: Load, count: int, start: float) -> None:
        self._load = load
        self._sent = list(messages(load, count, start))
        self._jobs.clear()

    def check(self, form: str) -> tuple[Outcome, float]:
        finish, cpu = self._run(form, len(self._sent))
        return finish(), cpu

    def time(self, form: str, count: int) -> float:
        return self._run(form, count)[1]

    def _run(self, form: str, count: int) -> tuple[Callable[[], Outcome], float]:
        if (form, count) not in self._jobs:
            self._jobs[form, count] = self._forms[form](self._load, self._sent[:count])
        gc.collect()
        before = _cpu()
        finish = self._jobs[form, count]()
        return finish, _cpu() - before


def _cpu() -> float:
    """Return the CPU seconds of this process, all its threads, and the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    """Answer until the pipe is closed."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)  # what engines print must not get among the answers
        engine = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
        host = _Host(engine.FORMS)
        pickle.dump((list(engine.FORMS), version(engine.DISTRIBUTION)), answers)
        while sys.stdin.buffer.peek(1):
            name, *arguments = pickle.load(sys.stdin.buffer)
            pickle.dump(getattr(host, name)(*arguments), answers)


if __name__ == "__main__":
    main()
