"""What the page asks of BigQuery, and what it says when that fails; all that needs no browser."""

import ast
import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.api_core.exceptions import BadRequest, Forbidden, NotFound, ServiceUnavailable
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.bigquery import SchemaField

from dashboard.charts import spacing
from dashboard.feed import Balance, Feed, explain
from dashboard.flags import parse
from dashboard.queries import Source, kinds_sql, readings_sql, rows_sql, unpack
from dashboard.tables import Columns, TableName, TableProblem

TABLE = TableName("my-project", "sensors", "readings")
LETTERS = TableName("my-project", "sensors", "readings_dead_letters")
SOURCE = Source(TABLE, LETTERS, None, timedelta(hours=1), 10**9)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def columns(text: str) -> Columns:
    return Columns.of(TABLE, [SchemaField(*column.split(":")) for column in text.split(",")])


def test_it_imports_neither_beam_nor_anything_else_of_ours():
    modules = sorted((ROOT / "dashboard").glob("*.py"))
    nodes = [node for module in modules for node in ast.walk(ast.parse(module.read_text()))]
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {name.split(".")[0] for name in named} & ours == {"dashboard"}
    loaded = "import sys, dashboard.__main__; print('apache_beam' in sys.modules, 'nicegui' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], cwd=ROOT, text=True) == "False True\n"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "the following arguments are required: --table"),
        (["--table=readings"], "'readings' is not project:dataset.table, for example my-project:sensors.readings"),
        (["--table=my-project:s.t", "--refresh=1"], "'1' is not a time; write a whole number with its unit"),
        (["--table=my-project:s.t", "--span=0s"], "'0s' is not a time"),
        (["--table=my-project:s.t", "--max-bytes=lots"], "'lots' is not a size"),
        (["--table=my-project:s.t", "--port=99999"], "'99999' is not a port"),
        (["--table=my-project:s.t", "--host=192.0.2.1"], "cannot listen on 192.0.2.1:8080"),
    ],
)
def test_a_wrong_flag_is_one_line_before_the_start(flags, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(flags)
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert sentence in said


def test_a_table_is_named_as_the_pipeline_names_it():
    assert TableName.parse("my-project:sensors.readings") == TableName.parse("my-project.sensors.readings") == TABLE
    assert TableName.parse("example.com:my-project:sensors.readings").project == "example.com:my-project"


def test_columns_tell_sensors_from_their_statistics():
    found = columns(
        "Timestamp:TIMESTAMP,Temp:FLOAT64,Temp_out:FLOAT,Temp_max:FLOAT,Temp_count:INT64,N:INTEGER,"
        "Device:STRING,Revision:INTEGER,WrittenAt:TIMESTAMP"
    )
    assert found == Columns(("Temp", "Temp_out"), ("Temp_max", "Temp_count"), device=True, revised=True)
    assert found.counts == ("Temp_count",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("received_at:TIMESTAMP,error:STRING", "has no column Timestamp of type TIMESTAMP: is it a table of rows?"),
        ("Timestamp:STRING,Temp:FLOAT", "has no column Timestamp of type TIMESTAMP: is it a table of rows?"),
        ("Timestamp:TIMESTAMP,Device:STRING", "has no FLOAT column, so there is no sensor to show."),
    ],
)
def test_columns_of_another_kind_of_table_are_refused(text, sentence):
    with pytest.raises(TableProblem) as refused:
        columns(text)
    assert str(refused.value) == f"Table my-project:sensors.readings {sentence}"


def test_every_query_is_bounded_by_its_partition_column_and_in_rows():
    plain = columns("Timestamp:TIMESTAMP,Temp:FLOAT")
    revised = columns("Timestamp:TIMESTAMP,Temp:FLOAT,Device:STRING,Revision:INTEGER,WrittenAt:TIMESTAMP")
    for sql, bound, limit in [
        (rows_sql(TABLE, plain), "FROM `my-project.sensors.readings` WHERE Timestamp >= @since", 10_000),
        (rows_sql(TABLE, revised), "FROM `my-project.sensors.readings` WHERE Timestamp >= @since", 10_000),
        (kinds_sql(LETTERS), "FROM `my-project.sensors.readings_dead_letters` WHERE received_at >= @since", 50),
        (readings_sql(TABLE), "FROM `my-project.sensors.readings` WHERE publish_time >= @since", 2_000),
    ]:
        assert bound in sql
        assert sql.count("FROM `") == 1
        assert sql.endswith(f" LIMIT {limit}")


def test_rows_are_as_far_apart_as_most_of_them_are():
    at = [NOON + timedelta(seconds=s) for s in (0, 15, 30, 75, 90)]
    assert spacing([*at, at[0]]) == timedelta(seconds=15)
    assert spacing(NOON + timedelta(seconds=s) for s in (0, 61, 80, 200)) is None
    assert spacing([NOON]) is None


def test_readings_are_unpacked_as_the_pipeline_reads_them():
    seconds = NOON.timestamp()
    for stamp in ("2026-11-24T12:00:00Z", "2026-11-24T13:00:00+01:00", "2026-11-24 12:00:00", seconds, seconds * 1000):
        data = json.dumps([{"Timestamp": stamp, "Temp": 21, "Device": "d"}, {"Timestamp": stamp, "Wind": 3}, 5])
        assert [(one.time, one.device, one.values) for one in unpack(data, ["Temp"])] == [(NOON, "d", {"Temp": 21.0})]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            NotFound("GET https://b/x: Not found: Table x"),
            "There is no such table (Not found: Table x): check the name",
        ),
        (Forbidden("Access Denied"), "No permission to read table my-project:sensors.readings (Access Denied): this"),
        (Forbidden("Quota exceeded: Your project"), "BigQuery does not answer as it should, last tried at "),
        (DefaultCredentialsError("none"), "No usable Google Cloud credentials (none): run gcloud auth"),
        (BadRequest("Query exceeded limit for bytes billed: 1"), "A refresh would scan too much"),
        (ServiceUnavailable("later"), "BigQuery does not answer as it should, last tried at "),
        (KeyError("x"), "The page has failed to read table my-project:sensors.readings (KeyError)"),
    ],
)
def test_what_goes_wrong_is_one_sentence(error, sentence):
    said = explain(error, SOURCE)
    assert said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.parametrize("text", ["", "[]", '{"published": "many"}'])
def test_a_balance_that_is_none_is_said_to_be_so(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(TableProblem, match="cannot be read"):
        Balance.read(tmp_path / "b.json")


def test_one_look_serves_all_and_there_is_none_while_nobody_watches(bigquery_emulator, monkeypatch):
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator)

    async def looks(watched: bool, viewers: int) -> int:
        feed = Feed(SOURCE, None, lambda: watched)
        await asyncio.gather(*(feed.look() for _ in range(viewers)))
        return feed.looks

    # In a thread of its own: the browser's driver has a loop running in this one.
    with ThreadPoolExecutor() as threads:
        assert threads.submit(asyncio.run, looks(True, viewers=3)).result() == 1
        assert threads.submit(asyncio.run, looks(False, viewers=3)).result() == 0
