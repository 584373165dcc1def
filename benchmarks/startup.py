"""Seconds from launch to the job request, and what is imported for that, and on a worker.

    python -m benchmarks.startup    about two minutes, on the emulators; BENCH_QUICK=1 measures everything once

Launches go through the fake of Google's services that `tests/template` uses: the real entry point in a process of its
own, up to the request that Dataflow would get. Everything is measured in fresh processes, with warm files.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import bigquery
from rich.console import Console
from rich.table import Table

from local import emulators
from pipeline import graph, options, sinks
from pipeline.source import ReadMessages
from tests.template.fake_google import IMAGE, ROOT, FakeGoogle, Launch

_OUT = Path("build/bench")
_PROJECT = "sensor-stream-bench"
_SPEC = "gs://bench/spec.json"
_PARAMETERS = {
    "input_topic": f"projects/{_PROJECT}/topics/readings",
    "output_table": f"{_PROJECT}:sensors.readings",
}
# As the fake keeps the real entry point from calling Google.
_OFFLINE = ("--no_auth", "--dataflow_endpoint=http://localhost:1")

# Imports that a process begins with, and those of ours; written between them to split what -X importtime reports.
_LAUNCHER = ("import apache_beam", "import pipeline.main")
_WORKER = (
    "from apache_beam.runners.worker import sdk_worker_main",
    "import sys; from apache_beam.internal import pickler; [pickler.loads(open(f, 'rb').read()) for f in sys.argv[1:]]",
)
_BETWEEN = "between"

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
    runs = 1 if os.environ.get("BENCH_QUICK") == "1" else 5
    console = Console(width=None if os.isatty(1) else 160)
    with tempfile.TemporaryDirectory() as scratch:
        console.print("[dim]imports")
        dofns = _pickled_dofns(Path(scratch))
        measured: dict[str, Any] = {
            "python": platform.python_version(),
            "beam": beam.__version__,
            "machine": platform.platform(),
            "runs": runs,
            "launcher": _imports(_LAUNCHER, (), runs),
            "worker": _imports(_WORKER, dofns, runs),
        }
        console.print("[dim]launches")
        with _fake_google(Path(scratch)) as google:
            first = _launch(google)
            measured |= {"first_launch": _request_after(first), "launch": [], "launch_unchecked": [], "phases": []}
            for _ in range(runs):
                measured["launch"].append(_request_after(_launch(google)))
                measured["launch_unchecked"].append(_request_after(_launch(google, check_before_launch="false")))
                measured["phases"].append(_phases(google, first))
    for table in _tables(measured):
        console.print(table)
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "startup.json").write_text(json.dumps(measured, indent=1) + "\n")
    console.print(f"Written: {_OUT}/startup.json", highlight=False)


# --- imports ---


def _imports(steps: tuple[str, str], arguments: Sequence[Any], runs: int) -> dict[str, Any]:
    """Return the CPU seconds of Beam's and of our imports, one per run, and milliseconds by package and by module."""
    clocked = f"from time import process_time as cpu; t = cpu(); {steps[0]}; u = cpu(); {steps[1]}; "
    clocked += "print(u - t, cpu() - u)"
    pairs = [tuple(map(float, _python("-c", clocked, *arguments).stdout.split())) for _ in range(runs)]
    reports = [_report(steps, arguments) for _ in range(runs)]
    return {
        "beam_seconds": [beams for beams, _ in pairs],
        "our_seconds": [ours for _, ours in pairs],
        "packages_ms": _least([_by_package(before + after) for before, after in reports]),
        "our_modules_ms": _least([_by_module(after) for _, after in reports]),
    }


def _report(steps: tuple[str, str], arguments: Sequence[Any]) -> tuple[list[tuple[str, float]], ...]:
    """Return (module, milliseconds without what it imports in turn) of the first step, and of the second."""
    mark = f"import sys; print('import time: 0 | 0 | {_BETWEEN}', file=sys.stderr)"
    lines = _python("-X", "importtime", "-c", "\n".join((steps[0], mark, steps[1])), *arguments).stderr.splitlines()
    fields = [line.removeprefix("import time:").split("|") for line in lines if line.startswith("import time:")]
    found = [(module.strip(), int(own) / 1000) for own, _, module in fields[1:]]
    middle = [module for module, _ in found].index(_BETWEEN)
    return found[:middle], found[middle + 1 :]


