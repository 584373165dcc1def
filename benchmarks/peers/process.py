"""The parent's end of the pipe to one engine's process."""

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import Load
from benchmarks.peers.engine import Rows
from benchmarks.peers.install import ROOT


class Checked(NamedTuple):
    """What became of all messages in one form.

    Attributes:
      rows: means per interval and device.
      refused: how many readings were refused.
      payloads: a digest of the dead letters' bytes, or None where they are counted only.
      cpu: seconds it took, the engine's start included.
    """

    rows: Rows
    refused: int
    payloads: str | None
    cpu: float


class EngineFailed(RuntimeError):
    """An engine's process ended; the text is the end of its log."""


class Process:
    """One engine, running `benchmarks.peers.host` in its own environment, on the parent's cores.

    Args:
      module: the engine's module in this package.
      python: of its environment.
      log: where it writes what it has to say.
    """

    def __init__(self, module: str, python: Path, log: Path):
        self.module = module
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.peers.host", module],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        hello = self._answer()
        self.forms: list[str] = hello["forms"]
        self.version: str = hello["version"]

    def prepare(self, load: Load, count: int, start: float) -> None:
        """Make `count` messages, the same in every process."""
        self._ask(do="prepare", load=asdict(load), count=count, start=start)

    def check(self, form: str) -> "Checked":
        """Process all messages for what becomes of them."""
        answer = self._ask(do="check", form=form)
        rows = {(start, device): means for start, device, means in answer.pop("rows")}
        return Checked(rows, **answer)

    def time(self, form: str, messages: int) -> float:
        """Return the CPU seconds that the engine takes for the first of the messages, its start included."""
        return self._ask(do="time", form=form, messages=messages)["cpu"]

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(timeout=30)

    def _ask(self, **command: Any) -> Any:
        self._process.stdin.write(json.dumps(command) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self._process.wait()
            raise EngineFailed(f"{self.module} ended; {self._log}:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)
