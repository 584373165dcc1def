"""The Storage Write API as Google's own client sees it, on tables in memory."""

import queue
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigquery import SchemaField
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from local.bigquery_server.append import StorageWriteServer
from local.bigquery_server.tables import MemoryTables

COLUMNS = (
    SchemaField("Timestamp", "TIMESTAMP"),
    SchemaField("Device", "STRING"),
    SchemaField("Temp", "FLOAT"),
)
T0 = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
MICROS = 1_795_352_400_000_000  # T0 since 1970
STREAM = "projects/project/datasets/dataset/tables/{}/streams/_default"
KEYED, PLAIN = "project.dataset.keyed", "project.dataset.plain"
FIELDS = {"Timestamp": "INT64", "Device": "STRING", "Temp": "DOUBLE"}
CHANGES = {**FIELDS, "_CHANGE_TYPE": "STRING", "_CHANGE_SEQUENCE_NUMBER": "STRING"}


def descriptor(fields: dict[str, str]) -> DescriptorProto:
    proto = DescriptorProto(name="Row")
    for number, (name, kind) in enumerate(fields.items(), start=1):
        proto.field.add(
            name=name,
            number=number,
            type=FieldDescriptorProto.Type.Value(f"TYPE_{kind}"),
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    return proto


def request(table: str, rows: list[dict], fields: dict[str, str] = FIELDS, **more: Any) -> types.AppendRowsRequest:
    proto = descriptor(fields)
    pool = DescriptorPool()
    pool.Add(FileDescriptorProto(name="row.proto", syntax="proto2", message_type=[proto]))
    message = GetMessageClass(pool.FindMessageTypeByName("Row"))
    data = types.AppendRowsRequest.ProtoData(
        writer_schema=types.ProtoSchema(proto_descriptor=proto),
        rows=types.ProtoRows(serialized_rows=[message(**row).SerializeToString() for row in rows]),
    )
    return types.AppendRowsRequest(write_stream=STREAM.format(table), proto_rows=data, **more)


def change(kind: str, minute: int, number: str, **row: Any) -> dict:
    stamp = MICROS + minute * 60_000_000
    return {"Timestamp": stamp, "_CHANGE_TYPE": kind, "_CHANGE_SEQUENCE_NUMBER": number, **row}


def upsert(minute: int, temp: float, number: str) -> dict:
    return change("UPSERT", minute, number, Temp=temp)


def delete(minute: int, number: str) -> dict:
    return change("DELETE", minute, number)


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
    channel = grpc.insecure_channel(server.host)
    return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))


def append(client: BigQueryWriteClient, *requests: types.AppendRowsRequest) -> list[types.AppendRowsResponse]:
    """All answers to requests sent by one call. The client's own retry would send what is left of the iterator."""
    return list(client.append_rows(iter(requests), retry=None, timeout=10))


def append_changes(client: BigQueryWriteClient, *changes: dict) -> None:
    (response,) = append(client, request("keyed", list(changes), CHANGES))
    assert not response.row_errors
    assert response.append_result is not None


