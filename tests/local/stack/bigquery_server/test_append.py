"""The Storage Write API with Google's client, on tables in memory."""

import queue
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigquery import SchemaField
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from local.stack.bigquery_server.append import StorageWriteServer
from local.stack.bigquery_server.tables import MemoryTables
from tests.local.stack.bigquery_server.sending import (
    CHANGES,
    COLUMNS,
    FIELDS,
    MICROS,
    T0,
    append,
    append_changes,
    delete,
    request,
    stream,
    upsert,
    write_client,
)

KEYED, PLAIN = "project.dataset.keyed", "project.dataset.plain"


@pytest.fixture
def tables() -> MemoryTables:
    made = MemoryTables()
    made.create(KEYED, COLUMNS, primary_key=("Timestamp",))
    made.create(PLAIN, COLUMNS)
    return made


@pytest.fixture
def server(tables) -> Iterator[StorageWriteServer]:
    with StorageWriteServer(tables) as running:
        yield running


@pytest.fixture
def client(server) -> BigQueryWriteClient:
    return write_client(server.host)


def temps(tables: MemoryTables) -> dict[int, float]:
    """Return Temp by minute after T0."""
    found = {(row["Timestamp"] - T0) // timedelta(minutes=1): row["Temp"] for row in tables.rows[KEYED]}
    assert len(found) == len(tables.rows[KEYED])
    return found


def refused(client: BigQueryWriteClient, error: type[Exception], *requests: types.AppendRowsRequest) -> str:
    with pytest.raises(error) as caught:
        append(client, *requests)
    return str(caught.value)


def test_append_stores_rows_of_several_requests_with_one_schema(client, tables, server) -> None:
    first = request(PLAIN, [{"Timestamp": MICROS, "Device": "d", "Temp": 1.5}, {}])
    then = types.AppendRowsRequest(proto_rows={"rows": first.proto_rows.rows})
    assert [response.write_stream for response in append(client, first, then)] == [stream(PLAIN)] * 2
    assert tables.rows[PLAIN] == [{"Timestamp": T0, "Device": "d", "Temp": 1.5}, {}] * 2
    assert {one.call for one in server.requests} == {0}


def test_change_with_the_greater_number_wins_in_any_order(client, tables) -> None:
    append_changes(client, KEYED, upsert(0, 2.0, "2"), upsert(0, 1.0, "1"), upsert(1, 5.0, "a/0"))
    assert temps(tables) == {0: 2.0, 1: 5.0}
    append_changes(client, KEYED, upsert(0, 1.5, "1/ffff"), upsert(1, 6.0, "A/1"), upsert(1, 5.5, "9/ff"))
    assert temps(tables) == {0: 2.0, 1: 6.0}


def test_last_change_wins_for_equal_numbers(client, tables) -> None:
    append_changes(client, KEYED, upsert(0, 1.0, "7"), upsert(0, 2.0, "07"))
    assert temps(tables) == {0: 2.0}
    append_changes(client, KEYED, upsert(0, 3.0, "7"))
    assert temps(tables) == {0: 3.0}


def test_delete_overrides_older_changes(client, tables) -> None:
    append_changes(client, KEYED, upsert(0, 1.0, "1"), upsert(1, 1.0, "1"))
    append_changes(client, KEYED, delete(0, "2"), delete(1, "0"), delete(2, "5"))
    assert temps(tables) == {1: 1.0}
    append_changes(client, KEYED, upsert(0, 3.0, "1"), upsert(2, 3.0, "4"))
    assert temps(tables) == {1: 1.0}
    append_changes(client, KEYED, upsert(0, 4.0, "3"))
    assert temps(tables) == {0: 4.0, 1: 1.0}


@pytest.mark.parametrize("number", ["", "x", "1/", "1/2/3/4/5", "0" * 17, "-1", "1//2"])
def test_malformed_number_is_an_error_of_its_row_only(number, client, tables) -> None:
    bad = request(KEYED, [upsert(0, 1.0, "1"), upsert(1, 2.0, number)], CHANGES)
    good = request(KEYED, [upsert(0, 1.0, "1")], CHANGES)
    first, then = append(client, bad, good)
    assert first.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "row_errors" in first.error.message
    (error,) = first.row_errors
    assert (error.index, error.code.name) == (1, "FIELDS_ERROR")
    assert "_CHANGE_SEQUENCE_NUMBER" in error.message
    assert not then.row_errors
    assert temps(tables) == {0: 1.0}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"_CHANGE_TYPE": "UPSERT"}, "Primary key column Timestamp is NULL"),
        ({"Timestamp": MICROS}, "_CHANGE_TYPE must be UPSERT or DELETE"),
        ({"Timestamp": MICROS, "_CHANGE_TYPE": "INSERT"}, "_CHANGE_TYPE must be UPSERT or DELETE"),
        ({"Timestamp": 10**18, "_CHANGE_TYPE": "UPSERT"}, "out of range"),
    ],
)
def test_append_stores_no_row_when_one_is_invalid(row, words, client, tables) -> None:
    (response,) = append(client, request(KEYED, [upsert(0, 1.0, "1"), row], CHANGES))
    (error,) = response.row_errors
    assert error.index == 1
    assert words in error.message
    assert tables.rows[KEYED] == []


