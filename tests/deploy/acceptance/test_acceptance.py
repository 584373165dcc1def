"""`make acceptance`, with the real gcloud, on emulators and a fake of the other services."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
import requests
from rich.console import Console

from deploy.acceptance import resources
from deploy.acceptance.__main__ import main
from deploy.acceptance.names import Run
from deploy.acceptance.project import Project, StepError
from deploy.acceptance.steps import Steps
from tests.deploy.acceptance.fake_project import FakeProject
from tests.deploy.template.fake_google import ROOT, Launch, serving
from tests.grants import granted, granted_by_script

PROJECT = "sensor-stream-test"
STEPS = [
    "services and storage",
    "accounts and grants",
    "build",
    "publish an hour, with faults",
    "launch",
    "every row compared",
    "metrics",
    "redrive",
    "update",
    "drain",
    "every row compared again",
]


@pytest.fixture
def google(pubsub_emulator: str, bigquery_emulator: str, tmp_path: Path) -> Iterator[FakeProject]:
    emulators = {"PUBSUB_EMULATOR_HOST": pubsub_emulator, "BIGQUERY_EMULATOR_HOST": bigquery_emulator}
    project = FakeProject(tmp_path / "storage", emulators)
    with project.running:
        yield project


@pytest.fixture
def env(google: FakeProject, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which gcloud talks to the fake project."""
    with serving(google) as address:
        services = [
            "STORAGE",
            "ARTIFACTREGISTRY",
            "IAM",
            "CLOUDRESOURCEMANAGER",
            "SERVICEUSAGE",
            "CLOUDBUILD",
            "DATAFLOW",
            "PUBSUB",
        ]
        yield {
            **os.environ,
            **google.emulators,
            **{f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": address for name in services},
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "NO_PROXY": "127.0.0.1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
        }


@pytest.fixture
def start(env: dict[str, str]) -> Callable[..., subprocess.Popen]:
    """A function of flags that runs acceptance in the project."""

    def run(*flags: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "deploy.acceptance", f"--project={PROJECT}", "--region=europe-west1", *flags]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def left_in_emulators(google: FakeProject) -> list[str]:
    pubsub = f"http://{google.emulators['PUBSUB_EMULATOR_HOST']}/v1/projects/{PROJECT}"
    found = [
        one["name"]
        for kind in ("topics", "subscriptions")
        for one in requests.get(f"{pubsub}/{kind}", timeout=10).json().get(kind, [])
    ]
    datasets = [dataset.dataset_id for dataset in google._bigquery().list_datasets()]
    return [name for name in [*found, *datasets] if "acceptance" in name]


def assert_nothing_is_left(google: FakeProject) -> None:
    assert google.made == set()
    assert left_in_emulators(google) == []
    project = google.policies.get(f"/v1/projects/{PROJECT}", {})
    assert not any(binding["members"] for binding in project.get("bindings", []))


@pytest.mark.timeout(300)
def test_run_passes_every_step_and_leaves_nothing(start, google):
    process = start("--rate=0.5", "--interval=5", "--live=2", "--pause=0.5")
    out, _ = process.communicate(timeout=280)
    print(out)  # pytest shows it if the test fails
    assert process.returncode == 0
    table = out.rpartition("Tear down\n")[2]
    assert re.findall(r"^ *passed +(.+?)  ", table, re.MULTILINE) == STEPS
    assert_nothing_is_left(google)
    assert [launch.state for launch in google.launches] == ["JOB_STATE_UPDATED", "JOB_STATE_DRAINED"]


def test_dry_run_prints_every_step_and_does_nothing(start, google):
    process = start("--dry-run")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    for step in ("Build", "Launch", "Redrive", "Update", "Drain", "Tear down"):
        assert f"\n{step}\n" in out
    made = [line for line in out.splitlines() if " create " in line and "gcloud" in line]
    gone = [line for line in out.partition("Tear down")[2].splitlines() if " delete " in line or " rm " in line]
    assert len(made) == 7
    assert len(gone) == 8  # the dataset as well
    assert (google.made, google.policies, google.builds) == (set(), {}, [])


def test_run_ends_at_a_failed_step_and_names_what_is_left(start, google):
    google.refuse = "/repositories"
    process = start("--pause=0.5")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "FAILED" in out
    assert "LEFT  gcloud artifacts repositories delete sensor-acceptance-" in out
    google.refuse = ""
    assert_nothing_is_left(google)


def test_run_tears_down_on_ctrl_c(start, google):
    process = start("--pause=0.5")
    for line in process.stdout:
        if "artifacts repositories create" in line:
            process.send_signal(signal.SIGINT)
            break
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    assert "stopped" in out
    assert_nothing_is_left(google)


@pytest.mark.parametrize("by", ["tear down", "the command that is shown"])
def test_tear_down_cancels_only_the_jobs_of_the_run(google, env, tmp_path, monkeypatch, by):
    run = Run(PROJECT, "europe-west1")
    for name in (run.name, "another"):
        google.names.append(name)
        google.launches.append(Launch(tmp_path, [], 0, "", "JOB_STATE_RUNNING"))
    project = Project(run, Console(), pause=0.1)
    cancelling = Steps(project, tmp_path).cancelling
    if by == "tear down":
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        project.register(cancelling)
        assert project.tear_down() == []
    else:
        subprocess.run(["bash", "-c", cancelling.command], env=env, check=True)
    assert [launch.state for launch in google.launches] == ["JOB_STATE_CANCELLED", "JOB_STATE_RUNNING"]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--project=12345678", "--project: '12345678' is not a project id"),
        ("--project=" + "\x1b\n" * 3_000, "--project: '\\\\x1b\\\\n"),
        ("--rate=nan", "--rate: expected a number above 0, not 'nan'"),
        ("--interval=1.5", "--interval: expected a number above 0, not '1.5'"),
        ("--pause=-1", "--pause: expected a number above 0, not '-1'"),
        ("--inter=5", "unrecognized arguments: --inter=5"),
    ],
)
def test_parse_refuses_a_wrong_flag_on_one_short_line(capsys, flag, expected):
    with pytest.raises(SystemExit, match="2"):
        main(["--project=my-project", "--region=europe-west1", flag])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")
    assert len(line) < 400


