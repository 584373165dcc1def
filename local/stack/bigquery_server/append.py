"""A server of BigQueryWrite.AppendRows on default streams, as strict as the service.

Tests run it in their process with tables in memory, and inject faults:

    tables = MemoryTables()
    tables.create("project.dataset.table", columns, primary_key=("Timestamp",))
    with StorageWriteServer(tables) as server:                  # server.host is 127.0.0.1:PORT
        server.faults.fail(grpc.StatusCode.UNAVAILABLE, times=2)
        server.faults.fail(None, stored=True)                   # the stream ends after the rows are stored
        server.faults.refuse_rows(lambda table, row: "bad" if row["Temp"] > 99 else None)
        server.go_away()

Other streams, Arrow and default values are refused. As on the service, a request with a wrong table or schema ends the
call. The response to a request with bad rows has row_errors, none of its rows is stored, and the call goes on.
"""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from google.cloud.bigquery_storage_v1 import types
from google.protobuf.any_pb2 import Any as AnyProto  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from local.stack.bigquery_server.faults import Faults
from local.stack.bigquery_server.rows import RowError, RowReader, SchemaError
from local.stack.bigquery_server.tables import Change, Row, Tables
from pipeline.errors import SensorStreamError

# Raw protobuf, because access to fields through proto-plus takes ten times as long.
AppendRowsRequest = types.AppendRowsRequest.pb()
AppendRowsResponse = types.AppendRowsResponse.pb()
StorageError = types.StorageError.pb()
StorageErrorCode = types.StorageError.StorageErrorCode
FIELDS_ERROR = types.RowError.RowErrorCode.FIELDS_ERROR

REQUEST_BYTES = 10 * 1024 * 1024  # https://cloud.google.com/bigquery/quotas#write-api-limits
ROW_ERRORS = "Errors found while processing rows. Please refer to the row_errors field for details. The list may not \
be complete because of the size limitations."
STOP_GRACE = 0.3  # seconds that calls have to end when the server stops; then they are cancelled
CALLS = 1_000  # concurrent calls, each with a thread; further ones end with RESOURCE_EXHAUSTED
STREAM = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)/(?:streams/)?_default")
Code = grpc.StatusCode


class AppendRejected(SensorStreamError):
    """Ends a call with this status code and message, and a StorageError where BigQuery adds one."""

    def __init__(self, code: grpc.StatusCode, details: str, error: int | None = None) -> None:
        super().__init__(details)
        self.code = code
        self.error = error

    def status(self, stream: str) -> Any:
        """Return the error as google.rpc.Status."""
        status = Status(code=self.code.value[0], message=f"{self} Entity: {stream}" if stream else str(self))
        if self.error is not None:
            detail = AnyProto()
            detail.Pack(StorageError(code=self.error, entity=stream, error_message=status.message))
            status.details.append(detail)
        return status


class StreamCut(SensorStreamError):
    """Ends a call with status OK, without a response to its last request."""


@dataclass(frozen=True)
class Request:
    """A received request: the number of its call, counted from 0, its table and its number of rows."""

    call: int
    table: str  # project.dataset.table
    rows: int


@dataclass
class _Call:
    """The state of a call: what its first request says applies to the following ones."""

    number: int
    stream: str = ""
    table: str = ""
    descriptor: Any = None


