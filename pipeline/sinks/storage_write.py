"""Rows and dead letters through BigQuery's Storage Write API: appended, or upserted by their key.

Both are written at least once. An appended row whose confirmation was lost is in the table twice. An upserted row, by
BigQuery's change data capture, replaces the one with its key if its change sequence number is greater:

    job started at 18f2ebb6480, row                       UPSERT  18f2ebb6480/0/6278e6b0b8a40
    the same row from a retried bundle                    UPSERT  18f2ebb6480/0/6278e6b18e1c0    wins over the row above
    the same job, its first revision                      UPSERT  18f2ebb6480/1/6278e6b1fae80    wins over both
    the same job, after the row's session was joined      DELETE  18f2ebb6480/2/6278e6b2efba0    wins over all three
    a later job, from the same readings                   UPSERT  18f2ebc0000/0/6278e8d33b240    wins over all four

A runner may retry a bundle that has appended rows, with other readings in it. The rows of both attempts then have the
same revision, and the one with the later WrittenAt wins.

https://cloud.google.com/bigquery/docs/change-data-capture
"""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import apache_beam as beam
from google.cloud import bigquery
from google.protobuf.descriptor_pb2 import (  # type: ignore[import-untyped]
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from pipeline.dead_letters import in_parts
from pipeline.rows import CHANGE_SEQUENCE_NUMBER, CHANGE_TYPE, REVISION, WRITTEN_AT
from pipeline.sinks.append_stream import shared_stream
from pipeline.sinks.batches import RowErrors, WriteInBatches
from pipeline.sinks.bigquery import TableId
from pipeline.sinks.rejected_rows import LogRejectedDeadLetters, RejectedRow

CHANGE_COLUMNS = tuple(bigquery.SchemaField(name, "STRING") for name in (CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER))

Columns = Sequence[bigquery.SchemaField]


class AppendRows(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[RejectedRow]]):
    """Appends rows to an existing table; returns a `RejectedRow` for each that BigQuery rejects.

    Args:
      table_id: the table.
      columns: its columns that rows have.
    """

    def __init__(self, table_id: TableId, columns: Columns):
        super().__init__()
        self._append = _Append(table_id, columns)

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return rows | "Append" >> beam.ParDo(self._append)


class UpsertRows(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[RejectedRow]]):
    """Writes each row in place of the row with the same key; a row without values deletes that row.

    Rows have the columns Revision, by which the later one wins, and WrittenAt, which decides between rows of the same
    revision; neither is written. A key column that is None is written as "", since a key must not be NULL. Returns a
    `RejectedRow` for each that BigQuery rejects.

    Args:
      table_id: the table.
      columns: its columns that rows have.
      key: the columns of its primary key.
      job_start: milliseconds since the epoch; the rows of a job that started later win.
    """

    def __init__(self, table_id: TableId, columns: Columns, key: Sequence[str], job_start: int):
        super().__init__()
        self._key = tuple(key)
        self._job_start = job_start
        self._append = _Append(table_id, (*columns, *CHANGE_COLUMNS))

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return (
            rows
            | "ToChanges" >> beam.Map(to_change, self._key, self._job_start).with_output_types(Any)
            | "Append" >> beam.ParDo(self._append)
        )


class AppendDeadLetters(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[None]]):
    """Appends dead letters to an existing table; those that BigQuery rejects go to the log with their payload."""

    def __init__(self, table_id: TableId, columns: Columns):
        super().__init__()
        self._append = _Append(table_id, columns)

    def expand(self, dead_letters: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return (
            dead_letters
            | "InParts" >> beam.FlatMap(in_parts).with_output_types(Any)
            | "Append" >> beam.ParDo(self._append)
            | "Log" >> LogRejectedDeadLetters()
        )


class AfterReshuffle(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[Any]]):
    """Hands rows to a sink after a Reshuffle, so that the sink gets only rows that a retry cannot change."""

    def __init__(self, sink: beam.PTransform[Any, Any]):
        super().__init__()
        self._sink = sink

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return rows | "Reshuffle" >> beam.Reshuffle() | "Store" >> self._sink