def temps(tables: MemoryTables) -> dict[int, float]:
    """Temp by minute after T0."""
    found = {(row["Timestamp"] - T0) // timedelta(minutes=1): row["Temp"] for row in tables.rows[KEYED]}
    assert len(found) == len(tables.rows[KEYED])
    return found


def refused(client: BigQueryWriteClient, error: type[Exception], *requests: types.AppendRowsRequest) -> str:
    with pytest.raises(error) as caught:
        append(client, *requests)
    return str(caught.value)


def test_rows_are_appended_by_one_call_that_says_its_schema_once(client, tables, server) -> None:
    first = request("plain", [{"Timestamp": MICROS, "Device": "d", "Temp": 1.5}, {}])
    then = types.AppendRowsRequest(proto_rows={"rows": first.proto_rows.rows})
    assert [response.write_stream for response in append(client, first, then)] == [STREAM.format("plain")] * 2
    assert tables.rows[PLAIN] == [{"Timestamp": T0, "Device": "d", "Temp": 1.5}, {}] * 2
    assert {one.call for one in server.requests} == {0}


def test_the_later_number_wins_whatever_comes_first(client, tables) -> None:
    append_changes(client, upsert(0, 2.0, "2"), upsert(0, 1.0, "1"), upsert(1, 5.0, "a/0"))
    assert temps(tables) == {0: 2.0, 1: 5.0}
    append_changes(client, upsert(0, 1.5, "1/ffff"), upsert(1, 6.0, "A/1"), upsert(1, 5.5, "9/ff"))
    assert temps(tables) == {0: 2.0, 1: 6.0}


def test_of_equal_numbers_the_one_that_comes_last_wins(client, tables) -> None:
    append_changes(client, upsert(0, 1.0, "7"), upsert(0, 2.0, "07"))
    assert temps(tables) == {0: 2.0}
    append_changes(client, upsert(0, 3.0, "7"))
    assert temps(tables) == {0: 3.0}


def test_a_deleted_row_stays_away_from_what_is_older(client, tables) -> None:
    append_changes(client, upsert(0, 1.0, "1"), upsert(1, 1.0, "1"))
    append_changes(client, delete(0, "2"), delete(1, "0"), delete(2, "5"))
    assert temps(tables) == {1: 1.0}
    append_changes(client, upsert(0, 3.0, "1"), upsert(2, 3.0, "4"))
    assert temps(tables) == {1: 1.0}
    append_changes(client, upsert(0, 4.0, "3"))
    assert temps(tables) == {0: 4.0, 1: 1.0}


@pytest.mark.parametrize("number", ["", "x", "1/", "1/2/3/4/5", "0" * 17, "-1", "1//2"])
def test_a_malformed_number_is_an_error_of_its_row_alone(number, client, tables) -> None:
    bad = request("keyed", [upsert(0, 1.0, "1"), upsert(1, 2.0, number)], CHANGES)
    good = request("keyed", [upsert(0, 1.0, "1")], CHANGES)
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
def test_a_row_that_cannot_be_stored_is_named_and_none_is_stored(row, words, client, tables) -> None:
    (response,) = append(client, request("keyed", [upsert(0, 1.0, "1"), row], CHANGES))
    (error,) = response.row_errors
    assert error.index == 1
    assert words in error.message
    assert tables.rows[KEYED] == []


def test_a_row_that_is_no_message_is_named(client) -> None:
    broken = request("plain", [])
    broken.proto_rows.rows.serialized_rows = [b"\xff"]
    (response,) = append(client, broken)
    assert [error.index for error in response.row_errors] == [0]


def test_a_required_column_must_be_in_the_schema_and_in_each_row(client, tables) -> None:
    tables.create("project.dataset.strict", (SchemaField("Timestamp", "TIMESTAMP", "REQUIRED"), COLUMNS[2]))
    assert "Timestamp" in refused(client, exceptions.InvalidArgument, request("strict", [], {"Temp": "DOUBLE"}))
    (response,) = append(client, request("strict", [{"Temp": 1.0}], {"Timestamp": "INT64", "Temp": "DOUBLE"}))
    assert "Timestamp is REQUIRED" in response.row_errors[0].message


def test_changes_to_a_table_without_a_key_end_the_call(client) -> None:
    said = refused(client, exceptions.InvalidArgument, request("plain", [upsert(0, 1.0, "1")], CHANGES))
    assert "The primary keys of the table project.dataset.plain are required to create an upsert stream" in said


def test_fields_that_the_table_has_not_end_the_call(client) -> None:
    with pytest.raises(exceptions.InvalidArgument) as caught:
        append(client, request("plain", [], {**FIELDS, "Wind": "DOUBLE", "Rain": "DOUBLE"}))
    assert "Input schema has more fields than BigQuery schema, extra fields: 'Wind', 'Rain'" in str(caught.value)
    assert "Entity: " + STREAM.format("plain") in str(caught.value)
    (detail,) = caught.value.details
    assert types.StorageError.deserialize(detail.value).code.name == "SCHEMA_MISMATCH_EXTRA_FIELDS"


@pytest.mark.parametrize(
    ("field", "kind", "wanted"), [("Temp", "STRING", "FLOAT"), ("Timestamp", "STRING", "TIMESTAMP")]
)
def test_a_field_of_another_type_ends_the_call(field, kind, wanted, client) -> None:
    said = refused(client, exceptions.InvalidArgument, request("plain", [], {**FIELDS, field: kind}))
    assert f"mismatched with BigQuery field at Row.{field}, the proto field type string" in said
    assert wanted in said


def test_a_table_that_is_not_there_ends_the_call(client) -> None:
    with pytest.raises(exceptions.NotFound) as caught:
        append(client, request("absent", []))
    (detail,) = caught.value.details
    assert types.StorageError.deserialize(detail.value).code.name == "TABLE_NOT_FOUND"


def test_a_request_of_more_than_10_mb_ends_the_call(client, tables) -> None:
    large = [{"Device": "d" * 1_048_576}] * 10
    assert "too large" in refused(client, exceptions.InvalidArgument, request("plain", large))
    append(client, request("plain", large[:-1]))
    assert len(tables.rows[PLAIN]) == 9


def test_what_a_default_stream_does_not_take_ends_the_call(client) -> None:
    unnamed = types.AppendRowsRequest(proto_rows=request("plain", []).proto_rows)
    assert "write_stream" in refused(client, exceptions.InvalidArgument, unnamed)
    unsaid = types.AppendRowsRequest(write_stream=STREAM.format("plain"), proto_rows={"rows": {}})
    assert "writer_schema" in refused(client, exceptions.InvalidArgument, unsaid)
    assert "offset" in refused(client, exceptions.InvalidArgument, request("plain", [], offset=0))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "PERMISSION_DENIED"]
)
def test_a_call_fails_on_command_before_or_after_the_rows_are_stored(code, stored, client, tables, server) -> None:
    server.faults.fail(grpc.StatusCode[code], stored=stored)
    row = request("plain", [{"Temp": 1.0}])
    error = exceptions.from_grpc_status(grpc.StatusCode[code], "").__class__
    said = refused(client, error, row)
    assert ("TABLES_UPDATE_DATA" in said) == (code == "PERMISSION_DENIED")
    assert len(tables.rows[PLAIN]) == stored
    append(client, row)
    assert len(tables.rows[PLAIN]) == stored + 1


