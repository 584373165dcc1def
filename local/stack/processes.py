"""Child processes of the local stack: each leads a group that is stopped with everything in it.

Nothing is left behind, however this process ends: `guard` starts a guardian (guardian.py) that then ends what is left.
Everything in this repository that starts a process does it here.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from local.stack.guardian import __file__ as GUARDIAN
from local.stack.guardian import signal_group
from pipeline.errors import SensorStreamError

STOP_GRACE = 8.0  # seconds a child has to end by itself after SIGTERM
TAIL_LINES = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LocalStackError(SensorStreamError):
    """Something the local stack needs is missing or failed; the message says what and how to fix it."""


@dataclass(frozen=True)
class Child:
    """A running child process; `name` is what people are told, `log` holds everything it prints."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def alive(self) -> bool:
        """Whether the child still runs."""
        return self.process.poll() is None

    def tail(self) -> str:
        """The last lines of the child's log, indented."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"

    def check(self) -> None:
        """Raise LocalStackError with the tail of the log if the child has ended."""
        if not self.alive():
            raise LocalStackError(
                f"{self.name} ended early (exit status {self.process.returncode}). The end of its log, "
                f"{self.log}:\n{self.tail()}"
            )


@contextmanager
def running(name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `command` for the length of the block, with `env` on top of this process's environment.

    Output goes to `log`, temporary files to a folder that is removed in the end. The child leads a session of its own,
    so that Ctrl-C in a terminal reaches only this process, which then stops the child and everything the child started.
    """
    with scratch_folder("c") as temporary, log.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(temporary), **(env or {})}
        how = {"stdout": output, "stderr": subprocess.STDOUT, "env": environment}
        with started(command, **how) as process:
            yield Child(name, process, log)


@contextmanager
def started(command: Sequence[str], **how: Any) -> "Iterator[subprocess.Popen[Any]]":
    """Run `command` for the length of the block, as the leader of a session, with `how` as subprocess.Popen takes it.

    All its processes end with the block, or with this process, whatever ends that. Standard input is empty, unless it
    is to be a pipe.
    """
    process = None
    try:
        with signals_held():
            process = _spawn(command, **how)
        yield process
    finally:
        if process:
            _stop_group(process)
            guard().remove("groups", process.pid)


def run(command: Sequence[str], **how: Any) -> "subprocess.CompletedProcess[str]":
    """Run `command` to its end, like subprocess.run with text output captured; it never outlives this process.

    Raises:
      subprocess.CalledProcessError: it failed, and `check` is not False.
    """
    check = how.pop("check", True)
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how) as process:
        output, errors = process.communicate()
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _spawn(command: Sequence[str], stdin: int = subprocess.DEVNULL, **how: Any) -> "subprocess.Popen[Any]":
    # The shell waits for a line before it becomes the command: were this process killed before the guardian knows of
    # the group, the shell would read the end of its input instead, and end.
    script = 'read -r GO_AHEAD && exec "$@"' + ("" if stdin == subprocess.PIPE else " </dev/null")
    guardian = guard()
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *command], stdin=subprocess.PIPE, start_new_session=True, **how
    )
    assert process.stdin
    guardian.add("groups", process.pid)
    with suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), b"\n")
    if stdin != subprocess.PIPE:
        process.stdin.close()
        process.stdin = None
    return process


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for the length of the block; it is also removed if this process is killed."""
    # Short, as there may be sockets in it, whose paths end at a hundred characters.
    folder = Path(tempfile.gettempdir(), f"{prefix}{uuid.uuid4().hex[:8]}")
    folder.mkdir(mode=0o700)
    guard().add("folders", str(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        guard().remove("folders", str(folder))


class Guardian:
    """The process that ends what this one started, and removes its folders, if this one is killed: guardian.py.

    Args:
      watched: a process with which this one ends; 0 for none.
    """

    def __init__(self, watched: int) -> None:
        terminal = _foreground_of()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", GUARDIAN, *map(str, (os.getpid(), watched, terminal))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            pass_fds=[terminal] if terminal else [],
            cwd="/",
        )
        if terminal:
            os.close(terminal)

    def add(self, kind: Literal["groups", "folders"], value: int | str) -> None:
        """Have a process group ended, or a folder removed, when this process is gone."""
        self._tell("add", kind, value)

    def remove(self, kind: Literal["groups", "folders"], value: int | str) -> None:
        """Forget a group or a folder: it is gone, or to be left alone."""
        self._tell("remove", kind, value)

    def stopping(self) -> None:
        """Have everything killed, this process too, unless it ends within a few seconds."""
        self._tell("stopping")

    def close(self) -> None:
        """Have everything that is registered ended and removed, and wait for that."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, *line: int | str) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # somebody killed it
            self._process.stdin.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def guard(watched: int | None = None) -> Guardian:
    """Return this process's guardian, started when first asked for.

    Args:
      watched: a process with which this one ends. By default the `make` that runs it, if one does: MAKE_PID.
    """
    with _guardian_lock:
        if not _guardians:
            _guardians.append(Guardian(int(os.environ.get("MAKE_PID") or 0) if watched is None else watched))
        return _guardians[0]


