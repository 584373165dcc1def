"""The template as cloudbuild.yaml builds it, launched by the real gcloud on a fake of Google's services."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud import bigquery

from local.stack.emulators import bigquery_client, create_subscription, create_topic
from tests.deploy.template.fake_google import ROOT, FakeGoogle, Launch, serving

SPEC = "gs://sensor-stream-test-sensor-stream/templates/t1.json"
IMAGES = "europe-west1-docker.pkg.dev/sensor-stream-test/sensor-stream"
DIGEST = f"{IMAGES}/pipeline@sha256:" + "1" * 64
# Every image has the digest 111..., and the last argument of `docker inspect` is the name of the image.
FAKE_DOCKER = f"""#!/bin/bash
echo "$@" >> docker-calls
[ "$1" != inspect ] || echo "${{!#%:*}}@sha256:{"1" * 64}"
"""
TOPIC = "projects/sensor-stream-test/topics/readings"
SUBSCRIPTION = "projects/sensor-stream-test/subscriptions/readings"
PAGES = "projects/sensor-stream-test/topics/pages"

Gcloud = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def google(
    gcloud_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    own_pubsub_server: str,
    bigquery_emulator: str,
    project: str,
) -> Iterator[FakeGoogle]:
    """Google's services, with the template's spec in storage, a topic, a subscription, and a dataset in the EU."""
    create_topic(own_pubsub_server, project, "readings")
    create_topic(own_pubsub_server, project, "pages")
    create_subscription(own_pubsub_server, project, "readings", "readings")
    dataset = bigquery.Dataset(f"{project}.sensors")
    dataset.location = "EU"
    bigquery_client(bigquery_emulator.removeprefix("http://"), project).create_dataset(dataset, exists_ok=True)
    emulators = {"PUBSUB_EMULATOR_HOST": own_pubsub_server, "BIGQUERY_EMULATOR_HOST": bigquery_emulator}
    google = FakeGoogle(tmp_path_factory.mktemp("storage"), emulators)
    google.path(SPEC).parent.mkdir(parents=True)
    with serving(google) as address:
        for service in ("DATAFLOW", "CLOUDBUILD"):
            gcloud_env[f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}"] = address
        yield google


@pytest.fixture(scope="session")
def gcloud(gcloud_env: dict[str, str], google: FakeGoogle) -> Gcloud:
    """A function of arguments that runs the real gcloud."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["gcloud", *arguments]
        return subprocess.run(command, cwd=ROOT, env=gcloud_env, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def cloudbuild() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())


@pytest.fixture(scope="session")
def run_step(
    cloudbuild: dict[str, Any], gcloud_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs the script of a step as Cloud Build does, in a copy of the source."""

    def run(step: str, workspace: Path, **env: str) -> subprocess.CompletedProcess:
        script = tmp_path_factory.mktemp("step") / "script"
        script.write_text(next(found["script"] for found in cloudbuild["steps"] if found["id"] == step))
        return subprocess.run(
            ["bash", script], cwd=workspace, env={**gcloud_env, **env}, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def built(run_step, google: FakeGoogle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after the steps that build; the calls of docker are in `docker-calls`."""
    workspace = tmp_path_factory.mktemp("workspace")
    shutil.copy(ROOT / "metadata.json", workspace)
    shutil.copytree(ROOT / "deploy/template", workspace / "deploy/template")
    for dockerfile in ("Dockerfile", "publisher/Dockerfile", "dashboard/Dockerfile"):
        (workspace / dockerfile).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / dockerfile, workspace / dockerfile)
    docker = workspace / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)

    env = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "IMAGES": IMAGES, "TAG": "t1", "REVISION": "abc"}
    for step in ("bases", "build", "push"):
        ran = run_step(step, workspace, **env)
        assert ran.returncode == 0, ran.stderr
    made = run_step("spec", workspace, SPEC=SPEC)
    assert made.returncode == 0, made.stderr
    shutil.copy(workspace / "spec.json", google.path(SPEC))
    return workspace


@pytest.fixture(scope="session")
def spec(built: Path) -> str:
    """The URL of the spec, written by the steps of cloudbuild.yaml."""
    return SPEC


@pytest.fixture(scope="session")
def launch(gcloud: Gcloud, google: FakeGoogle, spec: str) -> Callable[..., Launch | str]:
    """A function of parameters and region that returns the launch, or gcloud's error if the service refuses it."""

    def run(parameters: str, region: str = "europe-west1") -> Launch | str:
        before = len(google.launches)
        ran = gcloud(
            *("dataflow", "flex-template", "run", "sensors", f"--region={region}"),
            f"--template-file-gcs-location={spec}",
            "--service-account-email=sensor-stream-worker@sensor-stream-test.iam.gserviceaccount.com",
            f"--parameters={parameters}",
        )
        return google.launches[-1] if len(google.launches) > before else ran.stderr

    return run


@pytest.fixture(scope="session")
def fixed(launch) -> Launch:
    """A job with fixed windows, launched with every default."""
    return launch(
        f"input_subscription={SUBSCRIPTION},output_table=sensor-stream-test:sensors.fixed,"
        "timestamp_attribute=timestamp,id_attribute=reading_id"
    )


@pytest.fixture(scope="session")
def long(launch) -> Launch:
    """A job with fixed windows of a day for each device."""
    return launch(
        f"input_subscription={SUBSCRIPTION},output_table=sensor-stream-test:sensors.long,interval=24h,"
        "group_by_device=true"
    )


@pytest.fixture(scope="session")
def hopping(launch) -> Launch:
    """A job with hopping windows and every statistic."""
    return launch(
        f"^~^input_subscription={SUBSCRIPTION}~output_table=sensor-stream-test:sensors.hopping~window=hopping~hop=5s"
        "~statistics=mean,count,min,max,sum,stddev,first,last~timestamp_attribute=timestamp"
    )


@pytest.fixture(scope="session")
def session(launch) -> Launch:
    """A job with session windows and the other parameters that change the graph."""
    return launch(
        f"input_topic={TOPIC},output_table=sensor-stream-test:sensors.session,window=session,on_late=revise,"
        "group_by_device=true,keep_attributes=true"
    )


@pytest.fixture(scope="session")
def silences(launch) -> Launch:
    """A job with silence_after."""
    return launch(
        f"input_subscription={SUBSCRIPTION},output_table=sensor-stream-test:sensors.watched,silence_after=5m,"
        f"silence_topic={PAGES},fill_gaps=true"
    )
