"""The guardian of a process: ends what that process started, and removes its folders, however the process itself ends.

`processes` starts it as a script of its own, in a session of its own, with a pipe as standard input. Only the guarded
process, the guardian's parent, has the other end. The pipe reads as closed once the parent is gone, whatever ended it,
SIGKILL included; that needs nothing but POSIX. The guardian then ends every process group that the parent registered
and removes every folder. Nothing is imported but the standard library, so that it starts in 20 ms.

Each line of the pipe is a JSON list:

    ["add", "groups", PGID]     end this process group when the parent is gone
    ["add", "folders", PATH]    remove this folder when the parent is gone
    ["remove", KIND, VALUE]     do so no longer
    ["stopping"]                the parent is about to end: enforce the deadlines below

    python guardian.py PARENT PID FD    also ends the parent when the process PID, such as `make`, is gone, or the
                                        terminal behind the file descriptor FD; 0 for none
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

# Together they stay below ten seconds, in which everything is to end.
POLL = 0.25  # seconds between looks at the watched process, and at groups that are ending
STOP_GROUPS = 3.0  # seconds after "stopping" at which groups that are left are killed
STOP_PARENT = 4.0  # seconds after "stopping" at which the parent is killed
END_GROUPS = 2.0  # seconds that groups have to end by themselves once the parent is gone
KILL_GROUPS = 1.0  # seconds that what is killed has to be gone, before its folders are removed

Registered = dict[str, dict[Any, None]]  # by kind, in the order in which they came


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; returns whether anybody is left in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses if only zombies are left
        return False
    return True


def alive(pid: int) -> bool:
    """Whether the process runs. One that ended but was not waited for does not, where /proc shows it."""
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
    """Whether the terminal is closed; False where the system does not poll terminals."""
    poll = select.poll()
    poll.register(terminal, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def main(parent: int, watched: int, terminal: int) -> None:
    """Guard the parent until it is gone, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    registered: Registered = {"groups": {}, "folders": {}}
    _guard(parent, watched, terminal, registered)
    _end(registered["groups"])
    for folder in registered["folders"]:
        shutil.rmtree(folder, ignore_errors=True)


def _guard(parent: int, watched: int, terminal: int, registered: Registered) -> None:
    """Follow the pipe until it is closed; end the parent when the watched process or the terminal is gone."""
    unread = b""
    stopping: float | None = None
    while True:
        if select.select([0], [], [], POLL)[0]:
            got = os.read(0, 65536)
            if not got:
                return
            *lines, unread = (unread + got).split(b"\n")
            for action, *what in map(json.loads, lines):
                if action == "stopping":
                    stopping = stopping or time.monotonic()
                elif action == "add":
                    registered[what[0]][what[1]] = None
                else:
                    registered[what[0]].pop(what[1], None)
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
    """End every process of the groups: SIGTERM, and SIGKILL for what is left after END_GROUPS seconds."""
    left = list(groups)
    for number, patience in ((signal.SIGTERM, END_GROUPS), (signal.SIGKILL, KILL_GROUPS)):
        left = [group for group in left if signal_group(group, number)]
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            time.sleep(POLL / 5)
            left = [group for group in left if signal_group(group, 0)]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
