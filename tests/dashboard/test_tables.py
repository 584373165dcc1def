"""The queries of the page, its error messages and flags: everything that needs no browser."""

import asyncio
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.api_core.exceptions import BadRequest, Forbidden, NotFound, RetryError, ServiceUnavailable
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.cloud.bigquery import SchemaField
from starlette.datastructures import Headers

from dashboard.charts import spacing
from dashboard.feed import Balance, Feed, explain
from dashboard.flags import parse
from dashboard.queries import MOST_READINGS, Source, kinds_sql, readings_sql, rows_sql, unpack
from dashboard.server import AllowedHosts
from dashboard.tables import MOST_SENSORS, STATISTICS, Columns, Sensor, TableProblem
from pipeline.aggregate import statistics
from pipeline.launch.value_types import TABLE as TABLE_TYPE
from pipeline.sinks.bigquery import TableId

TABLE = TableId("my-project", "sensors", "readings")
DEAD_LETTERS = TableId("my-project", "sensors", "readings_dead_letters")
SOURCE = Source(TABLE, DEAD_LETTERS, None, timedelta(hours=1), 10**9)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def columns(text: str, sensors: str = "", statistics: str = "mean") -> Columns:
    schema = [SchemaField(*column.split(":")) for column in text.split(",")]
    return Columns.from_schema(TABLE, schema, sensors.split(",") if sensors else (), statistics.split(","))


