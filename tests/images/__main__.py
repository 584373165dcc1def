"""Builds all images and tests each of their roles: `make image-test`. Needs root, minutes, and 5 GB in TMPDIR.

Neither Docker nor a registry is needed: the Dockerfiles are built unchanged on the substitutes for their base images
that builds.py creates.
"""

import json
import socket
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from math import isclose
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import ExternalEnvironment

from local.stack import emulators
from local.stack.processes import LocalStackError, interrupt_once, running, wait_for
from pipeline import graph
from pipeline.launch import options
from tests.images.builds import Builder, builder

PROJECT = "image-test"
TOPIC = f"projects/{PROJECT}/topics/readings"
TEMPLATE = "registry.example/image-test/sensor-stream:1.2.3"
PUBLISHER = "registry.example/image-test/sensor-publisher:1.2.3"
DASHBOARD = "registry.example/image-test/sensor-dashboard:1.2.3"
STAMPS = {"VERSION": "1.2.3", "REVISION": "0123abc"}
READINGS = 600
TIMEOUT_SECONDS = 60.0  # seconds for the worker pool to start
STARTED = time.monotonic()


def main() -> int:
    """Build, run and check everything; returns the exit code."""
    interrupt_once(patient=True)
    try:
        with builder() as images:
            _check_images(images)
    except LocalStackError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _print("All images work in their roles")
    return 0


def _check_images(images: Builder) -> None:
    _print("Creating substitutes for the base images")
    images.create_bases()

    _print("Building the template image")
    added = images.build("Dockerfile", TEMPLATE, IMAGE=TEMPLATE, **STAMPS)
    _print(f"Template image: {added} MB on top of a bare Python (the real base has most of them)")
    template = images.container(TEMPLATE)
    _check_common(images, TEMPLATE, template)
    assert images.config(TEMPLATE)["Entrypoint"] == ["/opt/apache/beam/boot"]
    assert images.run(template, "ls", "/template") == "main.py"

    _print("Building the publisher image")
    added = images.build("publisher/Dockerfile", PUBLISHER, **STAMPS)
    _print(f"Publisher image: {added} MB on top of its base")
    publisher = images.container(PUBLISHER)
    _check_common(images, PUBLISHER, publisher)
    assert images.run(publisher, "id", "--user") != "0"
    assert "apache-beam" not in images.run(publisher, "pip", "list")

    _print("Building the dashboard image")
    added = images.build("dashboard/Dockerfile", DASHBOARD, **STAMPS)
    _print(f"Dashboard image: {added} MB on top of its base")
    dashboard = images.container(DASHBOARD)
    _check_common(images, DASHBOARD, dashboard)
    _check_dashboard(images, dashboard)

    with emulators.pubsub_emulator(PROJECT) as pubsub, emulators.bigquery_emulator(PROJECT) as bigquery:
        emulators.create_topic(pubsub.host, PROJECT, "readings")
        emulators.create_dataset(bigquery.host, PROJECT, "sensors")
        _check_launcher(images, template, {**pubsub.env, **bigquery.env})
        messages = _check_publisher(images, publisher, pubsub)
    _check_worker(images, template, messages)


def _check_common(images: Builder, image: str, container: str) -> None:
    labels = images.config(image)["Labels"]
    stamps = {name: labels[f"org.opencontainers.image.{name.lower()}"] for name in STAMPS}
    assert stamps == STAMPS, stamps
    _print(f"pip check: {images.run(container, 'pip', '--no-cache-dir', 'check')}")


def _check_launcher(images: Builder, template: str, env: dict[str, str]) -> None:
    """Check that the image creates a job request, as when the console starts the template."""
    with TemporaryDirectory() as directory:
        flags = {
            "dataflow_endpoint": "http://localhost:1",
            "input_topic": TOPIC,
            "job_name": "image-test",
            "output_table": f"{PROJECT}:sensors.readings",
            "project": PROJECT,
            "region": "us-central1",
            "runner": "DataflowRunner",
            "staging_location": directory,
            "temp_location": directory,
            "template_location": f"{directory}/job_object",
        }
        launch = ["/opt/google/dataflow/python_template_launcher", "--no_auth"]
        launch += [f"--{name}={value}" for name, value in flags.items()]
        images.run(template, *launch, env=env, volume=Path(directory))
        request = json.loads(Path(directory, "job_object").read_text())
        staged = sorted(path.name for path in Path(directory).iterdir())
    (pool,) = request["environment"]["workerPools"]
    assert request["type"] == "JOB_TYPE_STREAMING", request["type"]
    workers = {harness["containerImage"] for harness in pool["sdkHarnessContainerImages"]}
    assert workers == {TEMPLATE}, workers
    # The text file is Beam's list of installed packages. Every worker would install any other package that is staged.
    assert staged == ["job_object", "pipeline.pb", "submission_environment_dependencies.txt"], staged
    _print(f"As launcher: a streaming job request, {TEMPLATE} for its workers, no package to install")