def to_change(row: dict[str, Any], key: Sequence[str], job_start: int) -> dict[str, Any]:
    """Return `row` as a change, an upsert or a delete, of a table with this key; see `UpsertRows` for the arguments."""
    values = {name: value for name, value in row.items() if name not in (REVISION, WRITTEN_AT)}
    retracted = all(value is None for name, value in values.items() if name not in key)
    return {
        **values,
        **{name: "" for name in key if values[name] is None},
        CHANGE_TYPE: "DELETE" if retracted else "UPSERT",
        CHANGE_SEQUENCE_NUMBER: f"{job_start:x}/{row[REVISION]:x}/{_micros(row[WRITTEN_AT]):x}",
    }


class _Append(WriteInBatches):
    # Bytes of the tag and the length that precede a row in a request.
    ROW_OVERHEAD = 6

    def __init__(self, table_id: TableId, columns: Columns):
        super().__init__(table_id)
        self._columns = tuple(columns)

    def setup(self) -> None:
        # Here because neither messages nor connections pickle.
        self._encoder = Encoder(self._columns)
        self._stream = shared_stream(self.table_id, self._encoder.schema)
        self.max_bytes = self._stream.max_bytes

    def process(self, row: dict[str, Any]) -> list[Any]:
        try:
            encoded = self._encoder.encode(row)
        except (TypeError, ValueError) as error:
            return [self.rejected(row, "BadRow", str(error))]
        return self.add(row, encoded, len(encoded) + self.ROW_OVERHEAD)

    def store(self, rows: Sequence[dict[str, Any]], encoded: Sequence[bytes]) -> dict[int, RowErrors]:
        rejected = self._stream.store(encoded)
        return {index: [{"reason": reason, "message": message}] for index, (reason, message) in rejected.items()}


class Encoder:
    """Encodes rows as protocol buffers with a field for each column; `schema` is their serialized DescriptorProto.

    Values are those of BigQuery's REST interface: a TIMESTAMP in RFC 3339, BYTES in base64; None and [] are left out.
    """

    def __init__(self, columns: Columns):
        descriptor = _descriptor("Row", columns)
        file = FileDescriptorProto(name="row.proto", syntax="proto2", message_type=[descriptor])
        pool = DescriptorPool()
        pool.Add(file)
        self.schema: bytes = descriptor.SerializeToString()
        self._message = GetMessageClass(pool.FindMessageTypeByName("Row"))
        self._convert = {
            column.name: _CONVERT[column.field_type] for column in columns if column.field_type in _CONVERT
        }

    def encode(self, row: dict[str, Any]) -> bytes:
        """Return the row as bytes.

        Raises:
          TypeError, ValueError: a value does not fit its column, or has no column.
        """
        values = {name: value for name, value in row.items() if value is not None}
        for name in self._convert.keys() & values.keys():
            values[name] = self._convert[name](values[name])
        encoded: bytes = self._message(**values).SerializeToString()
        return encoded


def _micros(rfc3339: str) -> int:
    return (datetime.fromisoformat(rfc3339) - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CONVERT: dict[str, Callable[[str], Any]] = {"TIMESTAMP": _micros, "BYTES": base64.b64decode}

# https://cloud.google.com/bigquery/docs/supported-data-types#supported_protocol_buffer_data_types
TYPES = {
    "BOOLEAN": FieldDescriptorProto.TYPE_BOOL,
    "BYTES": FieldDescriptorProto.TYPE_BYTES,
    "FLOAT": FieldDescriptorProto.TYPE_DOUBLE,
    "INTEGER": FieldDescriptorProto.TYPE_INT64,
    "RECORD": FieldDescriptorProto.TYPE_MESSAGE,
    "STRING": FieldDescriptorProto.TYPE_STRING,
    "TIMESTAMP": FieldDescriptorProto.TYPE_INT64,  # microseconds
}


def _descriptor(name: str, columns: Columns) -> DescriptorProto:
    descriptor = DescriptorProto(name=name)
    for number, column in enumerate(columns, 1):
        repeated = column.mode == "REPEATED"
        label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        field = descriptor.field.add(name=column.name, number=number, type=TYPES[column.field_type], label=label)
        field.json_name = column.name  # the default is the same for temp_max and tempMax, which is an error
        if column.fields:
            field.type_name = f"{column.name}_record"
            descriptor.nested_type.append(_descriptor(field.type_name, column.fields))
    return descriptor
