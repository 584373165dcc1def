"""A fake of Dataflow and Cloud Build for gcloud, and the launcher that Dataflow starts."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from apache_beam.portability.api import beam_runner_api_pb2

ROOT = Path(__file__).parents[3]
IMAGE = "europe-west1-docker.pkg.dev/sensor-stream-test/sensor-stream/pipeline:t1"

LAUNCH = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/flexTemplates:launch").fullmatch
JOB = re.compile(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs/([^/?]+)").fullmatch
BUILDS = re.compile(r"/v1/projects/([^/]+)/(locations/[^/]+/)?builds").fullmatch

# Pipeline options that the service sets from gcloud's flags.
ENVIRONMENT_FLAGS = {
    "maxWorkers": "max_num_workers",
    "numWorkers": "num_workers",
    "serviceAccountEmail": "service_account_email",
    "sdkContainerImage": "sdk_container_image",
}


def egrep(pattern: str, text: str) -> bool:
    """Return whether POSIX egrep, which the service uses to check parameters, finds the pattern."""
    return subprocess.run(["grep", "-qE", "-e", pattern], input=f"{text}\n", text=True, check=False).returncode == 0


def faults(metadata: dict[str, Any], given: dict[str, str]) -> list[str]:
    """Return the errors that the service reports about parameters before it starts anything."""
    declared = {parameter["name"]: parameter for parameter in metadata["parameters"]}
    unknown = [f"{name}: Unrecognized parameter" for name in given if name not in declared]
    missing = [
        f"{name}: Missing required parameter"
        for name, parameter in declared.items()
        if not parameter.get("isOptional") and name not in given
    ]
    mismatched = [
        f"{name}: {value!r} does not match {regex}"
        for name, value in given.items()
        for regex in declared.get(name, {}).get("regexes", [])
        if not egrep(regex, value)
    ]
    return unknown + missing + mismatched


@dataclass
class Launch:
    """One run of the entry point by the launcher, and the job request that it wrote."""

    directory: Path
    flags: list[str]
    exit_code: int
    stderr: str
    state: str

    @cached_property
    def request(self) -> dict[str, Any]:
        """The job request."""
        return json.loads((self.directory / "job_object").read_text())

    @cached_property
    def graph(self) -> beam_runner_api_pb2.Pipeline:
        """The graph that the request names."""
        graph = beam_runner_api_pb2.Pipeline()
        graph.ParseFromString((self.directory / "pipeline.pb").read_bytes())
        return graph


@dataclass
class FakeGoogle:
    """Google's services.

    `storage`/BUCKET/OBJECT stands for gs://BUCKET/OBJECT; `emulators` is the environment that points to the emulators.
    """

    storage: Path
    emulators: dict[str, str]
    launches: list[Launch] = field(default_factory=list)
    builds: list[dict[str, Any]] = field(default_factory=list)

    def path(self, url: str) -> Path:
        """Return the path of a gs:// URL."""
        return self.storage / url.removeprefix("gs://")

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and body of the answer to a request."""
        if match := LAUNCH(path):
            return self._launch(*match.groups(), body["launchParameter"])
        if match := JOB(path):
            launch = self.launches[int(match[1])]
            if method == "PUT":
                launch.state = body["requestedState"]
            return 200, {"id": match[1], "currentState": launch.state}
        if match := BUILDS(path):
            self.builds.append(body)
            build = {"id": "build-1", "projectId": match[1], "status": "QUEUED", "logUrl": "https://logs"}
            return 200, {"name": "operations/build/p/1", "metadata": {"@type": BUILD_METADATA, "build": build}}
        return 404, _error(404, f"the fake knows no {method} {path}")

    def store(self, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """Return the status and body of the answer to an upload."""
        return 404, _error(404, f"the fake takes no {path}")

    def _launch(self, project: str, region: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        spec = json.loads(self.path(asked["containerSpecGcsPath"]).read_text())
        parameters = asked.get("parameters", {})
        wrong = faults(spec["metadata"], parameters)
        if wrong:
            return 400, _error(400, "The template parameters are invalid. Details:\n" + "\n".join(wrong))

        job_id = str(len(self.launches))
        directory = self.storage / "launches" / job_id
        directory.mkdir(parents=True)
        # https://cloud.google.com/dataflow/docs/reference/rest/v1b3/ContainerSpec
        environment = {**spec.get("defaultEnvironment", {}), **asked.get("environment", {})}
        flags = {
            **parameters,
            **{flag: environment[key] for key, flag in ENVIRONMENT_FLAGS.items() if key in environment},
            "runner": "DataflowRunner",
            "project": project,
            "region": region,
            "job_name": asked["jobName"],
            "temp_location": directory,
            "staging_location": directory,
            "template_location": directory / "job_object",
        }
        self.launches.append(
            self._run_launcher(directory, sorted(f"--{name}={value}" for name, value in flags.items()))
        )
        return 200, {"job": {"id": job_id, "name": asked["jobName"], "projectId": project, "location": region}}

    def _run_launcher(self, directory: Path, flags: list[str]) -> Launch:
        # As in the image: a copy of main.py outside the package that it imports.
        entry_point = Path(shutil.copy(ROOT / "pipeline/main.py", directory))
        offline = ["--no_auth", "--dataflow_endpoint=http://localhost:1"]
        run = subprocess.run(
            [sys.executable, entry_point.name, *flags, *offline],
            cwd=directory,
            env={**os.environ, "SENSOR_STREAM_IMAGE": IMAGE, **self.emulators},
            capture_output=True,
            text=True,
            check=False,
        )
        state = "JOB_STATE_FAILED" if run.returncode else "JOB_STATE_RUNNING"
        return Launch(directory, flags, run.returncode, run.stderr, state)


BUILD_METADATA = "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata"


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": "INVALID_ARGUMENT"}}


@contextmanager
def serving(google: FakeGoogle) -> Iterator[str]:
    """Serve a fake on this machine; yields its address, http://HOST:PORT/."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            if path.startswith("/upload/"):
                status, answer = google.store(path, body)
            else:
                status, answer = google.answer(self.command, path, json.loads(body or b"{}"))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
