"""All processes of a run end within ten seconds and its temporary folders are removed, whatever ends the run."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.stack.processes import run, started
from tests.runs import CONFTEST, ROOT, TIMEOUT_SECONDS, Run, left_after, nothing, starting

# It and its child end by SIGKILL only.
STUBBORN = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run(["sh", "-c", "trap '' TERM; echo up; sleep 600"])
"""

LIKE_THE_DEMO = f"""
import sys, time
from local.stack.processes import guard, interrupt_once, running, scratch_folder, wait_for
interrupt_once()
guard()
with scratch_folder("run-") as folder, running("It", [sys.executable, "-c", {STUBBORN!r}], folder / "log") as child:
    wait_for(child, lambda: "up" in child.tail(), {TIMEOUT_SECONDS})
    print("all up", flush=True)
    time.sleep(600)
"""

LIKE_A_BENCH = """
import subprocess, time
from multiprocessing import get_context
from local.stack.processes import end_with_parent, guard

def work():
    print("all up", flush=True)
    subprocess.run(["sleep", "600"])

guard()
with get_context("fork").Pool(1, end_with_parent, maxtasksperchild=1) as pool:
    pool.apply(work)
"""

# One child is started without local.stack.processes, one with it; each test runs in another worker.
LIKE_THE_TESTS = f"""
import subprocess, sys, tempfile, time
from pathlib import Path
import pytest
from local.stack.processes import running, wait_for

@pytest.mark.parametrize("worker", range(2))
def test_worker_lasts(worker, tmp_path):
    tempfile.mkdtemp()
    subprocess.Popen(["sleep", "600"])
    with running("It", [sys.executable, "-c", {STUBBORN!r}], tmp_path / "log") as child:
        wait_for(child, lambda: "up" in child.tail(), {TIMEOUT_SECONDS})
        Path(f"up-{{worker}}").touch()
        time.sleep(600)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    with starting(tmp_path) as start:
        yield start


# Run at the same time, because each consists of seconds of waiting.
ENDS = (
    "Ctrl-C",
    "closed terminal",
    "closed terminal of make",
    "SIGTERM",
    "SIGKILL of make",
    "SIGKILL of the command",
    "SIGKILL of the group",
)


# Processes like the demo's: the command and its guardian; the child, its shell and the shell's child. Like a
# benchmark's: the command and its guardian; the worker, its guardian and its child.
@pytest.mark.parametrize(("program", "processes"), [(LIKE_THE_DEMO, 5), (LIKE_A_BENCH, 5)], ids=["demo", "bench"])
def test_guard_leaves_no_process_of_a_command_for_any_end(program: str, processes: int, start) -> None:
    runs = {how: start(how, f'{sys.executable} -c "$$PROGRAM"', PROGRAM=program) for how in ENDS}
    for one in runs.values():
        one.wait(lambda run: "all up" in run.output())
        one.assert_up(processes)
    assert left_after(runs) == nothing(runs)


def test_guard_leaves_no_process_of_a_run_of_tests_for_any_end(start) -> None:
    command = f"{sys.executable} -m pytest -p no:bqemulator -p no:cacheprovider -n2 ."
    runs = {how: start(how, command) for how in ("Ctrl-C", "closed terminal", "SIGTERM", "SIGKILL of make")}
    for one in runs.values():
        (one.folder / "conftest.py").write_text(CONFTEST)
        (one.folder / "test_worker_lasts.py").write_text(LIKE_THE_TESTS)
    for one in runs.values():
        one.wait(lambda run: len(list(run.folder.glob("up-*"))) == 2)
        # pytest and its guardian; and for each of two workers the worker, its guardian, a child, and one as above.
        one.assert_up(14)
    assert left_after(runs) == nothing(runs)


def test_guard_leaves_no_process_of_the_demo_when_make_is_killed(start) -> None:
    one = start("SIGKILL of make", f"{sys.executable} -m local demo", DEMO_SECONDS="600")
    one.wait(lambda run: "Publishing for" in run.output())
    for part in ("pubsub", "local.stack.bigquery_server", "dashboard", "local pipeline", "publisher publish"):
        assert any(part in command for command in one.commands()), part
    assert left_after({"SIGKILL of make": one}) == {"SIGKILL of make": []}


def test_interrupt_once_keeps_sighup_ignored_under_nohup(tmp_path: Path) -> None:
    shown = "import signal; from local.stack.processes import interrupt_once; interrupt_once(); "
    shown += "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, signal.getsignal(signal.SIGTERM))"
    command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", sys.executable, "-c", shown]
    assert run(command, cwd=ROOT).stdout.startswith("True <function interrupt_once")


def test_run_returns_output_and_raises_on_failure() -> None:
    done = run(["sh", "-c", "cat; echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        run(["sh", "-c", "exit 3"])


def test_started_passes_all_standard_input_to_the_command() -> None:
    with started(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate("one\ntwo\n", timeout=20) == ("one\ntwo\n", None)


def test_only_local_processes_starts_processes() -> None:
    starts = re.compile(r"subprocess\.(run|Popen|check_\w+|call)\(|create_subprocess|os\.(fork|spawn|system|popen)")
    packages = ("benchmarks", "dashboard", "deploy", "local", "pipeline", "publisher", "redrive")
    found = [path for package in packages for path in (ROOT / package).rglob("*.py") if starts.search(path.read_text())]
    assert found == [ROOT / "local/stack/processes.py"]
