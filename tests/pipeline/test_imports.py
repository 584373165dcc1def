"""What a worker imports: a fresh process that gets the graph alone, unpickles each step and runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from local.stack.bigquery_server.append import StorageWriteServer
from local.stack.bigquery_server.tables import MemoryTables
from pipeline import graph, main
from pipeline.launch import options, tables
from pipeline.sinks.append_stream import EMULATOR
from tests.pipeline.conftest import message
from tests.pipeline.fake_bigquery import fake_bigquery

# What only the launcher, or an operator, has a use for.
NOT_ON_WORKERS = {"pipeline.main", "pipeline.launch", "pipeline.preview", "pipeline.graph", "pipeline.source"} | {
    *("local", "publisher", "redrive", "deploy", "benchmarks", "tests", "rich", "matplotlib", "duckdb")
}

IN_PROCESS = EmbeddedPythonEnvironment.default()

WORKER = """
import json, sys
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker import sdk_worker_main

before = set(sys.modules)
graph = beam_runner_api_pb2.Pipeline.FromString(Path(sys.argv[1]).read_bytes())
FnApiRunner().run_via_runner_api(graph, PipelineOptions([]))
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module", params=[("fixed", "streaming_inserts"), ("session", "upsert")], ids=str)
def imports(request, tmp_path_factory):
    """(modules of Beam's own worker, modules that our steps added), after a row and a dead letter were stored."""
    window, write_method = request.param
    flags = [f"--window={window}", f"--write_method={write_method}", "--input_topic=projects/test-project/topics/t-1"]
    job, beam_options = options.parse([*flags, "--output_table=test-project:sensors.readings"])
    pipeline = beam.Pipeline(options=beam_options)
    messages = beam.Create([message(1, Temp=1), b"bad"])
    graph.build(pipeline, job, messages, main._row_sink(job), main._dead_letter_sink(job))
    graph_file = tmp_path_factory.mktemp("graph") / "pipeline.pb"
    graph_file.write_bytes(pipeline.to_runner_api(default_environment=IN_PROCESS).SerializeToString())
    stored = MemoryTables()
    stored.create("test-project.sensors.readings", tables.row_columns(job.sensors, False, False), ("Timestamp",))
    stored.create("test-project.sensors.readings_dead_letters", tables.DEAD_LETTER_COLUMNS)
    with fake_bigquery() as bigquery, StorageWriteServer(stored) as server:
        ran = subprocess.run(
            [sys.executable, "-c", WORKER, graph_file],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "BIGQUERY_EMULATOR_HOST": bigquery.host, EMULATOR: server.host},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        rows, dead_letters = bigquery.rows("readings"), bigquery.rows("readings_dead_letters")
        if write_method == "upsert":
            rows, dead_letters = stored.rows.values()
        assert [row["Temp"] for row in rows] == [1.0]
        assert [found["error"] for found in dead_letters] == ["NotJson"]
    return json.loads(ran.stdout.splitlines()[-1])


def test_worker_without_steps_imports_nothing_of_the_pipeline(imports):
    assert not [name for name in imports[0] if name.split(".")[0] in {"pipeline", "msgspec"}]


def test_steps_import_only_modules_that_workers_run(imports):
    _, ours = imports
    assert "pipeline.aggregate.fold" in ours
    assert not NOT_ON_WORKERS & set(ours)


def test_steps_import_one_library_that_beam_does_not(imports):
    before, ours = imports
    new = {name.split(".")[0] for name in ours} - {name.split(".")[0] for name in before} - sys.stdlib_module_names
    assert {name for name in new if not name.startswith("_")} == {"pipeline", "msgspec"}