def _by_package(modules: list[tuple[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for module, milliseconds in modules:
        total[_package(module)] += milliseconds
    return dict(total)


def _by_module(modules: list[tuple[str, float]]) -> dict[str, float]:
    """Return our modules one by one, and the packages that they bring."""
    ours = [found for found in modules if _package(found[0]) == "pipeline"]
    return dict(ours) | _by_package([found for found in modules if found not in ours])


def _package(module: str) -> str:
    names = module.split(".")
    if names[0] in sys.stdlib_module_names or names[0] in ("sitecustomize", "usercustomize"):
        return "Python's own"
    return ".".join(names[:3]) if names[:2] == ["google", "cloud"] else ".".join(names[: 1 + (names[0] == "google")])


def _least(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the smallest of each, since whatever else the machine does only adds; the largest first."""
    smallest = {name: min(run.get(name, 0.0) for run in runs) for name in runs[0]}
    return dict(sorted(smallest.items(), key=lambda item: -item[1]))


def _pickled_dofns(directory: Path) -> list[Path]:
    """Write each DoFn and CombineFn of the shipped graph to a file, as workers get them."""
    job, beam_options = options.parse([f"--{name}={value}" for name, value in _PARAMETERS.items()])
    pipeline = beam.Pipeline(options=beam_options)
    source = ReadMessages(job.input_topic, None, None, None, False, runner_removes_duplicates=True)
    letters = sinks.DeadLetters(sinks.BigQueryDeadLetters(job.dead_letter_table), None)
    graph.build(pipeline, job, source, sinks.BigQueryRows(job.output_table), letters)
    paths = []
    for transform in pipeline.to_runner_api().components.transforms.values():
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            pickled = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload
        elif transform.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn:
            pickled = beam_runner_api_pb2.CombinePayload.FromString(transform.spec.payload).combine_fn.payload
        else:
            continue
        paths.append(directory / f"function-{len(paths)}")
        paths[-1].write_bytes(pickled)
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


def _launch(google: FakeGoogle, **parameters: str) -> Launch:
    """Return a launch that succeeded."""
    path = f"/v1b3/projects/{_PROJECT}/locations/europe-west1/flexTemplates:launch"
    asked = {"containerSpecGcsPath": _SPEC, "jobName": "bench", "parameters": _PARAMETERS | parameters}
    status, answer = google.answer("POST", path, {"launchParameter": asked})
    launch = google.launches[-1] if status == 200 else None
    if launch is None or launch.exit_code or launch.request["type"] != "JOB_TYPE_STREAMING":
        raise RuntimeError(f"the launch failed: {launch.stderr if launch else answer}")
    return launch


def _request_after(launch: Launch) -> float:
    """Return the seconds from the start of the entry point, which is copied just before, to the job request."""
    copied, requested = (launch.directory / name for name in ("main.py", "job_object"))
    return requested.stat().st_mtime - copied.stat().st_mtime


def _phases(google: FakeGoogle, launch: Launch) -> dict[str, float]:
    """Return the CPU seconds of each part of the entry point, launched once more."""
    environment = {**os.environ, "SENSOR_STREAM_IMAGE": IMAGE, **google.emulators}
    ran = _python("-c", _PHASES, *launch.flags, *_OFFLINE, cwd=launch.directory, env=environment)
    return json.loads(ran.stdout.splitlines()[-1])


def _python(*arguments: Any, **settings: Any) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True, **settings
    )


# --- report ---


def _tables(measured: dict[str, Any]) -> list[Table]:
    launches = _table("Seconds from launch to job request", "", "median", "range")
    for name, label in (("launch", "with every check"), ("launch_unchecked", "check_before_launch=false")):
        launches.add_row(label, *_spread(measured[name]))
    launches.add_row("with every check, the first: makes tables", f"{measured['first_launch']:.2f}", "")
    launches.add_section()
    for phase in measured["phases"][0]:
        launches.add_row(f"CPU of {phase}", *_spread([run[phase] for run in measured["phases"]]))
    imported = _table("Imports, CPU seconds", "", "median", "range")
    for place in ("launcher", "worker"):
        imported.add_row(f"{place}: Beam's", *_spread(measured[place]["beam_seconds"], digits=3))
        imported.add_row(f"{place}: ours, and what they bring", *_spread(measured[place]["our_seconds"], digits=3))
    packages = _table("The launcher's, -X importtime", "package", "ms")
    for package, milliseconds in list(measured["launcher"]["packages_ms"].items())[:10]:
        packages.add_row(package, f"{milliseconds:.0f}")
    modules = _table("What our steps add to a worker", "module", "ms")
    for module, milliseconds in measured["worker"]["our_modules_ms"].items():
        modules.add_row(module, f"{milliseconds:.1f}")
    return [launches, imported, packages, modules]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _spread(values: list[float], digits: int = 2) -> tuple[str, str]:
    return f"{statistics.median(values):.{digits}f}", f"{min(values):.{digits}f} - {max(values):.{digits}f}"


if __name__ == "__main__":
    main()
