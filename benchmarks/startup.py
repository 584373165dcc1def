"""Seconds from launch to the job request, and the cost of imports for it and on a worker.

    python -m benchmarks.startup    about two minutes, on the emulators; BENCH_QUICK=1 measures everything once

The real entry point is started as Google's launcher starts it, up to the job request that Dataflow would receive, which
is written to a file. Everything is measured in fresh processes, with warm files.
"""

import json
import os
import sys
import time
from typing import Any

from benchmarks.frame import QUICK, publish
from local.stack.emulators import own_pubsub_server
from local.stack.local_stack import local_stack
from local.stack.processes import run, scratch_folder

PROJECT = "sensor-stream-bench"

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

atexit.register(lambda: print(json.dumps(seconds, allow_nan=False)))
"""

_LAUNCHER = f"""{_CLOCK}
with clocked("what the launcher imports: Beam's"):
    import apache_beam as beam
with clocked("what the launcher imports: ours, what it brings"):
    from pipeline import graph, main
    from pipeline.launch import options

options.parse = clocked("parameters")(options.parse)
main._check_resources = clocked("checks")(main._check_resources)
main._create_resources = clocked("tables and views")(main._create_resources)
graph.build = clocked("graph")(graph.build)
beam.Pipeline.run = clocked("submission")(beam.Pipeline.run)
sys.exit(main.main(sys.argv[1:]))
"""

# It gets the DoFns and CombineFns of the graph that was launched as workers do, pickled.
_WORKER = f"""{_CLOCK}
with clocked("what a worker imports: Beam's"):
    from apache_beam.runners.worker import sdk_worker_main
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2 as api

pickled = []
for transform in api.Pipeline.FromString(open(sys.argv[1], "rb").read()).components.transforms.values():
    if transform.spec.urn == "beam:transform:pardo:v1":
        pickled.append(api.ParDoPayload.FromString(transform.spec.payload).do_fn.payload)
    elif transform.spec.urn == "beam:transform:combine_per_key:v1":
        pickled.append(api.CombinePayload.FromString(transform.spec.payload).combine_fn.payload)
with clocked("what a worker imports: ours, what it brings"):
    for function in pickled:
        pickler.loads(function)
"""


def main() -> None:
    """Measure, print, and write build/bench/startup.json."""
    with (
        scratch_folder("bench-startup-") as scratch,
        local_stack(PROJECT, scratch, pubsub_server=own_pubsub_server()) as stack,
    ):
        os.environ |= stack.env
        request = scratch / "job_object"
        flags = [f"--input_topic={stack.topic}", f"--output_table={stack.table.replace('.', ':', 1)}", "--no_auth"]
        flags += ["--runner=DataflowRunner", f"--project={PROJECT}", "--region=us-central1", "--job_name=bench"]
        flags += ["--dataflow_endpoint=http://localhost:1", "--sdk_container_image=pkg.dev/project/images/i:1"]
        flags += [f"--temp_location={scratch}", f"--staging_location={scratch}", f"--template_location={request}"]

        def launch(*more: str) -> float:
            """Return the seconds from the start of the entry point to the job request."""
            start = time.time()
            _python("-m", "pipeline.main", *flags, *more)
            return request.stat().st_mtime - start

        rows: list[dict[str, Any]] = [{"": "to the job request, the first: creates tables", "seconds": launch()}]
        rounds = [
            {
                "to the job request": launch(),
                "to it with check_before_launch=false": launch("--check_before_launch=false"),
                **json.loads(_python("-c", _LAUNCHER, *flags)),
                **json.loads(_python("-c", _WORKER, f"{scratch}/pipeline.pb")),
            }
            for _ in range(1 if QUICK else 7)
        ]
    rows += [{"": what, "seconds": [one[what] for one in rounds]} for what in rounds[0]]
    publish("startup", {"From launch to job request": rows})


def _python(*arguments: str) -> str:
    """Return the last line that a new process prints, if it prints any."""
    printed = run([sys.executable, *arguments]).stdout
    return printed.strip().rpartition("\n")[-1]


if __name__ == "__main__":
    main()
