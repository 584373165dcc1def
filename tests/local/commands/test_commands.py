"""`python -m local ...` as its users run it: what it prints, and how it ends."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from local.__main__ import main
from local.commands.screen import Progress, screen
from local.stack import emulators
from local.stack.processes import run, wait_for
from local.stack.processes import running as running_child
from local.verify.reconcile import Row
from tests.local.stack.test_emulators import processes_matching

ROW = Row(datetime(2026, 11, 22, 13, 0, tzinfo=UTC), {"AtmP": None, "Temp": 20.5})


@contextmanager
def running(tmp_path: Path, *arguments: str, **env: str) -> Iterator:
    command = [sys.executable, "-m", "local", *arguments]
    with running_child("The command", command, tmp_path / "log", env) as child:
        yield child


def test_main_prints_the_usage_for_an_unknown_command(capsys) -> None:
    assert main([]) == 2
    assert main(["dmeo"]) == 2
    assert "usage: python -m local" in capsys.readouterr().err
    assert main(["--help"]) == 0


@pytest.mark.parametrize("seconds", ["soon", "0", "nan", "1e9"])
def test_demo_refuses_a_wrong_length_in_one_line(seconds, capsys, monkeypatch) -> None:
    monkeypatch.setattr("local.__main__.interrupt_once", lambda: None)
    monkeypatch.setenv("DEMO_SECONDS", seconds)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err.startswith(f"error: DEMO_SECONDS={seconds} must be")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pipeline_ends_within_five_seconds_without_traceback_when_stopped(
    number, pubsub_server: str, project: str, tmp_path: Path
) -> None:
    emulators.create_topic(pubsub_server, project, "commands")

    def read_by_the_pipeline() -> bool:
        with emulators.publisher_client(pubsub_server) as client:
            return bool(list(client.list_topic_subscriptions(topic=f"projects/{project}/topics/commands")))

    flags = [f"--input_topic=projects/{project}/topics/commands"]
    with running(tmp_path, "pipeline", *flags, PUBSUB_EMULATOR_HOST=pubsub_server) as child:
        wait_for(child, read_by_the_pipeline, 60)
        child.process.send_signal(number)
        assert child.process.wait(5) == 130
    assert (tmp_path / "log").read_text() == "Stopped.\n"
    assert not read_by_the_pipeline()


def test_up_prints_the_environment_and_leaves_no_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    with running(tmp_path, "up") as child:
        wait_for(child, lambda: "Running until Ctrl-C" in child.tail(), 60)
        exported = "; ".join(line for line in child.log.read_text().splitlines() if line.startswith("export "))
        names = [
            "PUBSUB_EMULATOR_HOST",
            "BIGQUERY_EMULATOR_HOST",
            "BIGQUERY_STORAGE_EMULATOR_HOST",
            "PROJECT_ID",
            "TOPIC_NAME",
            "SUBSCRIPTION_NAME",
            "BQ_TABLE",
        ]
        shell = f"{exported}; echo {' '.join(f'${name}' for name in names)}"
        pubsub, bigquery, storage, *rest = subprocess.check_output(["sh", "-c", shell], text=True).split()
        assert bigquery.startswith("http://127.0.0.1:")
        assert storage.startswith("127.0.0.1:")
        assert rest == [
            "sensor-stream-local",
            "sensor-readings",
            "sensor-readings-pipeline",
            "sensor-stream-local:sensors.readings",
        ]
        with emulators.publisher_client(pubsub) as client:
            assert [t.name for t in client.list_topics(project="projects/sensor-stream-local")] == [
                "projects/sensor-stream-local/topics/sensor-readings"
            ]
        child.process.send_signal(signal.SIGINT)
        assert child.process.wait(20) == 0
    assert not processes_matching(pubsub.rpartition(":")[2])
    assert not processes_matching(bigquery.rpartition(":")[2])


@pytest.mark.parametrize("terminal", [True, False])
def test_screen_shows_a_dash_for_null(terminal, tmp_path: Path) -> None:
    progress = Progress(("AtmP", "Temp"), 60, published=100, rows=[ROW], delays={ROW.start: 3.21}, dead_letters=3)
    progress.silent = ["device-1"]
    with (tmp_path / "output").open("w+") as file:
        with screen(Console(file=file, force_terminal=terminal, width=100), progress) as show:
            show()
        file.seek(0)
        output = file.read()
    for part in ("13:00:00", " - ", "20.500", "3.2 s", "published 100", "dead letters 3", "silent: device-1"):
        assert part in output


def test_screen_shows_least_and_greatest_values_beside_the_mean() -> None:
    row = Row(ROW.start, {"AtmP": None, "Temp": 20.5}, {"AtmP": (None, None), "Temp": (19.0, 21.25)})
    file = io.StringIO()
    with screen(Console(file=file), Progress(("AtmP", "Temp"), 60, rows=[row], delays={row.start: 3.21})) as show:
        show()
    assert "13:00:00  AtmP -  Temp 20.50 19.00..21.25  (after 3.2 s)" in file.getvalue()


@pytest.mark.parametrize(
    ("command", "flags", "problem"),
    [
        (("local", "up"), ["--pubsub-port=many"], "--pubsub-port: invalid int value: 'many'"),
        (("local", "up"), ["--port=1"], "unrecognized arguments: --port=1"),
        (("local.stack.pubsub_server",), ["--port=many"], "--port: invalid int value: 'many'"),
        (("local.stack.bigquery_server",), [], "the following arguments are required: --project"),
    ],
)
def test_wrong_flag_is_one_line_and_exit_code_2(command, flags, problem) -> None:
    done = run([sys.executable, "-m", *command, *flags], check=False)
    assert (done.returncode, done.stderr) == (2, f"error: {problem}\n")


@pytest.mark.parametrize(("command", "example"), [("demo", "DEMO_SECONDS=30"), ("soak", "SOAK_SECONDS=30")])
def test_flag_is_refused_with_the_variable_to_set_instead(command, example, capsys, monkeypatch) -> None:
    monkeypatch.setattr("local.__main__.interrupt_once", lambda: None)
    assert main([command, "--seconds=5"]) == 1
    assert capsys.readouterr().err == (
        f"error: the {command} takes no flags; {example} python -m local {command} runs a shorter one\n"
    )
