"""A project as gcloud changes it: every command is shown, and what makes something is undone in the end."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from threading import Event

from rich.console import Console

from deploy.acceptance.names import Run
from local.stack import processes
from pipeline.errors import SensorStreamError

# What is not there need not be deleted.
_GONE = ("not_found", "not found", "does not exist", "could not be found")

# A new account is not known everywhere at once; whatever else does not exist will not come to exist by waiting.
_SETTLING = re.compile(r"service account \S+ does not exist", re.IGNORECASE).search
_SETTLE_SECONDS = 90.0


class StepError(SensorStreamError):
    """A step did not hold; the message says what was found."""


@dataclass(frozen=True)
class Change:
    """A command of gcloud that makes something, and one that takes it away; without, it goes with what it is in."""

    command: Sequence[str]
    undo: Sequence[str] = ()


@dataclass(frozen=True)
class Undo:
    """How something is taken away: what is run here, and the same as a command for the user."""

    command: str
    run: Callable[[], object]


@dataclass
class Project:
    """The project of a run. With `dry`, commands are shown and answer nothing."""

    run: Run
    console: Console
    dry: bool = False
    pause: float = 10.0  # seconds between looks at what takes minutes
    undo: list[list[list[Undo]]] = field(default_factory=list)  # what was made together, by line; see make()

    def make(self, *lines: Sequence[Change]) -> None:
        """Make the changes of each line one after the other, but the lines side by side; they are undone likewise.

        Changes of one policy belong in one line: gcloud reads it, changes it and writes it back.
        """
        undo: list[list[Undo]] = [[] for _ in lines]
        self.undo.append(undo)
        stop = Event()
        with self._pool(len(lines)) as pool:
            try:
                list(pool.map(self._make, lines, undo, repeat(stop)))
            finally:
                stop.set()

    def _make(self, line: Sequence[Change], undo: list[Undo], stop: Event) -> None:
        for change in line:
            if stop.is_set():
                return
            if change.undo:
                # Beforehand: it may have been made although the command failed, or was stopped.
                undo.append(Undo(_shown(self._whole(change.undo)), partial(self._delete, change.undo)))
            self.gcloud(*change.command)

    def undo_by(self, undo: Undo) -> None:
        """Have something that gcloud did not make, or not at once, undone as well."""
        self.undo.append([[undo]])

    def gcloud(self, *command: str) -> str:
        """Run gcloud and return what it prints; StepError if it fails."""
        whole = self._whole(command)
        self.show(_shown(whole))
        if self.dry:
            return ""
        give_up = time.monotonic() + _SETTLE_SECONDS
        while (ran := _run(whole)).returncode:
            unsettled = "add-iam-policy-binding" in command and _SETTLING(ran.stderr)
            if not unsettled or time.monotonic() > give_up:
                raise StepError(f"{_shown(whole)}\n{ran.stderr.strip()}")
            time.sleep(5)
        return ran.stdout.strip()

    def python(self, module: str, *arguments: str) -> str:
        """Run a module of this repository and return what it prints; StepError if it fails."""
        command = ["-m", module, *arguments]
        self.show(_shown(["python", *command]))
        if self.dry:
            return ""
        ran = _run([sys.executable, *command])
        if ran.returncode:
            raise StepError(f"python {_shown(command)}\n{ran.stderr.strip()}")
        return ran.stdout.strip()

    def wait(self, what: str, look: Callable[[], bool], patience: float) -> None:
        """Look until it is so; StepError after `patience` seconds. A dry run only says that it would."""
        self.show(f"# wait for {what}, at most {patience / 60:.0f} min")
        if self.dry:
            return
        give_up = time.monotonic() + patience
        while not look():
            if time.monotonic() > give_up:
                raise StepError(f"{what}: not so after {patience / 60:.0f} minutes")
            time.sleep(self.pause)

    def show(self, line: str) -> None:
        """Print what is done, dimmed."""
        self.console.print(f"  {line}", style="dim", markup=False)

    def tear_down(self) -> list[str]:
        """Undo everything, the last first; returns the commands for what could not be."""
        left: list[str] = []
        while self.undo:
            lines = self.undo.pop()
            with self._pool(len(lines)) as pool:
                left += chain.from_iterable(pool.map(self._undo, lines))
        return left

    def _undo(self, line: Sequence[Undo]) -> list[str]:
        left = []
        for undo in reversed(line):
            self.show(undo.command)
            if self.dry:
                continue
            try:
                undo.run()
            except Exception as error:  # whatever it is, the rest must go too
                self.console.print(f"  {error}", style="red", markup=False)
                left.append(undo.command)
        return left

    def _pool(self, lines: int) -> ThreadPoolExecutor:
        # A dry run shows one line after the other.
        return ThreadPoolExecutor(1 if self.dry else lines)

    def _delete(self, command: Sequence[str]) -> None:
        ran = _run(self._whole(command))
        if ran.returncode and not any(sign in ran.stderr.lower() for sign in _GONE):
            raise StepError(ran.stderr.strip())

    def _whole(self, command: Sequence[str]) -> list[str]:
        return ["gcloud", *command, f"--project={self.run.project}", "--quiet"]


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # In a session of its own: Ctrl-C is for us, who then undo; a command half done would not be known of.
    return processes.run(command, check=False)


def _shown(command: Sequence[str]) -> str:
    return shlex.join(command)
