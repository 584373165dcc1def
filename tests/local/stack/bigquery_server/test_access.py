"""Web pages cannot use the server, and SQL cannot use files."""

import http.client
import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery

from local.stack import emulators
from local.stack.processes import running, wait_for

JSON = {"Content-Type": "application/json"}
PAGE = "https://attacker.example"


class Http:
    """Sends HTTP requests to the server at `host`, as a browser or a program may."""

    def __init__(self, host: str) -> None:
        self.host = host

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = JSON) -> tuple[int, str]:
        """Send a request, with a body that is text or sent as JSON; returns status and text of the response."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        try:
            connection.request(method, path, body if isinstance(body, str) else json.dumps(body), dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def web(bigquery_server: emulators.Emulator) -> Http:
    return Http(bigquery_server.host)


@pytest.fixture
def bq(bigquery_server: emulators.Emulator, project: str) -> bigquery.Client:
    return emulators.bigquery_client(bigquery_server.host, project)


@pytest.fixture
def dataset(bq: bigquery.Client) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    bq.create_dataset(name)
    yield name
    bq.delete_dataset(name, delete_contents=True)


class TestWebPages:
    @pytest.fixture
    def query(self, project: str) -> tuple[str, dict[str, Any]]:
        return f"/bigquery/v2/projects/{project}/queries", {"query": "SELECT 1", "useLegacySql": False}

    def test_query_is_answered_for_a_program(self, web: Http, query) -> None:
        status, text = web.send("POST", *query)
        assert (status, json.loads(text)["rows"]) == (200, [{"f": [{"v": "1"}]}])

    @pytest.mark.parametrize("origin", [PAGE, "null", "http://127.0.0.1.attacker.example", "file://"])
    def test_query_is_refused_when_a_foreign_page_sends_it(self, web: Http, query, origin) -> None:
        status, text = web.send("POST", *query, {**JSON, "Origin": origin})
        assert (status, json.loads(text)["error"]["message"]) == (
            403,
            f"Requests of web pages from {origin} are not allowed.",
        )

    def test_query_is_answered_when_a_page_of_this_machine_sends_it(self, web: Http, query) -> None:
        assert web.send("POST", *query, {**JSON, "Origin": "http://localhost:8080"})[0] == 200

    @pytest.mark.parametrize(
        "content_type",
        # What a browser sends across sites without a preflight request.
        [{"Content-Type": kind} for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")]
        + [{}],
    )
    def test_query_is_refused_when_it_is_not_json(self, web: Http, query, content_type) -> None:
        assert web.send("POST", *query, content_type)[0] == 415

    @pytest.mark.parametrize("host", ["attacker.example", "attacker.example:9050", "127.0.0.1.attacker.example", ""])
    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    def test_methods_are_refused_for_a_foreign_host(self, web: Http, query, method, host) -> None:
        assert web.send(method, *query, {**JSON, "Host": host})[0] == 400

    def test_preflight_allows_nothing(self, web: Http, query) -> None:
        headers_of_preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        assert web.send("OPTIONS", query[0], "", headers_of_preflight)[0] == 403

    def test_call_without_a_body_needs_no_content_type(self, web: Http, project) -> None:
        status, _ = web.send("POST", f"/bigquery/v2/projects/{project}/jobs/no-such-job/cancel", "", {})
        assert status == 404

    def test_host_that_is_allowed_by_flag_is_answered(self, project, tmp_path) -> None:
        port = emulators.free_port()
        command = [sys.executable, "-m", "local.stack.bigquery_server", f"--project={project}", f"--rest-port={port}"]
        log = tmp_path / "bigquery.log"
        with running("The BigQuery server", [*command, "--allow-host=sensors.internal"], log) as child:
            wait_for(child, lambda: "Listening on" in child.tail(), emulators.START_TIMEOUT)
            web = Http(f"127.0.0.1:{port}")
            for host in ("sensors.internal", f"localhost:{port}"):
                assert web.send("GET", f"/bigquery/v2/projects/{project}/datasets", "", {"Host": host})[0] == 200
            assert web.send("GET", "/healthz", "", {"Host": "attacker.example"})[0] == 400

    @pytest.mark.parametrize("port", ["BIGQUERY_STORAGE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST"])
    def test_grpc_does_not_answer_what_a_browser_speaks(self, bigquery_server, own_pubsub_server, port) -> None:
        # Browsers speak HTTP/2 over TLS only; without TLS they send HTTP/1.1.
        host = {**bigquery_server.env, "PUBSUB_EMULATOR_HOST": own_pubsub_server}[port]
        with pytest.raises((http.client.HTTPException, OSError)):
            Http(host).send("POST", "/google.pubsub.v1.Publisher/CreateTopic", "", {"Content-Type": "text/plain"})


ATTACKS = {
    "write": "COPY (SELECT 'pwned' AS text) TO '{folder}/written.csv'",
    "export": "EXPORT DATA OPTIONS (uri = 'file://{folder}/exported-*.csv', format = 'CSV') AS SELECT 'pwned' AS text",
    "export_database": "EXPORT DATABASE '{folder}/database'",
    "read_text": "SELECT * FROM read_text('{secret}')",
    "read_csv": "SELECT * FROM read_csv('{secret}', header = false)",
    "read_by_name": "SELECT * FROM '{secret}'",
    "list": "SELECT * FROM glob('{folder}/*')",
    "attach": "ATTACH '{folder}/attached.db'",
    "install": "INSTALL httpfs",
    "load": "LOAD '{folder}/library.duckdb_extension'",
    "unlock": "SET enable_external_access = true",
    "profile": "PRAGMA profiling_output = '{folder}/profile.json'",
    "secret": "CREATE PERSISTENT SECRET s (TYPE http)",
    "spatial_read": "SELECT * FROM ST_Read('{secret}')",
    "spatial_write": "COPY (SELECT ST_Point(1, 2) AS g) TO '{folder}/g.json' WITH (FORMAT GDAL, DRIVER 'GeoJSON')",
    "temporary": "SET temp_directory = '{folder}'",
}


class TestFileAccess:
    """Requests of programs, because a page may find a way to send them."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Return a folder that contains only the file secret.csv with a line of text."""
        (tmp_path / "secret.csv").write_text("the secret of secret.csv\n")
        return tmp_path

    def assert_untouched(self, folder: Path, answer: str) -> None:
        assert "the secret of secret.csv" not in answer
        assert [path.name for path in folder.iterdir()] == ["secret.csv"]

    @pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
    @pytest.mark.parametrize("route", ["queries", "jobs", "script", "view", "function", "procedure", "policy"])
    def test_sql_uses_no_files_by_any_route(self, web: Http, bq, project, dataset, folder, route, attack) -> None:
        sql = attack.format(folder=folder, secret=folder / "secret.csv")
        projects, root = f"/bigquery/v2/projects/{project}", f"/bigquery/v2/projects/{project}/datasets/{dataset}"
        reference = {"projectId": project, "datasetId": dataset}
        query = {"query": sql, "useLegacySql": False}
        used = f"SELECT * FROM `{dataset}.thing`"
        answers: list[tuple[int, str]] = []

        def post(path: str, body: Any) -> None:
            answers.append(web.send("POST", path, body))

        match route:
            case "queries":
                post(f"{projects}/queries", query)
            case "jobs":
                post(f"{projects}/jobs", {"configuration": {"query": query}})
            case "script":
                post(f"{projects}/queries", {**query, "query": f"BEGIN SELECT 1; {sql}; END"})
                post(f"{projects}/queries", {**query, "query": f"EXECUTE IMMEDIATE '''{sql}'''"})
                post(f"{projects}/queries", {**query, "query": f"SELECT 1; {sql}"})
            case "view":
                view = {"tableReference": {**reference, "tableId": "thing"}, "view": query}
                post(f"{root}/tables", view)
                post(f"{root}/tables", {**view, "materializedView": {"query": sql}})
                post(f"{projects}/queries", {**query, "query": used})
            case "function" | "procedure":
                kind = "SCALAR_FUNCTION" if route == "function" else "PROCEDURE"
                body = f"({sql})" if route == "function" else f"BEGIN {sql}; END"
                routine = {"routineReference": {**reference, "routineId": "thing"}, "routineType": kind}
                post(f"{root}/routines", {**routine, "language": "SQL", "definitionBody": body})
                use = f"SELECT `{dataset}.thing`()" if route == "function" else f"CALL `{dataset}.thing`()"
                post(f"{projects}/queries", {**query, "query": use})
            case "policy":
                bq.create_table(bigquery.Table(f"{project}.{dataset}.thing", [bigquery.SchemaField("a", "STRING")]))
                policy = {"policyReference": {**reference, "tableId": "thing", "policyId": "p"}}
                post(f"{root}/tables/thing/rowAccessPolicies", {**policy, "filterPredicate": f"EXISTS({sql})"})
                post(f"{projects}/queries", {**query, "query": used})
        self.assert_untouched(folder, str(answers))
        # The server still works.
        assert web.send("POST", f"{projects}/queries", {**query, "query": "SELECT 1"})[0] == 200

    @pytest.mark.parametrize("uri", ["{secret}", "file://{secret}"])
    @pytest.mark.parametrize("file_format", ["CSV", "NEWLINE_DELIMITED_JSON", "PARQUET", "AVRO", "ORC"])
    def test_load_reads_no_files(self, web: Http, bq, project, dataset, folder, uri, file_format) -> None:
        bq.create_table(bigquery.Table(f"{project}.{dataset}.thing", [bigquery.SchemaField("a", "STRING")]))
        load = {
            "sourceUris": [uri.format(secret=folder / "secret.csv")],
            "sourceFormat": file_format,
            "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": "thing"},
        }
        _, text = web.send("POST", f"/bigquery/v2/projects/{project}/jobs", {"configuration": {"load": load}})
        assert "This server reads and writes no files" in text
        assert emulators.all_rows(bq, f"{dataset}.thing") == []

    @pytest.mark.parametrize("file_format", ["CSV", "NEWLINE_DELIMITED_JSON", "PARQUET", "AVRO"])
    def test_extract_writes_no_files(self, web: Http, bq, project, dataset, folder, file_format) -> None:
        bq.create_table(bigquery.Table(f"{project}.{dataset}.thing", [bigquery.SchemaField("a", "STRING")]))
        extract = {
            "sourceTable": {"projectId": project, "datasetId": dataset, "tableId": "thing"},
            "destinationUris": [f"file://{folder}/more/extracted"],
            "destinationFormat": file_format,
        }
        _, text = web.send("POST", f"/bigquery/v2/projects/{project}/jobs", {"configuration": {"extract": extract}})
        assert "This server reads and writes no files" in text
        self.assert_untouched(folder, text)

    def test_upload_is_refused(self, bq, dataset) -> None:
        with pytest.raises(exceptions.MethodNotImplemented, match="This server reads and writes no files"):
            bq.load_table_from_json([{"a": "1"}], f"{dataset}.thing", num_retries=0)
