"""A project that gcloud changes. Every command is shown, and what a command creates is deleted at the end."""

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

# Errors of gcloud for a resource that does not exist, and so need not be deleted.
_GONE = ("not_found", "not found", "does not exist", "could not be found")

# It takes a while until a new account is known everywhere. For other missing resources waiting does not help.
_PROPAGATING = re.compile(r"service account \S+ does not exist", re.IGNORECASE).search
_PROPAGATION_SECONDS = 90.0


class StepError(SensorStreamError):
    """A step failed; the message says what was found."""


@dataclass(frozen=True)
class Change:
    """A gcloud command that creates something, and the one that deletes it, unless it is deleted with its parent."""

    command: Sequence[str]
    undo: Sequence[str] = ()


@dataclass(frozen=True)
class Undo:
    """How something is deleted: a function, and the same as a command for the user."""

    command: str
    run: Callable[[], object]


@dataclass
class Project:
    """The project of a run. With `dry`, commands are shown and not run, and return empty text."""

    run: Run
    console: Console
    dry: bool = False
    pause: float = 10.0  # seconds between two polls
    undo: list[list[list[Undo]]] = field(default_factory=list)  # for each call of create(), by line

    def create(self, *lines: Sequence[Change]) -> None:
        """Run the changes of each line in order, and the lines in parallel; tear_down() does the same in reverse.

        Changes of the same policy belong in one line, because gcloud reads it, changes it and writes it back.
        """
        undo: list[list[Undo]] = [[] for _ in lines]
        self.undo.append(undo)
        stop = Event()
        with self._pool(len(lines)) as pool:
            try:
                list(pool.map(self._create, lines, undo, repeat(stop)))
            finally:
                stop.set()

    def _create(self, line: Sequence[Change], undo: list[Undo], stop: Event) -> None:
        for change in line:
            if stop.is_set():
                return
            if change.undo:
                # Before the command: the resource may exist although the command failed or was stopped.
                undo.append(Undo(_shown(self._full(change.undo)), partial(self._delete, change.undo)))
            self.gcloud(*change.command)

    def register(self, undo: Undo) -> None:
        """Register the deletion of something that create() does not create."""
        self.undo.append([[undo]])

    def gcloud(self, *command: str) -> str:
        """Run gcloud and return its output; raises StepError if it fails."""
        full = self._full(command)
        self.show(_shown(full))
        if self.dry:
            return ""
        give_up = time.monotonic() + _PROPAGATION_SECONDS
        while (ran := _run(full)).returncode:
            propagating = "add-iam-policy-binding" in command and _PROPAGATING(ran.stderr)
            if not propagating or time.monotonic() > give_up:
                raise StepError(f"{_shown(full)}\n{ran.stderr.strip()}")
            time.sleep(5)
        return ran.stdout.strip()

    def python(self, module: str, *arguments: str) -> str:
        """Run a module of this repository and return its output; raises StepError if it fails."""
        command = ["-m", module, *arguments]
        self.show(_shown(["python", *command]))
        if self.dry:
            return ""
        ran = _run([sys.executable, *command])
        if ran.returncode:
            raise StepError(f"python {_shown(command)}\n{ran.stderr.strip()}")
        return ran.stdout.strip()

    def wait(self, what: str, done: Callable[[], bool], timeout_seconds: float) -> None:
        """Poll until `done` returns true; raises StepError after the timeout. A dry run does not wait."""
        self.show(f"# wait for {what}, at most {timeout_seconds / 60:.0f} min")
        if self.dry:
            return
        give_up = time.monotonic() + timeout_seconds
        while not done():
            if time.monotonic() > give_up:
                raise StepError(f"{what}: timed out after {timeout_seconds / 60:.0f} minutes")
            time.sleep(self.pause)

    def show(self, line: str) -> None:
        """Print a command or a comment, dimmed."""
        self.console.print(f"  {line}", style="dim", markup=False)

    def tear_down(self) -> list[str]:
        """Delete everything in reverse order; return the commands for what could not be deleted."""
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
            except Exception as error:  # the rest must be deleted in any case
                self.console.print(f"  {error}", style="red", markup=False)
                left.append(undo.command)
        return left

    def _pool(self, lines: int) -> ThreadPoolExecutor:
        # A dry run shows the lines in order.
        return ThreadPoolExecutor(1 if self.dry else lines)

    def _delete(self, command: Sequence[str]) -> None:
        ran = _run(self._full(command))
        if ran.returncode and not any(sign in ran.stderr.lower() for sign in _GONE):
            raise StepError(ran.stderr.strip())

    def _full(self, command: Sequence[str]) -> list[str]:
        return ["gcloud", *command, f"--project={self.run.project}", "--quiet"]


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # In its own session: Ctrl-C stops this process, which then tears down, and does not interrupt a command halfway.
    return processes.run(command, check=False)


def _shown(command: Sequence[str]) -> str:
    return shlex.join(command)
