"""The gRPC server of the service; faults apply before each call."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from google.pubsub_v1 import types

from local.stack.pubsub_server.faults import Faults
from local.stack.pubsub_server.requests import RequestRejected
from local.stack.pubsub_server.service import SUBSCRIBER, Call, Service
from local.stack.pubsub_server.streaming_pull import StreamingPull

RETENTION = 600.0  # seconds; the default of subscriptions
STOP_GRACE = 0.3  # seconds that calls have to end when the server stops; then they are cancelled
CALLS = 2_000  # concurrent calls, each with a thread; further ones end with RESOURCE_EXHAUSTED


class PubsubServer:
    """The server, which runs for the length of a `with` block; `host` is 127.0.0.1:PORT.

    Acknowledged messages are kept for `retention` seconds, or the subscription's message_retention_duration: for
    `redeliver`, and for seek if the subscription sets retain_acked_messages. `refuse` and `stall` are those of Faults.

    Args:
      port: the port to listen on; 0 for a free one.
      retention: the default retention in seconds.

    Raises:
      RuntimeError: the port cannot be used.
    """

    def __init__(self, port: int = 0, retention: float = RETENTION) -> None:
        self._service = Service(retention)
        self._faults = Faults()
        self.refuse, self.stall = self._faults.refuse, self._faults.stall
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        pool = ThreadPoolExecutor(CALLS, "pubsub-server")
        self._server = grpc.server(pool, options=options, maximum_concurrent_rpcs=CALLS)
        self._server.add_generic_rpc_handlers(list(self._handlers()))
        self.host = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self._server.stop(STOP_GRACE)
        self._faults.release()
        self._service.wake()
        stopped.wait()

    def redeliver(self, subscription: str, fraction: float, seed: int = 0) -> int:
        """Redeliver that fraction (0 to 1) of the acknowledged messages, chosen by `seed`; returns their number."""
        with self._service.lock:
            return self._service.find_subscription(subscription).redeliver(fraction, seed)

    def reorder(self, subscription: str, seed: int = 0) -> None:
        """Shuffle the undelivered messages by `seed`."""
        with self._service.lock:
            self._service.find_subscription(subscription).reorder(seed)

    def _handlers(self) -> Iterator[Any]:
        streaming_pull = StreamingPull(self._service, self._faults)
        for service, calls in self._service.calls.items():
            handlers = {method: self._unary(method, *call) for method, call in calls.items()}
            if service == SUBSCRIBER:
                handlers["StreamingPull"] = self._streaming("StreamingPull", streaming_pull, types.StreamingPullRequest)
            yield grpc.method_handlers_generic_handler(service, handlers)

    def _unary(self, method: str, answer: Call, request_type: Any) -> Any:
        def call(request: Any, context: Any) -> Any:
            try:
                self._faults.apply(method)
                with self._service.lock:
                    return answer(request, context)
            except RequestRejected as refusal:
                context.abort(refusal.code, str(refusal))

        self._faults.add(method)
        return grpc.unary_unary_rpc_method_handler(call, request_type.pb().FromString, _serialize)

    def _streaming(self, method: str, answer: Call, request_type: Any) -> Any:
        def call(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            try:
                self._faults.apply(method)
                yield from answer(requests, context)
            except RequestRejected as refusal:
                context.abort(refusal.code, str(refusal))

        self._faults.add(method)
        return grpc.stream_stream_rpc_method_handler(call, request_type.pb().FromString, _serialize)


def _serialize(response: Any) -> bytes:
    return bytes(response.SerializeToString())
