"""Seconds from launch to the job request, and what is imported for that, and on a worker.

    python -m benchmarks.startup    about two minutes, on the emulators; BENCH_QUICK=1 measures everything once

Launches are of the real entry point as Google's launcher starts it, up to the request that Dataflow would get, in place
of which there is a file. Everything is measured in fresh processes, with warm files.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import bigquery

from benchmarks.frame import QUICK, publish, take_turns
from local import emulators

PROJECT = "sensor-stream-bench"
_PARAMETERS = [f"--input_topic=projects/{PROJECT}/topics/readings", f"--output_table={PROJECT}:sensors.readings"]
_OFFLINE = ["--no_auth", "--dataflow_endpoint=http://localhost:1", "--sdk_container_image=pkg.dev/project/images/i:1"]

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
    with tempfile.TemporaryDirectory() as scratch, _services() as environment:
        folder = Path(scratch)
        places = {"temp_location": folder, "staging_location": folder, "template_location": folder / "job_object"}
        job = {"runner": "DataflowRunner", "project": PROJECT, "region": "europe-west1", "job_name": "bench", **places}
        flags = [*_PARAMETERS, *_OFFLINE, *(f"--{name}={value}" for name, value in job.items())]

        def launch(*more: str) -> float:
            """Return the seconds from the start of the entry point to the job request."""
            start = time.time()
            _python("-m", "pipeline.main", *flags, *more, env=environment)
            return (folder / "job_object").stat().st_mtime - start

        def phases() -> dict[str, float]:
            """Return the CPU seconds of each part of the entry point."""
            said = _python("-c", _PHASES, *flags, env=environment).splitlines()[-1]
            return {f"CPU of {phase}": seconds for phase, seconds in json.loads(said).items()}

        first = launch()
        turns: dict[str, Callable[[], dict[str, float]]] = {
            "checked": lambda: {"to the job request": launch()},
            "unchecked": lambda: {"to it with check_before_launch=false": launch("--check_before_launch=false")},
            "phases": phases,
            "launcher": lambda: _imports("the launcher", _LAUNCHER),
            "worker": lambda: _imports("a worker", _WORKER, *_pickled_functions(folder)),
        }
        found = take_turns(turns, 1 if QUICK else 7)
    rows: list[dict[str, Any]] = [{"": "to the job request, the first: makes tables", "seconds": first}]
    for rounds in found.values():
        rows += [{"": what, "seconds": [one[what] for one in rounds]} for what in rounds[0]]
    publish("startup", {"From launch to job request": rows})


@contextmanager
def _services() -> Iterator[dict[str, str]]:
    """Yield the environment of a launch: emulators with the topic and the dataset."""
    with emulators.own_pubsub_server() as pubsub, emulators.bigquery_emulator(PROJECT) as warehouse:
        emulators.create_topic(pubsub.host, PROJECT, "readings")
        dataset = bigquery.Dataset(f"{PROJECT}.sensors")
        dataset.location = "EU"
        emulators.bigquery_client(warehouse.host, PROJECT).create_dataset(dataset, exists_ok=True)
        yield {**os.environ, **pubsub.env, **warehouse.env}


def _python(*arguments: Any, **settings: Any) -> str:
    """Return what a new process prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **settings).stdout


def _imports(who: str, clocked: str, *arguments: Path) -> dict[str, float]:
    beams, ours = map(float, _python("-c", clocked, *arguments).split())
    return {f"CPU of what {who} imports: Beam's": beams, f"CPU of what {who} imports: ours, what it brings": ours}


def _pickled_functions(folder: Path) -> list[Path]:
    """Write each DoFn and CombineFn of the graph that was launched to a file, as workers get them."""
    launched = beam_runner_api_pb2.Pipeline.FromString((folder / "pipeline.pb").read_bytes())
    paths = []
    for number, transform in enumerate(launched.components.transforms.values()):
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            function = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn
        elif transform.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn:
            function = beam_runner_api_pb2.CombinePayload.FromString(transform.spec.payload).combine_fn
        else:
            continue
        paths.append(folder / f"function-{number}")
        paths[-1].write_bytes(function.payload)
    return paths


if __name__ == "__main__":
    main()