def test_main_creates_nothing_without_credentials(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    assert main(["--project=my-project", "--region=europe-west1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: No usable Google Cloud credentials (")


def test_accounts_have_the_grants_of_accounts_sh(tmp_path):
    run = Run("my-project", "europe-west1", suffix="abc123")
    shown = StringIO()
    resources.accounts(Project(run, Console(file=shown, soft_wrap=True), dry=True))
    text = shown.getvalue()
    for name, of_the_script in {
        run.name: "sensor-stream",
        run.dataset: "sensor_stream",
        "sensor-build-abc123": "sensor-stream-build",
        "sensor-worker-abc123": "sensor-stream-worker",
    }.items():
        text = text.replace(name, of_the_script)
    by_script = granted_by_script(tmp_path)
    # The grant on the dataset is not made with gcloud; see the next test.
    by_script.remove(("bigquery.dataEditor", "sensor-stream-worker", "dataset", "sensor_stream"))
    assert granted(line.strip() for line in text.splitlines()) == by_script


def test_dataset_grants_only_the_worker(google, env, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    run = Run(PROJECT, "europe-west1")
    project = Project(run, Console(quiet=True))
    resources._create_dataset(project, run.account("worker"))
    try:
        entries = google._bigquery().get_dataset(run.dataset).access_entries
        assert [(one.role, one.entity_id) for one in entries] == [("WRITER", run.account("worker"))]
    finally:
        assert project.tear_down() == []


class TestGrants:
    """gcloud is a stub that fails with the messages of the real one."""

    GRANT = ("projects", "add-iam-policy-binding", PROJECT)

    def grant(self, monkeypatch: pytest.MonkeyPatch, *failures: str) -> int:
        """Grant while gcloud fails with these messages; return the number of waits."""
        left, waits = list(failures), []

        def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
            return subprocess.CompletedProcess(command, int(bool(left)), "", left.pop(0) if left else "")

        monkeypatch.setattr("deploy.acceptance.project._run", run)
        monkeypatch.setattr("deploy.acceptance.project.time.sleep", waits.append)
        Project(Run(PROJECT, "europe-west1"), Console(quiet=True)).gcloud(*self.GRANT)
        return len(waits)

    def test_are_retried_for_a_new_account(self, monkeypatch):
        new = "ERROR: INVALID_ARGUMENT: Service account sensor-worker-1@p.iam.gserviceaccount.com does not exist."
        assert self.grant(monkeypatch, new, new) == 2

    @pytest.mark.parametrize(
        "failure", ["ERROR: NOT_FOUND: Requested entity was not found.", "The bucket does not exist."]
    )
    def test_fail_at_once_for_a_missing_resource(self, monkeypatch, failure):
        with pytest.raises(StepError, match=failure):
            self.grant(monkeypatch, failure)