def test_dashboard_imports_only_what_its_image_contains(tmp_path):
    """Import it from a folder with only what the Dockerfile copies, and without Beam."""
    for line in (ROOT / "dashboard/Dockerfile").read_text().replace("\\\n", "").splitlines():
        if line.startswith("COPY ") and line.split()[-1] != "./":
            *sources, target = line.split()[1:]
            (tmp_path / target).mkdir(parents=True, exist_ok=True)
            for source in (path for pattern in sources for path in ROOT.glob(pattern)):
                shutil.copy(source, tmp_path / target)
    loaded = """
import sys
sys.modules["apache_beam"] = None  # importing it fails
import dashboard.__main__
print(sorted({name.split(".")[0] for name, module in sys.modules.items()
    if module and (getattr(module, "__file__", None) or "").startswith(sys.path[0])}))"""
    answer = subprocess.check_output(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}){loaded}"]
    )
    assert answer.decode() == "['dashboard', 'pipeline']\n"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "the following arguments are required: --table"),
        (["--table=readings"], "'readings': expected project:dataset.table, for example my-project:sensors.readings"),
        (["--table=my-project:s.t", "--refresh=1"], "'1' is not a time; write a whole number with its unit"),
        (["--table=a:b:s.t"], "'a:b:s.t': expected project:dataset.table"),
        (["--table=my-project:s.t", "--span=0s"], "'0s' is not a time"),
        (["--table=my-project:s.t", "--span=800000d"], "'800000d' is longer than 3650d"),
        (["--table=my-project:s.t", "--refresh=999999999d"], "is longer than 3650d"),
        (["--table=my-project:s.t", "--max-bytes=99999999999T"], "is more than 9223372036854775807 bytes"),
        (["--table=my-project:s.t", "--sensors=Temp,AtmP,temp"], "'Temp,AtmP,temp' names a sensor twice"),
        (["--table=my-project:s.t", "--sensors=Temp;--"], "'Temp;--' is not the name of a sensor"),
        (["--table=my-project:s.t", "--statistics=min"], "--statistics needs --sensors"),
        (["--table=my-project:s.t", "--sensors=Temp", "--statistics=median"], "'median' is not one of mean, count"),
        (["--table=my-project:s.t", "--billing-project=Mine"], "'Mine' is not a project id"),
        (["--table=my-project:s.t", "--allowed-host=https://a.example"], "is not a host name; write it without scheme"),
        (["--table=my-project:s.t", "--host=no.such.host.invalid"], "cannot listen on no.such.host.invalid:8080"),
        (["--table=\x1b[31m\u202e\n"], r"'\x1b[31m\u202e\n': expected project:dataset.table"),
        (["--table=my-project:s.t", "--" + "x" * 5000], "unrecognized arguments: --xxx"),
        (["--table=my-project:s.t", "--max-bytes=lots"], "'lots' is not a size"),
        (["--table=my-project:s.t", "--port=99999"], "'99999' is not a port"),
        (["--table=my-project:s.t", "--host=192.0.2.1"], "cannot listen on 192.0.2.1:8080"),
    ],
)
def test_parse_exits_with_one_line_for_a_wrong_flag(flags, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(flags)
    output = capsys.readouterr().err
    assert (ended.value.code, output.count("\n"), output[:-1].isprintable(), len(output) < 700) == (2, 1, True, True)
    assert sentence in output


@pytest.mark.parametrize(
    "text",
    [
        "my-project:sensors.readings",
        "my-project.sensors.readings",
        "example.com:my-project:sensors.readings",
        "a:b:sensors.readings",
        "my project:sensors.readings",
        "my-project:sensors.readings.more",
        "my-project:sensors",
        "my-project:my-sensors.readings",
        "my-project:sensors.readings\n",
        "My-Project:sensors.readings",
    ],
)
def test_parse_accepts_the_table_names_that_the_pipeline_accepts(text):
    found = []
    for read in (TableId.parse, TABLE_TYPE.read, lambda text: parse([f"--table={text}", "--port=65000"]).table):
        try:
            found.append(read(text))
        except (ValueError, SystemExit):
            found.append(None)
    assert found == [found[0]] * 3
    if text == "example.com:my-project:sensors.readings":
        assert found[0] == TableId("example.com:my-project", "sensors", "readings")


def test_columns_follow_the_jobs_parameters():
    text = "Timestamp:TIMESTAMP,Temp:FLOAT64,Temp_out:FLOAT,Temp_max:FLOAT,Temp_out_max:FLOAT,N:INTEGER,Device:STRING"
    found = columns(text, "Temp,Temp_out", "mean,max")
    both = ("mean", "max")
    assert found == Columns((Sensor("Temp", "", both), Sensor("Temp_out", "", both)), device=True)
    assert found.shown == ("Timestamp", "Device", "Temp", "Temp_out", "Temp_max", "Temp_out_max")
    assert [sensor.name for sensor in columns(text).sensors] == ["Temp", "Temp_out", "Temp_max", "Temp_out_max"]
    assert columns("timestamp:TIMESTAMP,temp_sum:FLOAT", "Temp", "sum").shown == ("Timestamp", "Temp_sum")


def test_columns_have_the_names_of_the_pipeline():
    assert tuple(statistics.STATISTICS) == STATISTICS
    names = [name for name, _ in statistics.Statistics(STATISTICS).columns("Temp")]
    assert [Sensor("Temp").column(statistic) for statistic in STATISTICS] == names


def test_columns_and_rows_are_limited_for_many_sensors():
    found = columns("Timestamp:TIMESTAMP," + ",".join(f"S{i}:FLOAT" for i in range(2001)))
    assert (len(found.sensors), found.sensors[-1].name, found.more) == (MOST_SENSORS, "S49", 1951)
    assert rows_sql(TABLE, found).endswith(" LIMIT 4901")  # of 51 columns each, 250,000 values in all


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("received_at:TIMESTAMP,error:STRING", "has no column Timestamp of type TIMESTAMP: is it a table of rows?"),
        ("Timestamp:STRING,Temp:FLOAT", "has no column Timestamp of type TIMESTAMP: is it a table of rows?"),
        ("Timestamp:TIMESTAMP,Device:STRING", "has no FLOAT column, so there is no sensor to show."),
    ],
)
def test_columns_of_another_kind_of_table_raise_one_sentence(text, sentence):
    with pytest.raises(TableProblem) as refused:
        columns(text)
    assert str(refused.value) == f"Table my-project:sensors.readings {sentence}"


