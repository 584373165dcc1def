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
from pathlib import Path
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

from benchmarks.frame import QUICK, publish
from local import emulators

PROJECT = "sensor-stream-bench"
_FLAGS = [
    *(f"--input_topic=projects/{PROJECT}/topics/readings", f"--output_table={PROJECT}:sensors.readings"),
    *("--runner=DataflowRunner", f"--project={PROJECT}", "--region=us-central1", "--job_name=bench"),
    *("--no_auth", "--dataflow_endpoint=http://localhost:1", "--sdk_container_image=pkg.dev/project/images/i:1"),
]

_CLOCK = """
import atexit, json, os, sys, time
from contextlib import contextmanager

seconds = {}

def cpu():
    return time.process_time() + sum(os.times()[2:4])  # and that of child processes

@contextmanager
def clocked(part):
    start = cpu()
    yield
    seconds[f"CPU of {part}"] = cpu() - start

atexit.register(lambda: print(json.dumps(seconds)))
"""

_LAUNCHER = f"""{_CLOCK}
with clocked("what the launcher imports: Beam's"):
    import apache_beam as beam
with clocked("what the launcher imports: ours, what it brings"):
    from pipeline import graph, main, options

options.parse = clocked("parameters")(options.parse)
main._prepare_launch = clocked("checks")(main._prepare_launch)
graph.build = clocked("graph")(graph.build)
beam.Pipeline.run = clocked("submission")(beam.Pipeline.run)
sys.exit(main.main(sys.argv[1:]))
"""

_WORKER = f"""{_CLOCK}
with clocked("what a worker imports: Beam's"):
    from apache_beam.runners.worker import sdk_worker_main
with clocked("what a worker imports: ours, what it brings"):
    from apache_beam.internal import pickler
    for function in sys.argv[1:]:
        pickler.loads(open(function, "rb").read())
"""


def main() -> None:
    """Measure, print, and write build/bench/startup.json."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        emulators.own_pubsub_server() as pubsub,
        emulators.bigquery_emulator(PROJECT) as warehouse,
    ):
        os.environ |= {**pubsub.env, **warehouse.env}
        emulators.create_topic(pubsub.host, PROJECT, "readings")
        emulators.create_dataset(warehouse.host, PROJECT, "sensors")
        folder = Path(scratch)
        request = folder / "job_object"
        places = {"temp_location": folder, "staging_location": folder, "template_location": request}
        flags = [*_FLAGS, *(f"--{name}={place}" for name, place in places.items())]

        def launch(*more: str) -> float:
            """Return the seconds from the start of the entry point to the job request."""
            start = time.time()
            _python("-m", "pipeline.main", *flags, *more)
            return request.stat().st_mtime - start

        first = launch()
        functions = _pickled_functions(folder)
        rounds = [
            {
                "to the job request": launch(),
                "to it with check_before_launch=false": launch("--check_before_launch=false"),
                **json.loads(_python("-c", _LAUNCHER, *flags)),
                **json.loads(_python("-c", _WORKER, *functions)),
            }
            for _ in range(1 if QUICK else 7)
        ]
    rows = [{"": "to the job request, the first: makes tables", "seconds": first}]
    rows += [{"": what, "seconds": [one[what] for one in rounds]} for what in rounds[0]]
    publish("startup", {"From launch to job request": rows})


def _python(*arguments: Any) -> str:
    """Return the last line that a new process prints, if it prints any."""
    command = [sys.executable, *map(str, arguments)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return printed.strip().rpartition("\n")[-1]


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