def test_append_reports_a_row_that_cannot_be_parsed(client) -> None:
    broken = request(PLAIN, [])
    broken.proto_rows.rows.serialized_rows = [b"\xff"]
    (response,) = append(client, broken)
    assert [error.index for error in response.row_errors] == [0]


def test_required_column_must_be_in_the_schema_and_in_each_row(client, tables) -> None:
    tables.create("project.dataset.strict", (SchemaField("Timestamp", "TIMESTAMP", "REQUIRED"), COLUMNS[2]))
    assert "Timestamp" in refused(
        client, exceptions.InvalidArgument, request("project.dataset.strict", [], {"Temp": "DOUBLE"})
    )
    (response,) = append(
        client, request("project.dataset.strict", [{"Temp": 1.0}], {"Timestamp": "INT64", "Temp": "DOUBLE"})
    )
    assert "Timestamp is REQUIRED" in response.row_errors[0].message


def test_changes_end_the_call_for_a_table_without_a_key(client) -> None:
    message = refused(client, exceptions.InvalidArgument, request(PLAIN, [upsert(0, 1.0, "1")], CHANGES))
    assert "The primary keys of the table project.dataset.plain are required to create an upsert stream" in message


def test_unknown_fields_end_the_call(client) -> None:
    with pytest.raises(exceptions.InvalidArgument) as caught:
        append(client, request(PLAIN, [], {**FIELDS, "Wind": "DOUBLE", "Rain": "DOUBLE"}))
    assert "Input schema has more fields than BigQuery schema, extra fields: 'Wind', 'Rain'" in str(caught.value)
    assert "Entity: " + stream(PLAIN) in str(caught.value)
    (detail,) = caught.value.details
    assert types.StorageError.deserialize(detail.value).code.name == "SCHEMA_MISMATCH_EXTRA_FIELDS"


@pytest.mark.parametrize(
    ("field", "kind", "wanted"), [("Temp", "STRING", "FLOAT"), ("Timestamp", "STRING", "TIMESTAMP")]
)
def test_field_of_another_type_ends_the_call(field, kind, wanted, client) -> None:
    message = refused(client, exceptions.InvalidArgument, request(PLAIN, [], {**FIELDS, field: kind}))
    assert f"mismatched with BigQuery field at Row.{field}, the proto field type string" in message
    assert wanted in message


def test_missing_table_ends_the_call(client) -> None:
    with pytest.raises(exceptions.NotFound) as caught:
        append(client, request("project.dataset.absent", []))
    (detail,) = caught.value.details
    assert types.StorageError.deserialize(detail.value).code.name == "TABLE_NOT_FOUND"


def test_request_above_10_mb_ends_the_call(client, tables) -> None:
    large = [{"Device": "d" * 1_048_576}] * 10
    assert "too large" in refused(client, exceptions.InvalidArgument, request(PLAIN, large))
    append(client, request(PLAIN, large[:-1]))
    assert len(tables.rows[PLAIN]) == 9


