"""The emulators serve Google's clients, leave no process, and report errors with their fix."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from local.stack import emulators
from local.stack.processes import LocalStackError, running, wait_for


def processes_matching(text: str) -> list[str]:
    """Return the command lines of running processes that contain `text`."""
    running = [one.info for one in psutil.process_iter(["status", "cmdline"])]
    lines = [" ".join(one["cmdline"] or ()) for one in running if one["status"] != psutil.STATUS_ZOMBIE]
    return [line for line in lines if text in line]


def test_emulators_serve_the_official_clients(pubsub_server: str, bigquery_emulator: str, project: str) -> None:
    topic = emulators.create_topic(pubsub_server, project, "emulators")
    subscription = emulators.create_subscription(pubsub_server, project, "emulators", "emulators")
    with emulators.publisher_client(pubsub_server) as publisher:
        publisher.publish(topic=topic, messages=[{"data": b"hello"}])
    with emulators.subscriber_client(pubsub_server) as subscriber:
        pulled = subscriber.pull(subscription=subscription, max_messages=1)
    assert [received.message.data for received in pulled.received_messages] == [b"hello"]

    host = bigquery_emulator.removeprefix("http://")
    assert emulators.create_dataset(host, project, "emulators") == f"{project}.emulators"
    assert [d.dataset_id for d in emulators.bigquery_client(host, project).list_datasets()].count("emulators") == 1


def test_create_functions_accept_existing_resources(pubsub_server: str, bigquery_emulator: str, project: str) -> None:
    for _ in range(2):
        emulators.create_topic(pubsub_server, project, "twice")
        emulators.create_subscription(pubsub_server, project, "twice", "twice")
        emulators.create_dataset(bigquery_emulator.removeprefix("http://"), project, "twice")


@pytest.mark.parametrize(
    "start", [emulators.pubsub_emulator, lambda _: emulators.own_pubsub_server(), emulators.bigquery_emulator]
)
def test_emulator_leaves_no_process_when_stopped(start, monkeypatch: pytest.MonkeyPatch, project: str) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    with start(project) as emulator:
        port = emulator.host.rpartition(":")[2]
        assert processes_matching(port)
    assert not processes_matching(port)


@pytest.mark.parametrize(
    ("start", "variable", "value", "host"),
    [
        (emulators.pubsub_emulator, "PUBSUB_EMULATOR_HOST", "127.0.0.1:1", "127.0.0.1:1"),
        (emulators.bigquery_emulator, "BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_emulator_of_the_environment_is_used(start, variable, value, host, monkeypatch) -> None:
    monkeypatch.delenv("BIGQUERY_STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PATH", "")
    with start("any-project") as emulator:
        assert emulator.host == host
        assert emulator.env == {variable: value}


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set PATH to an empty directory, and return it."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put_script(path: Path, body: str) -> None:
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)


def test_official_emulator_error_names_the_installation_without_gcloud(bare_path: Path) -> None:
    with (
        pytest.raises(LocalStackError, match=r"gcloud is not on PATH(?s:.*)gcloud components install"),
        emulators.official_pubsub_emulator("any-project"),
    ):
        pass


def test_official_emulator_error_names_java_when_missing(bare_path: Path) -> None:
    put_script(bare_path / "gcloud", "")
    with pytest.raises(LocalStackError, match="Java"), emulators.official_pubsub_emulator("any-project"):
        pass


def test_official_emulator_error_has_gclouds_message_and_the_fix_without_the_component(bare_path: Path) -> None:
    put_script(bare_path / "java", "")
    put_script(bare_path / "gcloud", "raise SystemExit('You need the [pubsub-emulator] component')")
    with pytest.raises(LocalStackError) as caught, emulators.official_pubsub_emulator("any-project"):
        pass
    assert "You need the [pubsub-emulator] component" in str(caught.value)
    assert "apt-get install google-cloud-cli-pubsub-emulator" in str(caught.value)
    assert "google/cloud-sdk:emulators" in str(caught.value)


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        ({}, "gcloud is not on PATH"),
        ({"gcloud": ""}, "Java is not on PATH"),
        ({"gcloud": "raise SystemExit('You need the [pubsub-emulator] component')", "java": ""}, "no such component"),
    ],
)
def test_pubsub_emulator_uses_our_server_and_prints_why(installed, reason, bare_path: Path, capsys) -> None:
    for name, body in installed.items():
        put_script(bare_path / name, body)
    with emulators.pubsub_emulator("any-project") as emulator:
        emulators.create_topic(emulator.host, "any-project", "stand-in")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Using local/stack/pubsub_server as Pub/Sub:")
    assert reason in line
    assert "install" in line


def test_pubsub_emulator_raises_when_the_official_one_fails(bare_path: Path) -> None:
    put_script(bare_path / "java", "")
    put_script(bare_path / "gcloud", "raise SystemExit('out of memory')")
    with pytest.raises(LocalStackError, match="out of memory"), emulators.pubsub_emulator("any-project"):
        pass


@pytest.mark.parametrize(
    ("start", "flag"),
    [
        (emulators.pubsub_emulator, "--pubsub-port"),
        (lambda _, port: emulators.own_pubsub_server(port), "--pubsub-port"),
        (emulators.bigquery_emulator, "--bigquery-port"),
    ],
)
def test_emulator_error_names_a_port_in_use_and_its_flag(start, flag, monkeypatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"Port {port}.*{flag}"), start("any-project", port):
            pass


def test_running_kills_a_child_and_its_child_that_ignore_sigterm(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("local.stack.processes.STOP_GRACE", 0.3)
    mark = f"stubborn-{os.getpid()}"
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stubborn!r}, {mark!r}])"
    with running("A stubborn child", [sys.executable, "-c", parent, mark], tmp_path / "log") as child:
        wait_for(child, lambda: "up" in child.tail(), 10)
        assert len(processes_matching(mark)) == 2
    deadline = time.monotonic() + 2
    while processes_matching(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes_matching(mark)


def test_running_stops_a_child_when_interrupted_during_its_start(tmp_path: Path, monkeypatch) -> None:
    real_spawn = subprocess.Popen
    started = []

    def spawn_then_ctrl_c(*args, **kwargs):
        process = real_spawn(*args, **kwargs)
        started.append(process)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr("subprocess.Popen", spawn_then_ctrl_c)
    with pytest.raises(KeyboardInterrupt), running("A child", ["sleep", "99"], tmp_path / "log"):
        pass
    assert started[0].returncode is not None


def test_wait_for_reports_the_log_of_a_child_that_ends_during_its_start(tmp_path: Path) -> None:
    with (
        running("The thing", [sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path / "log") as child,
        pytest.raises(LocalStackError, match=r"The thing ended while starting(?s:.*)no luck"),
    ):
        wait_for(child, lambda: False, 10)