def _check_publisher(images: Builder, publisher: str, pubsub: emulators.Emulator) -> list[bytes]:
    """Check that the image publishes half a minute of readings, and return their messages."""
    subscription = emulators.create_subscription(pubsub.host, PROJECT, "readings", "check")
    start = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    publish = ["python", "-m", "publisher", "publish", f"--topic={TOPIC}", f"--start={start}"]
    images.run(publisher, *publish, f"--messages={READINGS}", "--rate=20", env=pubsub.env)
    with emulators.subscriber_client(pubsub.host) as client:
        messages = [received.message.data for received in emulators.pull(client, subscription, READINGS + 1)]
    assert len(messages) == READINGS, f"{READINGS} readings published, {len(messages)} in the subscription"
    _print(f"The publisher published {len(messages)} readings")
    return messages


def _check_dashboard(images: Builder, dashboard: str) -> None:
    """Check that the image serves the page on PORT, as on Cloud Run."""
    assert images.run(dashboard, "id", "--user") != "0"
    assert "apache-beam" not in images.run(dashboard, "pip", "list")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as directory:
        start = [*images.config(DASHBOARD)["Entrypoint"], f"--table={PROJECT}:sensors.readings"]
        command = images.command(dashboard, *start, env={"PORT": str(port)})
        with running("The dashboard", command, Path(directory) / "log") as child:
            wait_for(child, lambda: _listens(port), TIMEOUT_SECONDS)
            with urlopen(f"http://127.0.0.1:{port}/") as page:
                assert b"Sensor Stream" in page.read()
    _print("The dashboard serves its page")


def _check_worker(images: Builder, template: str, messages: list[bytes]) -> None:
    """Check that the image's code computes the rows, in workers that it starts for a runner on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as directory:
        out = Path(directory)
        boot = images.command(template, "/opt/apache/beam/boot", "--worker_pool", f"--service_port={port}", volume=out)
        with running("The worker pool", boot, out / "log") as pool:
            wait_for(pool, lambda: _listens(port), TIMEOUT_SECONDS)
            job, beam_options = options.parse([f"--input_topic={TOPIC}"])
            runner = FnApiRunner(default_environment=ExternalEnvironment(f"localhost:{port}"))
            with beam.Pipeline(runner, beam_options) as pipeline:
                source = beam.Create([*messages, b"no JSON"])
                graph.build(pipeline, job, source, Append(out / "rows"), Append(out / "dead_letters"))
        rows, dead_letters = (
            [json.loads(line) for line in (out / name).read_text().splitlines()] for name in ("rows", "dead_letters")
        )
    assert [dead_letter["error"] for dead_letter in dead_letters] == ["NotJson"], dead_letters
    (code,) = {row["code"] for row in rows}
    assert code != graph.__file__, "the rows were computed outside of the image"
    means = {
        (datetime.fromisoformat(row["Timestamp"]), sensor): row[sensor]
        for row in rows
        for sensor in job.sensors
        if row[sensor] is not None
    }
    expected = _means(messages)
    assert means.keys() == expected.keys()
    assert all(isclose(mean, expected[key]) for key, mean in means.items())
    _print(f"As worker: {len(messages)} readings to {len(rows)} rows, each mean right, by {code}")


class Append(beam.PTransform):
    """Appends elements to a file as lines of JSON, with the path of the code that the worker runs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        return elements | beam.FlatMap(_append, self._path)


def _append(element: dict, path: str) -> list:
    with open(path, "a") as file:
        file.write(json.dumps({**element, "code": graph.__file__}) + "\n")
    return []


def _means(messages: list[bytes]) -> dict[tuple[datetime, str], float]:
    """Return the mean of each interval and sensor, computed without the pipeline."""
    values = defaultdict(list)
    for reading in map(json.loads, messages):
        moment = datetime.fromisoformat(reading["Timestamp"])
        start = moment.replace(second=moment.second // 15 * 15, microsecond=0)
        for sensor in reading.keys() - {"Timestamp", "Device"}:
            values[start, sensor].append(reading[sensor])
    return {key: fmean(several) for key, several in values.items()}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _print(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.0f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
