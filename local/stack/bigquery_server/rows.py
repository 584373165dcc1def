"""Decodes the rows of AppendRows: protocol buffers whose descriptor must match the table, and each row its columns.

The messages about descriptors are BigQuery's, quoted from public reports; those about rows are our own.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from google.cloud.bigquery import SchemaField
from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import (  # type: ignore[import-untyped]
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from local.stack.bigquery_server.tables import Change, Row, Table, sequence
from pipeline.errors import SensorStreamError

CHANGE_TYPE = "_CHANGE_TYPE"
CHANGE_SEQUENCE_NUMBER = "_CHANGE_SEQUENCE_NUMBER"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STANDARD = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_INTEGERS = {"int32", "int64", "uint32"}
# https://cloud.google.com/bigquery/docs/supported-data-types#supported_protocol_buffer_data_types
_FITTING = {
    "BOOLEAN": {"bool", "uint64", *_INTEGERS},
    "BYTES": {"bytes", "string"},
    "DATE": {"int32", "int64"},
    "FLOAT": {"double", "float"},
    "INTEGER": {"enum", *_INTEGERS},
    "JSON": {"string"},
    "RECORD": {"message"},
    "STRING": {"string", "enum"},
    "TIMESTAMP": _INTEGERS,
}


class SchemaError(SensorStreamError):
    """The descriptor does not match the table; `extra` if it only has fields that the table does not have."""

    def __init__(self, message: str, extra: bool = False) -> None:
        super().__init__(message)
        self.extra = extra


class RowError(SensorStreamError):
    """A row cannot be stored; the message is the reason."""


@dataclass(frozen=True)
class RowReader:
    """Decodes rows with a descriptor to rows of a table; with `captures_changes` to changes of change data capture."""

    table: Table
    message: Callable[[], Any]
    columns: dict[str, SchemaField]  # by the descriptor's field names
    captures_changes: bool

    @classmethod
    def bind(cls, proto: DescriptorProto, table: Table) -> "RowReader":
        """Return the reader for a descriptor and a table; raises SchemaError if they do not match."""
        message = _message(proto.SerializeToString())
        fields = {one.name: one for one in message.DESCRIPTOR.fields}
        pseudo = {name: fields.pop(name) for name in (CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER) if name in fields}
        for one in pseudo.values():
            if _type(one) != "string":
                raise SchemaError(_mismatch(proto.name, one, "STRING"))
        extra: list[str] = []
        columns = _bind(list(fields.values()), table.columns, proto.name, extra)
        if extra:
            names = ", ".join(f"'{name}'" for name in extra)
            raise SchemaError(f"Input schema has more fields than BigQuery schema, extra fields: {names}", extra=True)
        return cls(table, message, columns, CHANGE_TYPE in pseudo)

    def read(self, serialized: bytes) -> Row | Change:
        """Decode a row or a change; raises RowError."""
        message = self.message()
        try:
            message.ParseFromString(serialized)
            values = {one.name: value for one, value in message.ListFields()}
        except (DecodeError, UnicodeDecodeError) as error:
            raise RowError(f"The row is not a message of the schema: {error}") from None
        if not message.IsInitialized():
            raise RowError(f"Required fields are missing: {', '.join(message.FindInitializationErrors())}")
        change_type, number = values.pop(CHANGE_TYPE, None), values.pop(CHANGE_SEQUENCE_NUMBER, None)
        row = _row(values, self.columns, self.table.columns)
        return self._change(row, change_type, number) if self.captures_changes else row

    def _change(self, row: Row, change_type: str | None, number: str | None) -> Change:
        if change_type not in ("UPSERT", "DELETE"):
            raise RowError(f"{CHANGE_TYPE} must be UPSERT or DELETE, not {change_type}")
        for name in self.table.primary_key:
            if row.get(name) is None:
                raise RowError(f"Primary key column {name} is NULL")
        # Changes without a number are ordered by arrival, because the service numbers them by arrival.
        order = "" if number is None else sequence(number)
        if order is None:
            raise RowError(
                f"{CHANGE_SEQUENCE_NUMBER} must be up to four sections of 1 to 16 hexadecimal digits, not {number}"
            )
        return Change(row, change_type == "DELETE", order)


@functools.lru_cache(maxsize=64)
def _message(descriptor: bytes) -> Any:
    proto = DescriptorProto.FromString(descriptor)
    pool = descriptor_pool.DescriptorPool()
    try:
        pool.Add(FileDescriptorProto(name="rows.proto", syntax="proto2", message_type=[proto]))
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(proto.name))
    except (TypeError, KeyError) as error:
        raise SchemaError(f"Invalid proto schema: {error}") from None


def _bind(
    fields: Sequence[FieldDescriptor], columns: Sequence[SchemaField], path: str, extra: list[str]
) -> dict[str, SchemaField]:
    """Return each field's column, by name regardless of case; adds the names of fields without a column to `extra`."""
    by_name = {column.name.lower(): column for column in columns}
    bound: dict[str, SchemaField] = {}
    for one in fields:
        column = by_name.get(one.name.lower())
        if column is None:
            extra.append(one.name)
            continue
        wanted = _standard(column)
        if wanted not in _FITTING:
            raise SchemaError(f"This server does not support columns of type {wanted}: {column.name}")
        if _type(one) not in _FITTING[wanted] or one.is_repeated != (column.mode == "REPEATED"):
            raise SchemaError(_mismatch(path, one, wanted))
        if wanted == "RECORD":
            _bind(one.message_type.fields, column.fields, f"{path}.{one.name}", extra)
        bound[one.name] = column
    names = {name.lower() for name in bound}
    missing = [column.name for column in columns if column.mode == "REQUIRED" and column.name.lower() not in names]
    if missing:
        raise SchemaError(f"Required fields are missing in the input schema: {', '.join(missing)}")
    return bound


def _mismatch(path: str, one: FieldDescriptor, wanted: str) -> str:
    return (
        f"The proto field mismatched with BigQuery field at {path}.{one.name}, the proto field type {_type(one)}, "
        f"BigQuery field type {wanted}"
    )


def _type(one: FieldDescriptor) -> str:
    return str(FieldDescriptorProto.Type.Name(one.type).removeprefix("TYPE_").lower())


def _standard(column: SchemaField) -> str:
    return _STANDARD.get(column.field_type.upper(), column.field_type.upper())


def _row(values: dict[str, Any], bound: dict[str, SchemaField], columns: Sequence[SchemaField]) -> Row:
    row = {}
    for name, value in values.items():
        column = bound[name]
        row[column.name] = (
            [_value(one, column) for one in value] if column.mode == "REPEATED" else _value(value, column)
        )
    for column in columns:
        if column.mode == "REQUIRED" and column.name not in row:
            raise RowError(f"Field {column.name} is REQUIRED but missing")
    return row


def _value(value: Any, column: SchemaField) -> Any:
    kind = _standard(column)
    try:
        if kind == "TIMESTAMP":
            return _EPOCH + timedelta(microseconds=value)
        if kind == "DATE":
            return date(1970, 1, 1) + timedelta(days=value)
    except OverflowError:
        raise RowError(f"Field {column.name}: {value} is out of range for {kind}") from None
    if kind == "BYTES":
        return value.encode() if isinstance(value, str) else value
    if kind == "BOOLEAN":
        return bool(value)
    if kind == "RECORD":
        # Matched by name again, because `_bind` checks nested messages without storing their columns.
        fields = {field.name.lower(): field for field in column.fields}
        nested = {one.name: inner for one, inner in value.ListFields()}
        return _row(nested, {name: fields[name.lower()] for name in nested}, column.fields)
    return value
