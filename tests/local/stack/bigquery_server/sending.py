"""Requests to AppendRows, sent with Google's client."""

from datetime import UTC, datetime
from typing import Any

from google.cloud.bigquery import SchemaField
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from local.stack.emulators import insecure_channel

COLUMNS = (
    SchemaField("Timestamp", "TIMESTAMP"),
    SchemaField("Device", "STRING"),
    SchemaField("Temp", "FLOAT"),
)
T0 = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
MICROS = 1_795_352_400_000_000  # T0 since 1970
FIELDS = {"Timestamp": "INT64", "Device": "STRING", "Temp": "DOUBLE"}
CHANGES = {**FIELDS, "_CHANGE_TYPE": "STRING", "_CHANGE_SEQUENCE_NUMBER": "STRING"}


def stream(table: str) -> str:
    """Return the name of the default stream of project.dataset.table."""
    project, dataset, name = table.split(".")
    return f"projects/{project}/datasets/{dataset}/tables/{name}/streams/_default"


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
    return types.AppendRowsRequest(write_stream=stream(table), proto_rows=data, **more)


def change(kind: str, minute: int, number: str, **row: Any) -> dict:
    stamp = MICROS + minute * 60_000_000
    return {"Timestamp": stamp, "_CHANGE_TYPE": kind, "_CHANGE_SEQUENCE_NUMBER": number, **row}


def upsert(minute: int, temp: float, number: str) -> dict:
    return change("UPSERT", minute, number, Temp=temp)


def delete(minute: int, number: str) -> dict:
    return change("DELETE", minute, number)


def write_client(host: str) -> BigQueryWriteClient:
    return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=insecure_channel(host)))


def append(client: BigQueryWriteClient, *requests: types.AppendRowsRequest) -> list[types.AppendRowsResponse]:
    """Send requests by one call and return the responses; a retry would send only the rest of the iterator."""
    return list(client.append_rows(iter(requests), retry=None, timeout=10))


def append_changes(client: BigQueryWriteClient, table: str, *changes: dict) -> None:
    (response,) = append(client, request(table, list(changes), CHANGES))
    assert not response.row_errors
    assert response.append_result is not None
