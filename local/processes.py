"""Child processes of the local stack: each leads a group that is stopped as a whole, with nothing left behind."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

STOP_GRACE = 8.0  # seconds a child has to end by itself after SIGTERM
TAIL_LINES = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LocalStackError(Exception):
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

    Output goes to `log`. The child leads a session of its own, so that Ctrl-C in a terminal reaches only this process,
    which then stops the child and everything the child started.
    """
    child = None
    try:
        with signals_held(), log.open("wb") as output:
            child = Child(name, _spawn(command, output.fileno(), {**os.environ, **(env or {})}), log)
        yield child
    finally:
        if child:
            _stop_group(child.process)


def _spawn(command: Sequence[str], output: int, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True
    )


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
    signalled = _signal_group(process, signal.SIGTERM)
    while signalled and time.monotonic() < deadline:
        process.poll()
        if not _signal_group(process, 0):
            return
        time.sleep(0.02)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Send a signal to the group; False when nobody is left in it."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


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


def interrupt_once() -> None:
    """Turn Ctrl-C, SIGTERM and SIGHUP into one KeyboardInterrupt; further ones do not disturb the clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_interrupts()
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """From here on, let Ctrl-C, SIGTERM and SIGHUP do nothing."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
