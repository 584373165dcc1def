"""The guardian of a process: ends the process groups and removes the folders of that process after it has ended.

`processes` starts it as a script in a separate session, with a pipe as standard input. Only the guarded process, the
guardian's parent, holds the other end, so that the pipe is closed when the parent ends for any reason, even by SIGKILL;
this requires only POSIX. The guardian then ends every process group that the parent registered, and removes every
folder. It imports only the standard library, so that it starts in 20 ms.

Each line of the pipe is a JSON list:

    ["add", "groups", PGID]     end this process group after the parent has ended
    ["add", "folders", PATH]    remove this folder after the parent has ended
    ["remove", KIND, VALUE]     cancel an "add"
    ["stopping"]                the parent is about to end: enforce the deadlines below

    python guardian.py PARENT PID FD    also ends the parent when the process PID, such as `make`, has ended, or the
                                        terminal of the file descriptor FD is closed; 0 for none
"""

import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

# All in seconds; together less than the ten seconds within which everything must have ended.
POLL = 0.25  # between checks of the watched process, and of groups that are ending
STOP_GROUPS = 3.0  # after "stopping": remaining groups are killed
STOP_PARENT = 4.0  # after "stopping": the parent is killed
END_GROUPS = 2.0  # that groups have to end after SIGTERM, once the parent has ended
KILL_GROUPS = 1.0  # to wait for killed groups to end, before folders are removed

Registered = dict[str, dict[Any, None]]  # by kind, in the order of registration


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; returns whether the group has processes."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # PermissionError: on macOS, if only zombies remain
        return False
    return True


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not, where /proc shows that it is one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def hung_up(terminal: int) -> bool:
    """Return whether the terminal is closed; False on systems that cannot poll terminals."""
    poll = select.poll()
    poll.register(terminal, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def main(parent: int, watched: int, terminal: int) -> None:
    """Guard the parent until it has ended, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    registered: Registered = {"groups": {}, "folders": {}}
    _guard(parent, watched, terminal, registered)
    _end(registered["groups"])
    for folder in registered["folders"]:
        shutil.rmtree(folder, ignore_errors=True)


def _guard(parent: int, watched: int, terminal: int, registered: Registered) -> None:
    """Read the pipe until it is closed; end the parent when the watched process has ended or the terminal is closed."""
    unread = b""
    stopping: float | None = None
    while True:
        if select.select([0], [], [], POLL)[0]:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for action, *arguments in map(json.loads, lines):
                if action == "stopping":
                    stopping = stopping or time.monotonic()
                    continue
                kind, value = arguments
                if action == "add":
                    registered[kind][value] = None
                else:
                    registered[kind].pop(value, None)
        if stopping is None and ((watched and not alive(watched)) or (terminal and hung_up(terminal))):
            stopping = time.monotonic()
            _signal_parent(parent, signal.SIGTERM)
        if stopping is not None:
            if time.monotonic() > stopping + STOP_GROUPS:
                for group in registered["groups"]:
                    signal_group(group, signal.SIGKILL)
            if time.monotonic() > stopping + STOP_PARENT:
                _signal_parent(parent, signal.SIGKILL)


def _signal_parent(parent: int, number: int) -> None:
    if os.getppid() == parent:
        os.kill(parent, number)


def _end(groups: Iterable[int]) -> None:
    """End every process of the groups: SIGTERM, and SIGKILL for those that remain after END_GROUPS seconds."""
    remaining = list(groups)
    for number, timeout in ((signal.SIGTERM, END_GROUPS), (signal.SIGKILL, KILL_GROUPS)):
        remaining = [group for group in remaining if signal_group(group, number)]
        deadline = time.monotonic() + timeout
        while remaining and time.monotonic() < deadline:
            time.sleep(POLL / 5)
            remaining = [group for group in remaining if signal_group(group, 0)]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
