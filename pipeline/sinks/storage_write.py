"""Rows and dead letters through BigQuery's Storage Write API: appended, or each put in the place of the one of its key.

Both are written at least once. Appended, a row whose confirmation was lost is there twice. By key, through BigQuery's
change data capture, whatever is written again replaces itself:

    job started at 18f2ebb6480, row                       UPSERT  18f2ebb6480/0/6278e6b0b8a40
    the same row from a retried bundle                    UPSERT  18f2ebb6480/0/6278e6b18e1c0    wins over the row above
    the same job, its first revision                      UPSERT  18f2ebb6480/1/6278e6b1fae80    wins over both
    the same job, after the row's session was joined      DELETE  18f2ebb6480/2/6278e6b2efba0    wins over all three
    a later job, from the same readings                   UPSERT  18f2ebc0000/0/6278e8d33b240    wins over all of it

A runner may run a bundle again after it has appended rows, and with other readings in it. What the earlier attempt has
appended then has the same revision, and WrittenAt says which attempt is the later one.

https://cloud.google.com/bigquery/docs/change-data-capture
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
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
from pipeline.sinks.bigquery import TableId
from pipeline.sinks.streaming_inserts import MAX_PAYLOAD, log_dead_letter, to_dead_letters

CHANGE_COLUMNS = tuple(bigquery.SchemaField(name, "STRING") for name in (CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER))

Columns = Sequence[bigquery.SchemaField]


class AppendRows(beam.PTransform):
    """Appends rows to an existing table; returns a dead letter for each row that BigQuery refuses for good.

    Args:
      table_id: the table.
      columns: its columns that rows have.
    """

    def __init__(self, table_id: TableId, columns: Columns):
        super().__init__()
        self._append = _Append(table_id, columns)

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return rows | "Append" >> beam.ParDo(self._append) | "ToDeadLetters" >> to_dead_letters()


class UpsertRows(beam.PTransform):
    """Puts each row in the place of the one with its key; a row without any value takes that one away.

    Rows have a Revision, by which the later one wins, and WrittenAt, which decides between rows of the same revision;
    neither is written. A key column that is None is
    written as "", since a key must not be NULL. Returns a dead letter for each row that BigQuery refuses for good.

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

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return (
            rows
            | "ToChanges" >> beam.Map(to_change, self._key, self._job_start).with_output_types(Any)
            | "Append" >> beam.ParDo(self._append)
            | "ToDeadLetters" >> to_dead_letters()
        )


class AppendDeadLetters(beam.PTransform):
    """Appends dead letters to an existing table; those BigQuery refuses for good go to the log, payload included."""

    def __init__(self, table_id: TableId, columns: Columns):
        super().__init__()
        self._append = _Append(table_id, columns)

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return (
            letters
            | "InParts" >> beam.FlatMap(in_parts, MAX_PAYLOAD).with_output_types(Any)
            | "Append" >> beam.ParDo(self._append)
            | "Log" >> beam.FlatMap(log_dead_letter)
        )


def to_change(row: dict[str, Any], key: Sequence[str], job_start: int) -> dict[str, Any]:
    """Return the change that puts `row` into a table with this key; see `UpsertRows`."""
    values = {name: value for name, value in row.items() if name not in (REVISION, WRITTEN_AT)}
    retracted = all(value is None for name, value in values.items() if name not in key)
    return {
        **values,
        **{name: "" for name in key if values[name] is None},
        CHANGE_TYPE: "DELETE" if retracted else "UPSERT",
        CHANGE_SEQUENCE_NUMBER: f"{job_start:x}/{row[REVISION]:x}/{_micros(row[WRITTEN_AT]):x}",
    }


class _Append(beam.DoFn):
    """Appends dicts; yields (table, dict, errors) of those that failed for good. A bundle ends when all are stored."""

    # Tag and length of a row in a request.
    ROW_OVERHEAD = 6

    def __init__(self, table_id: TableId, columns: Columns):
        self._table_id = table_id
        self._columns = tuple(columns)

    def setup(self) -> None:
        # Here because neither messages nor connections pickle.
        self._encoder = Encoder(self._columns)
        self._stream = shared_stream(self._table_id, self._encoder.schema)

    def start_bundle(self) -> None:
        self._begin_batch()

    def process(self, row: dict[str, Any]) -> list[Any]:
        try:
            encoded = self._encoder.encode(row)
        except (TypeError, ValueError) as error:
            return [self._failed(row, "BadRow", str(error))]
        size = len(encoded) + self.ROW_OVERHEAD
        if size > self._stream.room:
            return [self._failed(row, "RowTooLarge", f"{size} bytes; a request takes {self._stream.room}")]
        failed = self._append_batch() if self._size + size > self._stream.room else []
        self._batch.append((row, encoded))
        self._size += size
        return failed

    def finish_bundle(self) -> Iterator[Any]:
        for failed in self._append_batch():
            yield GlobalWindows.windowed_value(failed, Timestamp.now())

    def _begin_batch(self) -> None:
        self._batch: list[tuple[dict[str, Any], bytes]] = []
        self._size = 0

    def _append_batch(self) -> list[Any]:
        batch = self._batch
        self._begin_batch()
        refused = self._stream.store([encoded for _, encoded in batch])
        return [self._failed(batch[index][0], *error) for index, error in sorted(refused.items())]

    def _failed(self, row: dict[str, Any], reason: str, message: str) -> tuple[str, dict[str, Any], list[Any]]:
        return str(self._table_id), row, [{"reason": reason, "message": message}]


class Encoder:
    """Makes protocol buffers of rows, with a field for each column; `schema` is their serialized DescriptorProto.

    Values are as for BigQuery's REST interface: a TIMESTAMP in RFC 3339, BYTES in base64; None and [] are left out.
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
        """Return the row's bytes; raises TypeError or ValueError when a value does not fit its column, or has none."""
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
        field.json_name = column.name  # by default temp_max and tempMax would have the same, which is refused
        if column.fields:
            field.type_name = f"{column.name}_record"
            descriptor.nested_type.append(_descriptor(field.type_name, column.fields))
    return descriptor
