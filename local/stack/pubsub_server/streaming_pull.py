"""The streaming pull, which lasts until the client ends it."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.pubsub_v1 import types

from local.stack.pubsub_server.faults import Faults
from local.stack.pubsub_server.requests import (
    Code,
    RequestRejected,
    check_deadline,
    check_stream_deadline,
    no_subscription,
)
from local.stack.pubsub_server.service import Service, is_there
from local.stack.pubsub_server.subscription import Flow, Subscription

StreamingPullResponse = types.StreamingPullResponse.pb()
FIRST_ONLY = ("subscription", "max_outstanding_messages", "max_outstanding_bytes")  # allowed in the first request only


class StreamingPull:
    """Sends messages within the client's limits, and processes its acknowledgements."""

    def __init__(self, service: Service, faults: Faults) -> None:
        self._service = service
        self._faults = faults

    def __call__(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Serve the call until the client has disconnected or closed its side."""
        first = next(requests, None)
        if first is None:
            raise RequestRejected(Code.INVALID_ARGUMENT, "The first request must set subscription; there was none")
        check_stream_deadline(first.stream_ack_deadline_seconds)
        flow = Flow(first.max_outstanding_messages, first.max_outstanding_bytes, first.stream_ack_deadline_seconds)
        with self._service.lock:
            subscription = self._service.find_subscription(first.subscription)
            _apply(first, subscription)
        context.add_callback(lambda: self._wake(subscription))  # when the client has disconnected
        reader = threading.Thread(target=self._read, args=(requests, subscription, flow), daemon=True)
        reader.start()
        while self._faults.wait() and is_there(context) and not flow.ended:
            response = StreamingPullResponse()
            with self._service.lock:
                if subscription.deleted:
                    raise no_subscription()
                if not subscription.take(response, flow.deadline, flow=flow):
                    if is_there(context) and not flow.ended:
                        subscription.changed.wait(subscription.until_expiry())
                    continue
            yield response
        if flow.refusal:
            raise flow.refusal

    def _read(self, requests: Iterator[Any], subscription: Subscription, flow: Flow) -> None:
        """Process the requests after the first, until the client closes its side or disconnects."""
        try:
            for request in requests:
                for name in FIRST_ONLY:
                    if getattr(request, name):
                        raise RequestRejected(Code.INVALID_ARGUMENT, f"{name} may only be set in the first request")
                with self._service.lock:
                    if request.stream_ack_deadline_seconds:
                        check_stream_deadline(request.stream_ack_deadline_seconds)
                        flow.deadline = request.stream_ack_deadline_seconds
                    _apply(request, subscription)
        except RequestRejected as refusal:
            flow.refusal = refusal
        except grpc.RpcError:
            pass  # the client has disconnected
        finally:
            flow.ended = True
            self._wake(subscription)

    def _wake(self, subscription: Subscription) -> None:
        """Wake up the calls that wait for messages of the subscription."""
        with self._service.lock:
            subscription.changed.notify_all()


def _apply(request: Any, subscription: Subscription) -> None:
    """Apply the acknowledgements and the new deadlines in a request."""
    subscription.acknowledge(request.ack_ids)
    if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
        raise RequestRejected(Code.INVALID_ARGUMENT, "modify_deadline_seconds must be as many as the ack ids")
    for ack_id, seconds in zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True):
        check_deadline(seconds)
        subscription.modify_deadline([ack_id], seconds)
