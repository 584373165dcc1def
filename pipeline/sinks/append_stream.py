"""The default stream of a table in BigQuery's Storage Write API: one connection, shared by the threads of a process."""

import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.protobuf.descriptor_pb2 import DescriptorProto  # type: ignore[import-untyped]

from pipeline.errors import SensorStreamError
from pipeline.sinks.bigquery import TableId
from pipeline.sinks.retry import RETRY_TRANSIENT, TransientError

# Bytes of a request: https://cloud.google.com/bigquery/quotas#write-api-limits
MAX_REQUEST = 10_000_000

# Names the environment variable with the host:port of an emulator, which uses neither encryption nor credentials.
EMULATOR = "BIGQUERY_STORAGE_EMULATOR_HOST"

# Seconds to wait for a response before the call is cancelled.
_TIMEOUT_SECONDS = 120.0

# Milliseconds without data after which a connection is pinged, and milliseconds to wait for the reply. Without pings, a
# connection that was dropped silently is detected only by the operating system, and new calls keep using it.
_PING_AFTER, _PING_TIMEOUT = 60_000, 20_000

# Codes of failures that a retry may resolve, and of connections that were closed, moved or lost:
# https://cloud.google.com/bigquery/docs/write-api-best-practices, and https://grpc.io/docs/guides/status-codes
_TRANSIENT = frozenset(
    ["ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"]
)

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
# mypy takes an enum of proto-plus for a class of integers.
_ROW_CODES = {code.value: code.name for code in types.RowError.RowErrorCode}  # type: ignore[attr-defined]


class WriteRejected(SensorStreamError):
    """BigQuery rejected a request and would reject it again; none of its rows is stored. `code` is the status code."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def stream_name(table_id: TableId) -> str:
    """Return the full name of the table's default stream, projects/P/datasets/D/tables/T/streams/_default."""
    return f"projects/{table_id.project}/datasets/{table_id.dataset}/tables/{table_id.table}/streams/_default"


def write_client() -> BigQueryWriteClient:
    """Return a client of the Storage Write API, or of an emulator if BIGQUERY_STORAGE_EMULATOR_HOST is set."""
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # By default it grows to two minutes, and rows would be that late after an outage.
        ("grpc.max_reconnect_backoff_ms", 10_000),
        ("grpc.keepalive_time_ms", _PING_AFTER),
        ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT),
    ]
    emulator = os.environ.get(EMULATOR)
    if emulator:
        channel = grpc.insecure_channel(emulator, options)
    else:
        channel = BigQueryWriteGrpcTransport.create_channel(options=options)
    return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))


_STREAMS: dict[Any, "AppendStream"] = {}
_STREAMS_LOCK = threading.Lock()


def shared_stream(table_id: TableId, schema: bytes) -> "AppendStream":
    """Return this process's only stream to a table for rows of `schema`, a serialized DescriptorProto."""
    key = table_id, schema, os.environ.get(EMULATOR)
    with _STREAMS_LOCK:
        if key not in _STREAMS:
            _STREAMS[key] = AppendStream(table_id, schema)
        return _STREAMS[key]