def test_queries_are_limited_by_partition_column_and_rows():
    plain = columns("Timestamp:TIMESTAMP,Temp:FLOAT")
    revised = columns("Timestamp:TIMESTAMP,Temp:FLOAT,Device:STRING,Revision:INTEGER,WrittenAt:TIMESTAMP")
    rows = "FROM `my-project.sensors.readings` AS `the table`"
    dead_letters = "FROM `my-project.sensors.readings_dead_letters` AS `the table`"
    for sql, bound, limit in [
        (rows_sql(TABLE, plain), f"{rows} WHERE Timestamp >= @since", 10_000),
        (rows_sql(TABLE, revised), f"{rows} WHERE Timestamp >= @since", 10_000),
        (kinds_sql(DEAD_LETTERS), f"{dead_letters} WHERE received_at >= @since", 50),
        (readings_sql(TABLE, "STRING"), f"{rows} WHERE publish_time >= @since", 2_000),
    ]:
        assert bound in sql
        assert sql.count("FROM `") == 1
        assert sql.endswith(f" LIMIT {limit}")


def test_spacing_is_that_of_most_rows():
    at = [NOON + timedelta(seconds=s) for s in (0, 15, 30, 75, 90)]
    assert spacing([*at, at[0]]) == timedelta(seconds=15)
    assert spacing(NOON + timedelta(seconds=s) for s in (0, 61, 80, 200)) is None
    assert spacing([NOON]) is None


SKEW = timedelta(minutes=10)
TEMP = Columns((Sensor("Temp"),))


def test_unpack_reads_timestamps_like_the_pipeline():
    seconds = NOON.timestamp()
    for stamp in ("2026-11-24T12:00:00Z", "2026-11-24T13:00:00+01:00", "2026-11-24 12:00:00", seconds, seconds * 1000):
        data = json.dumps([{"Timestamp": stamp, "Temp": 21, "Device": "d"}, {"Timestamp": stamp, "Wind": 3}, 5])
        for message in (data, data.encode()):
            found = unpack([(message, NOON)], TEMP, SKEW)
            assert [(one.time, one.device, one.values) for one in found] == [(NOON, "d", {"Temp": 21.0})]


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\xff",
        "[" * 2000 + "]" * 2000,
        '{"Temp": ' + "[" * 100_000,
        '{"Timestamp": "2026-11-24T12:00:00Z", "Temp": NaN}',
        '{"Timestamp": "2026-11-24T12:00:00Z", "Temp": "21"}',
        '{"Timestamp": "2026-11-24T12:00:00Z", "Temp": true}',
        '{"Timestamp": "2026-11-24T12:00:00Z", "Temp": 21, "Device": 5}',
        '{"Timestamp": "2026-11-24T12:00:00", "Temp": 21}',
        '{"Timestamp": "2026-W48-2", "Temp": 21}',
        '{"Timestamp": "1999-12-31T23:59:59Z", "Temp": 21}',
        '{"Timestamp": "2026-11-24T12:10:01Z", "Temp": 21}',
    ],
)
def test_unpack_leaves_out_refused_readings(data):
    good = '{"Timestamp": "2026-11-24T12:00:00Z", "Temp": 21}'
    assert len(unpack([(good, NOON), (data, NOON), (good, NOON)], TEMP, SKEW)) == 2


def test_unpack_limits_readings_of_packed_messages():
    data = json.dumps([{"Timestamp": "2026-11-24T12:00:00Z", "Temp": n} for n in range(300)])
    assert len(unpack([(data, NOON)] * 20, TEMP, SKEW)) == MOST_READINGS


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            NotFound("GET https://b/x: Not found: Table x"),
            "There is no such table (Not found: Table x): check the name",
        ),
        (Forbidden("Access Denied"), "No permission to read table my-project:sensors.readings (Access Denied): this"),
        (Forbidden("Quota exceeded: Your project"), "BigQuery cannot be reached or failed, last tried at "),
        (DefaultCredentialsError("none"), "No usable Google Cloud credentials (none): run gcloud auth"),
        (RefreshError("invalid_grant: expired"), "No usable Google Cloud credentials (invalid_grant: expired): run"),
        (
            RefreshError("Unable to acquire impersonated credentials", "denied"),
            "The caller may not impersonate the service account (Unable to acquire impersonated credentials; denied)",
        ),
        (RetryError("Timeout of 5.0s exceeded", NotFound("Table x")), "There is no such table (Table x): check"),
        (RetryError("Timeout of 5.0s exceeded", TransportError("no route")), "BigQuery cannot be reached or failed"),
        (BadRequest("Query exceeded limit for bytes billed: 1"), "A refresh would scan too much"),
        (ServiceUnavailable("later"), "BigQuery cannot be reached or failed, last tried at "),
        (KeyError("x"), "The page failed to read table my-project:sensors.readings (KeyError)"),
    ],
)
def test_explain_returns_one_sentence(error, sentence):
    output = explain(error, SOURCE)
    assert output.startswith(sentence)
    assert "\n" not in output