def test_an_answer_fails_on_command_and_the_call_goes_on(client, tables, server) -> None:
    server.faults.fail(grpc.StatusCode.ABORTED, in_answer=True)
    row = request("plain", [{"Temp": 1.0}])
    first, then = append(client, row, row)
    assert first.error.code == grpc.StatusCode.ABORTED.value[0]
    assert not then.error.code
    assert len(tables.rows[PLAIN]) == 1


def test_faults_come_in_their_order_and_only_to_their_table(client, tables, server) -> None:
    server.faults.fail(grpc.StatusCode.ABORTED, times=2, table="plain")
    server.faults.fail(grpc.StatusCode.INTERNAL, table="plain")
    append(client, request("keyed", []))
    row = request("plain", [{}])
    for error in (exceptions.Aborted, exceptions.Aborted, exceptions.InternalServerError):
        refused(client, error, row)
    append(client, row)


@pytest.mark.parametrize("stored", [True, False])
def test_a_stream_is_cut_on_command(stored, client, tables, server) -> None:
    server.faults.fail(None, stored=stored)
    assert append(client, request("plain", [{}])) == []
    assert len(tables.rows[PLAIN]) == stored


def test_rows_are_refused_on_command(client, tables, server) -> None:
    server.faults.refuse_rows(lambda table, row: "too hot" if row.get("Temp", 0) > 99 else None)
    rows = [{"Temp": 100.0}, {"Temp": 1.0}, {"Temp": 101.0}]
    first, then = append(client, request("plain", rows), request("plain", rows[1:2]))
    assert [(error.index, error.message) for error in first.row_errors] == [(0, "too hot"), (2, "too hot")]
    assert not then.row_errors
    assert [row["Temp"] for row in tables.rows[PLAIN]] == [1.0]


def test_a_stall_outlasts_the_clients_patience_and_ends_on_command(client, tables, server) -> None:
    released = server.faults.stall()
    with pytest.raises(exceptions.DeadlineExceeded):
        list(client.append_rows(iter([request("plain", [{}])]), retry=None, timeout=0.2))
    released.set()
    append(client, request("plain", [{}]))


def test_a_connection_is_told_to_go_away_and_the_next_one_works(client, tables, server) -> None:
    waiting: queue.Queue[types.AppendRowsRequest | None] = queue.Queue()
    waiting.put(request("plain", [{}]))
    answers = client.append_rows(iter(waiting.get, None), retry=None, timeout=10)
    assert next(iter(answers)).write_stream
    server.go_away()
    with pytest.raises((exceptions.Cancelled, exceptions.ServiceUnavailable)):
        next(iter(answers))
    waiting.put(None)
    append(client, request("plain", [{}]))
    assert len(tables.rows[PLAIN]) == 2
    assert [one.call for one in server.requests] == [0, 1]
