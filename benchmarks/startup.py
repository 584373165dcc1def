"""Seconds from launch to the job request, and what is imported for that, and on a worker.

    python -m benchmarks.startup    about two minutes, on the emulators; BENCH_QUICK=1 measures everything once

Launches go through the fake of Google's services that `tests/template` uses: the real entry point in a process of its
own, up to the request that Dataflow would get. Everything is measured in fresh processes, with warm files.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import bigquery

from benchmarks.report import publish
from benchmarks.rounds import QUICK, take_turns
from local import emulators
from pipeline import graph, options, sinks
from pipeline.source import ReadMessages
from tests.template.fake_google import IMAGE, ROOT, FakeGoogle, Launch

_PROJECT = "sensor-stream-bench"
_SPEC = "gs://bench/spec.json"
_PARAMETERS = {
    "input_topic": f"projects/{_PROJECT}/topics/readings",
    "output_table": f"{_PROJECT}:sensors.readings",
}
# As the fake keeps the real entry point from calling Google.
_OFFLINE = ("--no_auth", "--dataflow_endpoint=http://localhost:1")

# Imports that a process begins with, then ours with what they bring, clocked.
_CLOCKED = "from time import process_time as cpu; t = cpu(); {}; u = cpu(); {}; print(u - t, cpu() - u)"
_LAUNCHER = _CLOCKED.format("import apache_beam", "import pipeline.main")
_WORKER = _CLOCKED.format(
    "from apache_beam.runners.worker import sdk_worker_main",
    "import sys; from apache_beam.internal import pickler; [pickler.loads(open(f, 'rb').read()) for f in sys.argv[1:]]",
)

_PHASES = """
import json, os, sys

def cpu():
    return sum(os.times()[:4])  # with that of child processes

start = cpu()
import apache_beam as beam
from pipeline import graph, main, options
seconds = {"imports": cpu() - start}

def timed(owner, name, phase):
    call = getattr(owner, name)
    def timed_call(*args, **kwargs):
        start = cpu()
        try:
            return call(*args, **kwargs)
        finally:
            seconds[phase] = cpu() - start
    setattr(owner, name, timed_call)

timed(options, "parse", "parameters")
timed(main, "_prepare_launch", "checks")
timed(graph, "build", "graph")
timed(beam.Pipeline, "run", "submission")
exit_code = main.main(sys.argv[1:])
print(json.dumps(seconds))
sys.exit(exit_code)
"""


def main() -> None:
    """Measure, print, and write build/bench/startup.json."""
    with tempfile.TemporaryDirectory() as scratch, _fake_google(Path(scratch)) as google:
        first = _launch(google)
        turns: dict[str, Callable[[], dict[str, float]]] = {
            "launch": lambda: {"to the job request": _launch(google)[1]},
            "unchecked": lambda: {"with check_before_launch=false": _launch(google, check_before_launch="false")[1]},
            "phases": lambda: _phases(google, first[0]),
            "launcher": lambda: _imports("the launcher", _LAUNCHER),
            "worker": lambda: _imports("a worker", _WORKER, *_pickled_functions(Path(scratch))),
        }
        found = take_turns(turns, 1 if QUICK else 5)
    rows: list[dict[str, Any]] = [{"": "to the job request, the first: makes tables", "seconds": first[1]}]
    for rounds in found.values():
        rows += [{"": what, "seconds": [one[what] for one in rounds]} for what in rounds[0]]
    publish("startup", {"From launch to job request": rows})


def _python(*arguments: Any, **settings: Any) -> str:
    """Return what a new process prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **settings).stdout


# --- imports ---


def _imports(who: str, clocked: str, *arguments: Path) -> dict[str, float]:
    beams, ours = map(float, _python("-c", clocked, *arguments).split())
    return {f"CPU of what {who} imports: Beam's": beams, f"CPU of what {who} imports: ours, what it brings": ours}


def _pickled_functions(directory: Path) -> list[Path]:
    """Write each DoFn and CombineFn of the shipped graph to a file, as workers get them."""
    job, beam_options = options.parse([f"--{name}={value}" for name, value in _PARAMETERS.items()])
    pipeline = beam.Pipeline(options=beam_options)
    source = ReadMessages(job.input_topic, None, None, None, False, runner_removes_duplicates=True)
    letters = sinks.DeadLetters(sinks.BigQueryDeadLetters(job.dead_letter_table), None)
    graph.build(pipeline, job, source, sinks.BigQueryRows(job.output_table), letters)
    paths = []
    for number, transform in enumerate(pipeline.to_runner_api().components.transforms.values()):
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            function = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn
        elif transform.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn:
            function = beam_runner_api_pb2.CombinePayload.FromString(transform.spec.payload).combine_fn
        else:
            continue
        paths.append(directory / f"function-{number}")
        paths[-1].write_bytes(function.payload)
    return paths


# --- launches ---


@contextmanager
def _fake_google(scratch: Path) -> Iterator[FakeGoogle]:
    """Yield Google's services: emulators with the topic and the dataset, and the template's spec in storage."""
    with (
        emulators.own_pubsub_server(log_dir=scratch) as pubsub,
        emulators.bigquery_emulator(_PROJECT, log_dir=scratch) as warehouse,
    ):
        emulators.create_topic(pubsub.host, _PROJECT, "readings")
        dataset = bigquery.Dataset(f"{_PROJECT}.sensors")
        dataset.location = "EU"
        emulators.bigquery_client(warehouse.host, _PROJECT).create_dataset(dataset, exists_ok=True)
        google = FakeGoogle(scratch / "storage", pubsub.env | warehouse.env)
        spec = google.path(_SPEC)
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"metadata": json.loads((ROOT / "metadata.json").read_text())}))
        yield google


def _launch(google: FakeGoogle, **parameters: str) -> tuple[Launch, float]:
    """Return a launch that succeeded, and the seconds from the start of its entry point to the job request."""
    path = f"/v1b3/projects/{_PROJECT}/locations/europe-west1/flexTemplates:launch"
    asked = {"containerSpecGcsPath": _SPEC, "jobName": "bench", "parameters": _PARAMETERS | parameters}
    status, answer = google.answer("POST", path, {"launchParameter": asked})
    launch = google.launches[-1] if status == 200 else None
    if launch is None or launch.exit_code or launch.request["type"] != "JOB_TYPE_STREAMING":
        raise RuntimeError(f"the launch failed: {launch.stderr if launch else answer}")
    # The entry point is copied just before it starts.
    copied, requested = (launch.directory / name for name in ("main.py", "job_object"))
    return launch, requested.stat().st_mtime - copied.stat().st_mtime


def _phases(google: FakeGoogle, launch: Launch) -> dict[str, float]:
    """Return the CPU seconds of each part of the entry point, launched once more."""
    environment = {**os.environ, "SENSOR_STREAM_IMAGE": IMAGE, **google.emulators}
    said = _python("-c", _PHASES, *launch.flags, *_OFFLINE, cwd=launch.directory, env=environment)
    return {f"CPU of {phase}": seconds for phase, seconds in json.loads(said.splitlines()[-1]).items()}


if __name__ == "__main__":
    main()