def _foreground_of() -> int:
    """The terminal in whose foreground this process runs, as a file descriptor; 0 if there is none, or under nohup.

    A process that make runs hears nothing of a closed terminal if make leads the session, as with `ssh -t host make`.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return 0
    try:
        terminal = os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return 0
    if os.tcgetpgrp(terminal) == os.getpgrp():
        return terminal
    os.close(terminal)
    return 0


_guardians: list[Guardian] = []  # one, or none yet
_guardian_lock = threading.RLock()


def end_with_parent() -> None:
    """End this process, and all that anything in it starts, when its parent is gone; it leads a session from here on.

    For workers of a pool or of pytest: a library's children, such as a browser's driver, are in this process's group.
    """
    guardian = guard(os.getppid())
    os.setsid()
    guardian.add("groups", os.getpid())


def _close_guardian() -> None:
    while _guardians:
        guardian = _guardians.pop()
        guardian.remove("groups", os.getpid())
        guardian.close()


atexit.register(_close_guardian)
# A forked child has a guardian of its own if it needs one, and must not hold its parent's pipe open.
os.register_at_fork(after_in_child=_guardians.clear)


def wait_for(child: Child, ready: Callable[[], bool], timeout: float) -> None:
    """Poll `ready` until it is true; LocalStackError if the child dies first or `timeout` seconds pass."""
    deadline = time.monotonic() + timeout
    while not ready():
        if not child.alive():
            raise LocalStackError(f"{child.name} ended while starting. The end of its log:\n{child.tail()}")
        if time.monotonic() > deadline:
            raise LocalStackError(
                f"{child.name} did not answer within {timeout:.0f} s. The end of its log:\n{child.tail()}"
            )
        time.sleep(0.05)


def _stop_group(process: "subprocess.Popen[bytes]") -> None:
    """End every process of the group `process` leads: SIGTERM, and SIGKILL for what is left after STOP_GRACE seconds.

    The group is what counts, not its leader: gcloud may be gone while the java it started still runs.
    """
    deadline = time.monotonic() + STOP_GRACE
    signalled = signal_group(process.pid, signal.SIGTERM)
    while signalled and time.monotonic() < deadline:
        process.poll()
        if not signal_group(process.pid, 0):
            return
        time.sleep(0.02)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold stop signals back for the length of the block, so that a child is never started without being known here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handlers = {number: signal.signal(number, lambda got, _: held.append(got)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def interrupt_once(patient: bool = False) -> None:
    """Turn Ctrl-C, SIGTERM and SIGHUP into one KeyboardInterrupt; further ones do not disturb the clean-up.

    Unless this is `patient`, the guardian ends a clean-up that takes too long.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_interrupts()
        for guardian in () if patient else _guardians:
            guardian.stopping()
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which is what nohup is for
            signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """From here on, let Ctrl-C, SIGTERM and SIGHUP do nothing."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