def test_requests_that_default_streams_refuse_end_the_call(client) -> None:
    unnamed = types.AppendRowsRequest(proto_rows=request(PLAIN, []).proto_rows)
    assert "write_stream" in refused(client, exceptions.InvalidArgument, unnamed)
    unsaid = types.AppendRowsRequest(write_stream=stream(PLAIN), proto_rows={"rows": {}})
    assert "writer_schema" in refused(client, exceptions.InvalidArgument, unsaid)
    assert "offset" in refused(client, exceptions.InvalidArgument, request(PLAIN, [], offset=0))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "PERMISSION_DENIED"]
)
def test_fault_ends_a_call_before_or_after_rows_are_stored(code, stored, client, tables, server) -> None:
    server.faults.fail(grpc.StatusCode[code], stored=stored)
    row = request(PLAIN, [{"Temp": 1.0}])
    error = exceptions.from_grpc_status(grpc.StatusCode[code], "").__class__
    message = refused(client, error, row)
    assert ("TABLES_UPDATE_DATA" in message) == (code == "PERMISSION_DENIED")
    assert len(tables.rows[PLAIN]) == stored
    append(client, row)
    assert len(tables.rows[PLAIN]) == stored + 1


@pytest.mark.parametrize("stored", [True, False])
def test_fault_in_a_response_lets_the_call_go_on(stored, client, tables, server) -> None:
    server.faults.fail(grpc.StatusCode.ABORTED, in_answer=True, stored=stored)
    row = request(PLAIN, [{"Temp": 1.0}])
    first, then = append(client, row, row)
    assert first.error.code == grpc.StatusCode.ABORTED.value[0]
    assert not then.error.code
    assert len(tables.rows[PLAIN]) == 1 + stored


def test_faults_occur_in_order_and_only_for_their_table(client, tables, server) -> None:
    server.faults.fail(grpc.StatusCode.ABORTED, times=2, table="plain")
    server.faults.fail(grpc.StatusCode.INTERNAL, table="plain")
    append(client, request(KEYED, []))
    row = request(PLAIN, [{}])
    for error in (exceptions.Aborted, exceptions.Aborted, exceptions.InternalServerError):
        refused(client, error, row)
    append(client, row)


@pytest.mark.parametrize("stored", [True, False])
def test_fault_without_status_cuts_the_stream(stored, client, tables, server) -> None:
    server.faults.fail(None, stored=stored)
    assert append(client, request(PLAIN, [{}])) == []
    assert len(tables.rows[PLAIN]) == stored


def test_refuse_rows_rejects_chosen_rows(client, tables, server) -> None:
    server.faults.refuse_rows(lambda table, row: "too hot" if row.get("Temp", 0) > 99 else None)
    rows = [{"Temp": 100.0}, {"Temp": 1.0}, {"Temp": 101.0}]
    first, then = append(client, request(PLAIN, rows), request(PLAIN, rows[1:2]))
    assert [(error.index, error.message) for error in first.row_errors] == [(0, "too hot"), (2, "too hot")]
    assert not then.row_errors
    assert [row["Temp"] for row in tables.rows[PLAIN]] == [1.0]


def test_stall_lasts_until_it_is_released(client, tables, server) -> None:
    released = server.faults.stall()
    with pytest.raises(exceptions.DeadlineExceeded):
        list(client.append_rows(iter([request(PLAIN, [{}])]), retry=None, timeout=0.2))
    released.set()
    append(client, request(PLAIN, [{}]))


def test_go_away_closes_connections_and_accepts_new_ones(client, tables, server) -> None:
    waiting: queue.Queue[types.AppendRowsRequest | None] = queue.Queue()
    waiting.put(request(PLAIN, [{}]))
    answers = client.append_rows(iter(waiting.get, None), retry=None, timeout=10)
    assert next(iter(answers)).write_stream
    server.go_away()
    with pytest.raises((exceptions.Cancelled, exceptions.ServiceUnavailable)):
        next(iter(answers))
    waiting.put(None)
    append(client, request(PLAIN, [{}]))
    assert len(tables.rows[PLAIN]) == 2
    assert [one.call for one in server.requests] == [0, 1]