def test_explain_names_the_billing_project_without_permission():
    elsewhere = replace(SOURCE, billing_project="payer-project")
    assert "roles/bigquery.jobUser on project payer-project." in explain(Forbidden("Access Denied"), elsewhere)


@pytest.mark.timeout(30)
def test_feed_reports_expired_credentials_in_one_sentence(expired_credentials):
    feed = Feed(SOURCE, timedelta(seconds=10), None, lambda: True)
    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, feed.refresh()).result()
    assert feed.problem == (
        "No usable Google Cloud credentials (invalid_grant: Token has been expired or revoked): "
        "run gcloud auth application-default login."
    )


BAD_BALANCES = ["", "[]", '{"published": "many"}', '{"published": NaN}', '{"published": true}', "[" * 100_000]


@pytest.mark.parametrize("text", BAD_BALANCES)
def test_balance_read_raises_for_an_invalid_file(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(TableProblem, match="cannot be read"):
        Balance.read(tmp_path / "b.json")


def test_feed_refreshes_once_per_interval_for_any_number_of_viewers():
    """Two viewers come and go ten times between two refreshes."""

    async def count_refreshes(interval: timedelta, watched: bool) -> int:
        feed = Feed(SOURCE, interval, None, lambda: watched)
        refreshes = 0

        async def refresh() -> None:
            nonlocal refreshes
            refreshes += 1

        feed.refresh = refresh
        running = asyncio.ensure_future(feed.run())
        for _ in range(20):
            feed.wake()
            await asyncio.sleep(0)
        running.cancel()
        return refreshes

    # In another thread, because the browser's driver runs an event loop in this one.
    with ThreadPoolExecutor() as threads:
        assert threads.submit(asyncio.run, count_refreshes(timedelta(hours=1), watched=True)).result() == 1
        assert threads.submit(asyncio.run, count_refreshes(timedelta(hours=1), watched=False)).result() == 0
        assert threads.submit(asyncio.run, count_refreshes(timedelta(0), watched=True)).result() > 1


@pytest.mark.parametrize(
    ("listening", "names", "host", "origin", "admitted"),
    [
        ("127.0.0.1", [], "127.0.0.1:8080", None, True),
        ("127.0.0.1", [], "LOCALHOST:8080", "http://localhost:8080", True),
        ("127.0.0.1", [], "[::1]:8080", None, True),
        ("127.0.0.1", [], "evil.example:8080", None, False),
        ("127.0.0.1", [], "192.0.2.7:8080", None, False),
        ("127.0.0.1", [], "", None, False),
        ("127.0.0.1", [], "[::1", None, False),
        ("127.0.0.1", [], "localhost:8080", "http://evil.example", False),
        ("127.0.0.1", [], "localhost:8080", "http://localhost:3000", False),
        ("127.0.0.1", [], "localhost:8080", "null", False),
        ("127.0.0.1", [], "localhost.evil.example", None, False),
        ("192.0.2.7", [], "192.0.2.7:8080", "http://192.0.2.7:8080", True),
        ("0.0.0.0", [], "192.0.2.7:8080", "http://192.0.2.7:8080", True),
        ("::", [], "[2001:db8::1]:8080", None, True),
        ("0.0.0.0", [], "evil.example", None, False),
        ("0.0.0.0", ["page.example"], "page.example", "https://page.example", True),
        ("0.0.0.0", ["page.example", "localhost"], "page.example", "http://localhost:8080", True),
        ("0.0.0.0", ["page.example"], "page.example", "http://localhost:8080", False),
    ],
)
def test_admits_only_known_hosts_and_origins(listening, names, host, origin, admitted):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert AllowedHosts(listening, names).admits(Headers(headers)) is admitted