class StorageWriteServer:
    """The server, which runs for the length of a `with` block.

    Attributes:
      host: 127.0.0.1:PORT.
      faults: the faults to inject.
      requests: all requests received, including those with a fault.

    Args:
      tables: where rows are stored.
      port: the port to listen on; 0 for a free one.

    Raises:
      RuntimeError: the port cannot be used.
    """

    def __init__(self, tables: Tables, port: int = 0) -> None:
        self.faults = Faults()
        self.requests: list[Request] = []
        self._tables = tables
        self._calls = 0
        self._lock = threading.Lock()  # requests use the tables one at a time
        self._server, self._port = self._listen(port)
        self.host = f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace=0)

    def stop(self, grace: float = STOP_GRACE) -> None:
        """Stop, and wait until all calls have ended."""
        stopped = self._server.stop(grace)
        self.faults.release()
        stopped.wait()

    def go_away(self) -> None:
        """Close every connection with GOAWAY, as a server that is restarted, and start a new server on the port."""
        self._server.stop(STOP_GRACE).wait()
        self._server, _ = self._listen(self._port)
        self._server.start()

    def _listen(self, port: int) -> tuple[Any, int]:
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        pool = ThreadPoolExecutor(CALLS, "storage-write")
        server = grpc.server(pool, options=options, maximum_concurrent_rpcs=CALLS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._append_rows, AppendRowsRequest.FromString, AppendRowsResponse.SerializeToString
        )
        service = "google.cloud.bigquery.storage.v1.BigQueryWrite"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"AppendRows": handler})])
        return server, server.add_insecure_port(f"127.0.0.1:{port}")

    def _append_rows(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        with self._lock:
            call = _Call(self._calls)
            self._calls += 1
        try:
            for request in requests:
                yield self._answer(request, call)
        except StreamCut:
            return
        except grpc.RpcError:
            return  # the client has disconnected
        except AppendRejected as refusal:
            context.abort_with_status(rpc_status.to_status(refusal.status(call.stream)))

    def _answer(self, request: Any, call: _Call) -> Any:
        _check(request, call)
        with self._lock:
            self.requests.append(Request(call.number, call.table, len(request.proto_rows.rows.serialized_rows)))
        fault = self.faults.take(call.table)
        response = AppendRowsResponse(write_stream=call.stream)
        if not fault or fault.stored:
            self._store(request, call, response)
        if fault and fault.code is None:
            raise StreamCut
        if fault and fault.code:
            refusal = AppendRejected(fault.code, fault.message(call.table))
            if not fault.in_answer:
                raise refusal
            response.error.CopyFrom(refusal.status(call.stream))
        return response

    def _store(self, request: Any, call: _Call, response: Any) -> None:
        """Store all rows of the request, or none and list the bad rows in the response."""
        with self._lock:
            table = self._tables.find(call.table)
            if table is None:
                raise AppendRejected(
                    Code.NOT_FOUND, "Requested entity was not found.", StorageErrorCode.TABLE_NOT_FOUND
                )
            try:
                reader = RowReader.bind(call.descriptor, table)
            except SchemaError as error:
                code = StorageErrorCode.SCHEMA_MISMATCH_EXTRA_FIELDS if error.extra else None
                raise AppendRejected(Code.INVALID_ARGUMENT, str(error), code) from None
            if reader.captures_changes and not table.primary_key:
                raise AppendRejected(
                    Code.INVALID_ARGUMENT,
                    f"The primary keys of the table {call.table} are required to create an upsert stream.",
                )
            rows: list[Row] = []
            changes: list[Change] = []
            for index, serialized in enumerate(request.proto_rows.rows.serialized_rows):
                try:
                    one = reader.read(serialized)
                    row = one.row if isinstance(one, Change) else one
                    if reason := self.faults.row_error(call.table, row):
                        raise RowError(reason)
                except RowError as error:
                    response.row_errors.add(index=index, code=FIELDS_ERROR, message=str(error))
                    continue
                if isinstance(one, Change):
                    changes.append(one)
                else:
                    rows.append(one)
            if response.row_errors:
                response.error.CopyFrom(AppendRejected(Code.INVALID_ARGUMENT, ROW_ERRORS).status(call.stream))
                return
            if rows:
                self._tables.append(call.table, rows)
            if changes:
                self._tables.change(call.table, changes)
            response.append_result.SetInParent()


def _check(request: Any, call: _Call) -> None:
    """Check the parts of a request that do not depend on the table, and update the state of the call."""
    if (size := request.ByteSize()) > REQUEST_BYTES:
        raise AppendRejected(Code.INVALID_ARGUMENT, f"AppendRows request too large: {size} limit {REQUEST_BYTES}")
    if request.write_stream and request.write_stream != call.stream:
        match = STREAM.fullmatch(request.write_stream)
        if not match:
            raise AppendRejected(
                Code.INVALID_ARGUMENT, f"This server supports default streams only: {request.write_stream}"
            )
        call.stream, call.table, call.descriptor = request.write_stream, ".".join(match.groups()), None
    if not call.stream:
        raise AppendRejected(Code.INVALID_ARGUMENT, "The first request of a connection must name a write_stream")
    if request.HasField("offset"):
        raise AppendRejected(Code.INVALID_ARGUMENT, "An offset cannot be given for the default stream")
    if not request.HasField("proto_rows"):
        raise AppendRejected(Code.UNIMPLEMENTED, "This server supports proto_rows only")
    if request.missing_value_interpretations or request.default_missing_value_interpretation:
        raise AppendRejected(Code.UNIMPLEMENTED, "This server does not support missing value interpretations")
    if request.proto_rows.HasField("writer_schema"):
        call.descriptor = request.proto_rows.writer_schema.proto_descriptor
    if call.descriptor is None:
        raise AppendRejected(Code.INVALID_ARGUMENT, "The first request to a stream must come with a writer_schema")
