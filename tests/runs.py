"""Commands that `make` runs in a terminal, ended in every way; what remains of them ten seconds later."""

import os
import pty
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120.0  # until everything is up
PROMPT = 20.0  # seconds within which everything must end
# What tests/conftest.py does; that takes seconds to import.
CONFTEST = """
from tests.guarded_run import GuardedRun

def pytest_configure(config):
    config.pluginmanager.register(GuardedRun(config))
"""


@dataclass
class Run:
    """A command that `make` runs in a terminal of its own, in `folder`, with temporary files in folder/tmp."""

    leader: int  # process id of the terminal's session: a shell or make
    terminal: int  # file descriptor
    folder: Path
    started: Mapping[int, float] = field(default_factory=dict)  # when it is up: its processes' ids and start times

    @property
    def make(self) -> int:
        """The process id of make."""
        return self.leader if self.folder.name.startswith("led-by-make") else child_of(self.leader)

    @property
    def command(self) -> int:
        """The process id of what make runs."""
        return child_of(self.make)

    def wait(self, up: Callable[["Run"], bool]) -> None:
        """Wait until everything is up."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not up(self):
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)
        found = processes()
        tree = [self.leader]
        for pid in tree:
            tree += [child for child, (parent, *_) in found.items() if parent == pid]
        self.started = {pid: found[pid][1] for pid in tree}

    def assert_up(self, count: int) -> None:
        """Check that so many processes run besides make and the session's leader."""
        assert len(self.started) - len({self.leader, self.make}) == count, processes()

    def commands(self) -> list[str]:
        """The command lines of its processes that still run."""
        found = processes()
        return [found[pid][2] for pid, start in self.started.items() if pid in found and found[pid][1] == start]

    def output(self) -> str:
        """Its output so far."""
        path = self.folder / "output"
        return path.read_text() if path.exists() else ""

    def end(self, how: str) -> None:
        if how == "Ctrl-C":
            os.write(self.terminal, b"\x03")
        elif how in ("closed terminal", "closed terminal of make"):
            os.close(self.terminal)
        elif how == "SIGTERM":
            os.kill(self.make, signal.SIGTERM)
        elif how == "SIGKILL of make":
            os.kill(self.make, signal.SIGKILL)
        elif how == "SIGKILL of the command":
            os.kill(self.command, signal.SIGKILL)
        else:
            assert how == "SIGKILL of the group"
            os.killpg(self.leader, signal.SIGKILL)

    def left(self) -> list[str]:
        """Its remaining processes and temporary folders."""
        with suppress(ChildProcessError):
            os.waitpid(self.leader, os.WNOHANG)
        # Not rglob, which fails when a folder is removed meanwhile. pytest's own folders are in one that stays.
        found = os.walk((self.folder / "tmp").resolve())
        paths = [os.path.join(folder, name) for folder, folders, files in found for name in folders + files]
        own = ("pytest-of-", "pytest-current")
        return self.commands() + [path for path in paths if not os.path.basename(path).startswith(own)]


def child_of(parent: int) -> int:
    (pid,) = [pid for pid, (found, *_) in processes().items() if found == parent]
    return pid


def processes() -> dict[int, tuple[int, float, str]]:
    """Parent, start time (seconds since the epoch) and command line of every process that runs, by its id."""
    found = {one.pid: one.info for one in psutil.process_iter(["ppid", "status", "create_time", "cmdline"])}
    return {
        pid: (one["ppid"], one["create_time"], " ".join(one["cmdline"] or ()))
        for pid, one in found.items()
        if one["status"] != psutil.STATUS_ZOMBIE
    }


@contextmanager
def starting(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Yield start(how, command, **environment), which runs a command as a recipe of the Makefile, to end that way."""
    runs: list[Run] = []
    temporary = ExitStack()

    def start_run(how: str, command: str, **environment: str) -> Run:
        # `ssh -t HOST make` has no shell that leads the session; a terminal has one.
        leader, exec_ = ("make", "exec ") if how == "closed terminal of make" else ("shell", "")
        folder = tmp_path / f"led-by-{leader}-{len(runs)}"
        folder.mkdir()
        # A short path, because a browser creates a socket in it.
        (folder / "tmp").symlink_to(temporary.enter_context(tempfile.TemporaryDirectory(prefix="r")))
        watching = re.search(r"^ifeq \(\$\(MAKELEVEL\),0\)\n.*?^endif\n", (ROOT / "Makefile").read_text(), re.M | re.S)
        assert watching
        (folder / "Makefile").write_text(f"{watching[0]}\nrun:\n\t@exec {command} >output 2>&1\n")
        pid, terminal = pty.fork()
        if not pid:
            os.chdir(folder)
            inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST_"))}
            paths = {"PYTHONPATH": str(ROOT), "TMPDIR": os.readlink(folder / "tmp")}
            os.execvpe("sh", ["sh", "-c", f"{exec_}make run; exit"], {**inherited, **paths, **environment})
        os.set_inheritable(terminal, False)
        runs.append(Run(pid, terminal, folder))
        return runs[-1]

    yield start_run
    for one in runs:
        with suppress(ProcessLookupError):
            os.killpg(one.leader, signal.SIGKILL)
        for pid in one.started.keys() & processes().keys():
            os.kill(pid, signal.SIGKILL)
    temporary.close()


def left_after(runs: Mapping[str, Run]) -> dict[str, list[str]]:
    """End every run as its key says; return what remains of each after PROMPT seconds, or as soon as nothing does."""
    for how, one in runs.items():
        one.end(how)
    deadline = time.monotonic() + PROMPT
    while any((left := {how: one.left() for how, one in runs.items()}).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def nothing(runs: Mapping[str, Run]) -> dict[str, list[str]]:
    return {how: [] for how in runs}
