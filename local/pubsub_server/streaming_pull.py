"""The call that goes on for as long as the client likes."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.pubsub_v1 import types

from local.pubsub_server.faults import Faults
from local.pubsub_server.requests import ACK_DEADLINES, Code, Refusal, check_deadline, no_subscription
from local.pubsub_server.service import Service, is_there
from local.pubsub_server.subscription import Flow, Subscription

StreamingPullResponse = types.StreamingPullResponse.pb()


class StreamingPull:
    """Sends what is there, within what the client allows, and takes its acknowledgements."""

    def __init__(self, service: Service, faults: Faults) -> None:
        self._service = service
        self._faults = faults

    def __call__(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Answer until the client has gone, or closed its side."""
        first = next(requests)
        deadline = first.stream_ack_deadline_seconds
        if deadline not in ACK_DEADLINES:
            raise Refusal(Code.INVALID_ARGUMENT, "stream_ack_deadline_seconds must be from 10 to 600")
        with self._service.changed:
            subscription = self._service.find_subscription(first.subscription)
        flow = Flow(first.max_outstanding_messages, first.max_outstanding_bytes)
        context.add_callback(self._service.wake)  # when the client has gone
        reader = threading.Thread(target=self._read, args=(requests, subscription, flow), daemon=True)
        reader.start()
        while self._faults.wait() and is_there(context) and not flow.ended:
            response = StreamingPullResponse()
            with self._service.changed:
                if subscription.deleted:
                    raise no_subscription()
                if not subscription.take(response, flow.room(), deadline, flow):
                    if is_there(context) and not flow.ended:
                        self._service.changed.wait(subscription.until_expiry())
                    continue
            yield response
        if flow.refusal:
            raise flow.refusal

    def _read(self, requests: Iterator[Any], subscription: Subscription, flow: Flow) -> None:
        """Take what a streaming pull's client sends after its first request, until it closes its side or goes away."""
        try:
            for request in requests:
                with self._service.changed:
                    subscription.acknowledge(request.ack_ids)
                    if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
                        raise Refusal(Code.INVALID_ARGUMENT, "modify_deadline_seconds must be as many as the ack ids")
                    for ack_id, seconds in zip(
                        request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True
                    ):
                        check_deadline(seconds)
                        subscription.modify_deadline([ack_id], seconds)
                    self._service.changed.notify_all()
        except Refusal as refusal:
            flow.refusal = refusal
        except grpc.RpcError:
            pass  # the client is gone
        finally:
            flow.ended = True
            self._service.wake()
