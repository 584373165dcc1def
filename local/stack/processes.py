"""Child processes: each leads a process group, and all processes of the group are stopped together.

No process remains however this process ends: `guard` starts a guardian (guardian.py) that ends the remaining ones. All
code in this repository outside of tests starts processes with this module.
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

STOP_GRACE = 8.0  # seconds that a child has to end after SIGTERM
TAIL_LINES = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LocalStackError(SensorStreamError):
    """A part of the local stack is missing or failed; the message names it and the fix."""


@dataclass(frozen=True)
class Child:
    """A child process; `name` is its name in messages, `log` the file of everything it prints."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def alive(self) -> bool:
        """Return whether the child runs."""
        return self.process.poll() is None

    def tail(self) -> str:
        """Return the last lines of the child's log, indented."""
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
    """Run `command` for the length of the block, with `env` added to this process's environment.

    Its output is written to `log`, its temporary files to a folder that is removed at the end. The child leads a
    session, so that Ctrl-C in a terminal reaches only this process, which then stops the child and its descendants.
    """
    with scratch_folder("c") as temporary, log.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(temporary), **(env or {})}
        with started(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process:
            yield Child(name, process, log)


@contextmanager
def started(command: Sequence[str], **options: Any) -> "Iterator[subprocess.Popen[Any]]":
    """Run `command` as the leader of a session for the length of the block; `options` are those of subprocess.Popen.

    All its processes end with the block, or with this process if that ends first, for any reason. Standard input is
    empty unless it is subprocess.PIPE.
    """
    process = None
    try:
        with signals_held():
            process = _spawn(command, **options)
        yield process
    finally:
        if process:
            _stop_group(process)
            guard().remove("groups", process.pid)


def run(command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `command` like subprocess.run with captured text output; it ends at the latest with this process.

    Raises:
      subprocess.CalledProcessError: it failed, and `check` is not False.
    """
    check = options.pop("check", True)
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        output, errors = process.communicate()
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _spawn(command: Sequence[str], stdin: int = subprocess.DEVNULL, **options: Any) -> "subprocess.Popen[Any]":
    # The shell waits for a line before it executes the command. If this process is killed before the group is
    # registered with the guardian, the shell reads the end of its input instead, and ends.
    script = 'read -r GO_AHEAD && exec "$@"' + ("" if stdin == subprocess.PIPE else " </dev/null")
    guardian = guard()
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *command], stdin=subprocess.PIPE, start_new_session=True, **options
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
    """Create a temporary folder for the length of the block; it is also removed if this process is killed."""
    # A short path, because it may contain sockets, whose paths are limited to a hundred characters.
    folder = Path(tempfile.gettempdir(), f"{prefix}{uuid.uuid4().hex[:8]}")
    folder.mkdir(mode=0o700)
    guard().add("folders", str(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        guard().remove("folders", str(folder))


class Guardian:
    """The guardian process (guardian.py), which ends the processes and removes the folders of this one if it is killed.

    Args:
      watched: a process; when it ends, this process is ended too. 0 for none.
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
        """Register a process group to be ended, or a folder to be removed, when this process has ended."""
        self._send("add", kind, value)

    def remove(self, kind: Literal["groups", "folders"], value: int | str) -> None:
        """Cancel the registration of a group or a folder."""
        self._send("remove", kind, value)

    def stopping(self) -> None:
        """Announce that this process ends: what remains after a few seconds is killed, this process included."""
        self._send("stopping")

    def close(self) -> None:
        """End all registered groups, remove all registered folders, and wait until that is done."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _send(self, *line: int | str) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it was killed
            self._process.stdin.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def guard(watched: int | None = None) -> Guardian:
    """Return this process's guardian, which is started by the first call.

    Args:
      watched: a process; when it ends, this process is ended too. By default the `make` that runs it: MAKE_PID.
    """
    with _guardian_lock:
        if not _guardians:
            _guardians.append(Guardian(int(os.environ.get("MAKE_PID") or 0) if watched is None else watched))
        return _guardians[0]


def _foreground_of() -> int:
    """Return a file descriptor of the terminal in whose foreground this process runs; 0 without one and under nohup.

    If make leads the session, as with `ssh -t host make`, its child gets no signal when the terminal is closed.
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
    """Have this process and its descendants ended when its parent ends; it leads a session from now on.

    For workers of a pool or of pytest, because the children of libraries, such as a browser's driver, are in this
    process's group.
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
# A forked child starts another guardian if it needs one, and must not hold its parent's pipe open.
os.register_at_fork(after_in_child=_guardians.clear)


def wait_for(child: Child, ready: Callable[[], bool], timeout: float) -> None:
    """Poll `ready` until it is true; raises LocalStackError if the child ends first or after `timeout` seconds."""
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
    """End every process of the group that `process` leads: SIGTERM, and SIGKILL after STOP_GRACE seconds.

    Waits for the group, not its leader: gcloud may have ended while the Java process that it started still runs.
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
    """Defer stop signals to the end of the block, so that a started child is always recorded."""
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
    """Convert the first Ctrl-C, SIGTERM or SIGHUP to a KeyboardInterrupt, and ignore further ones during the clean-up.

    Unless this is `patient`, the guardian ends a clean-up that takes too long.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_interrupts()
        for guardian in () if patient else _guardians:
            guardian.stopping()
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, SIGTERM and SIGHUP from now on."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