class AppendStream:
    """Appends rows over a connection that is opened when it is first needed, and again after it was lost.

    Google's own AppendRowsStream is not used: it hides the error of a connection that cannot be opened, and matches
    responses to requests by an order that two threads can disturb.
    """

    def __init__(self, table_id: TableId, schema: bytes):
        name = stream_name(table_id)
        proto_rows = types.AppendRowsRequest.ProtoData(
            writer_schema=types.ProtoSchema(proto_descriptor=DescriptorProto.FromString(schema))
        )
        self._first_request = types.AppendRowsRequest(write_stream=name, proto_rows=proto_rows)
        # The header by which the service routes calls to the table's region: write_stream in the API's reference.
        self._metadata = (("x-goog-request-params", f"write_stream={name}"),)
        self._client: BigQueryWriteClient | None = None
        self._lock = threading.Lock()
        self._call: _Call | None = None
        # Bytes that the rows of a request may have.
        self.max_bytes = MAX_REQUEST - types.AppendRowsRequest.pb(self._first_request).ByteSize() - 100

    def store(self, rows: Sequence[bytes], timeout: float | None = None) -> dict[int, tuple[str, str]]:
        """Append rows, retrying transient failures, until each is stored or rejected.

        Args:
          rows: serialized rows of the stream's schema.
          timeout: seconds after which no further attempt begins; None, as in a job, for no limit.

        Returns:
          BigQuery's error code and message by the index of each rejected row.

        Raises:
          RetryError: the timeout has passed; its cause is the error of the last attempt.
        """
        append = RETRY_TRANSIENT.with_timeout(timeout)(self.append)
        waiting: Sequence[int] = range(len(rows))
        rejected: dict[int, tuple[str, str]] = {}
        while waiting:
            try:
                errors = append([rows[index] for index in waiting])
            except WriteRejected as error:
                return rejected | dict.fromkeys(waiting, (error.code, str(error)))
            rejected |= {waiting[position]: error for position, error in errors.items()}
            # None of a request with a bad row is stored.
            waiting = [index for index in waiting if index not in rejected] if errors else []
        return rejected

    def append(self, rows: Sequence[bytes]) -> dict[int, tuple[str, str]]:
        """Append rows once and wait until they are stored; if BigQuery rejects some, none is stored.

        Returns:
          BigQuery's error code and message by the index of each rejected row.

        Raises:
          TransientError: a retry may succeed.
          WriteRejected: a retry would fail too.
        """
        with self._lock:
            if self._call is None or self._call.ended:
                self._client = self._client or write_client()
                self._call = _Call(self._client, self._metadata)
                request = types.AppendRowsRequest(self._first_request)
            else:
                request = types.AppendRowsRequest()
            types.AppendRowsRequest.pb(request).proto_rows.rows.serialized_rows.extend(rows)
            call, future = self._call, self._call.send(request)
        try:
            response = types.AppendRowsResponse.pb(future.result(_TIMEOUT_SECONDS))
        except TimeoutError:
            call.cancel()
            raise TransientError(f"no response in {_TIMEOUT_SECONDS:.0f} s") from None
        except grpc.RpcError as error:
            raise _failure(error.code().name, error.details()) from None
        if response.row_errors:
            unknown = _ROW_CODES[types.RowError.RowErrorCode.ROW_ERROR_CODE_UNSPECIFIED]
            return {one.index: (_ROW_CODES.get(one.code, unknown), one.message) for one in response.row_errors}
        if response.error.code:
            raise _failure(_CODES[response.error.code], response.error.message)
        return {}


class _Call:
    """One AppendRows call; its responses come in the order of the requests."""

    def __init__(self, client: BigQueryWriteClient, metadata: Sequence[tuple[str, str]]):
        self.ended = False
        self._ended_by = ""
        self._lock = threading.Lock()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._pending: deque[Future[Any]] = deque()
        # The transport's method, because the client's waits for the first response and retries errors. It is annotated
        # as a call with a single request.
        append_rows: Any = client.transport.append_rows
        self._responses = append_rows(iter(self._requests.get, None), metadata=metadata)
        threading.Thread(target=self._read, name="AppendRows", daemon=True).start()

    def send(self, request: types.AppendRowsRequest) -> Future[Any]:
        """Send a request; return the future of its response."""
        future: Future[Any] = Future()
        with self._lock:
            if self.ended:
                future.set_exception(TransientError(self._ended_by))
            else:
                self._pending.append(future)
                self._requests.put(request)
        return future

    def cancel(self) -> None:
        """End the call; requests without a response fail."""
        self._responses.cancel()

    def _read(self) -> None:
        reason: Exception = TransientError("the connection was closed before a response came")
        try:
            for response in self._responses:
                self._pending.popleft().set_result(response)
        except grpc.RpcError as error:
            reason = error
        except IndexError:  # a response to no request: the next ones cannot be matched to requests either
            self.cancel()
        with self._lock:
            self.ended = True
            self._ended_by = (
                f"{reason.code().name}: {reason.details()}" if isinstance(reason, grpc.RpcError) else str(reason)
            )
        self._requests.put(None)  # ends the iterator from which gRPC reads requests
        # The error belongs to the oldest pending request; the requests after it were not processed.
        for future in self._pending:
            future.set_exception(reason)
            reason = TransientError("the connection was lost")


def _failure(code: str, message: str) -> Exception:
    return TransientError(f"{code}: {message}") if code in _TRANSIENT else WriteRejected(code, message)
