"""A plain listener: prints each message of a subscription and acknowledges it."""

import json
import math
import os
import queue
import time
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.api_core.exceptions import GoogleAPIError
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.message import Message
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from publisher.service import ServiceError, check_credentials, check_reachable, explain, find_credentials

# Messages that wait to be printed are withheld from other listeners, so only a few are pulled ahead.
FLOW_CONTROL = pubsub_v1.types.FlowControl(max_messages=100)
CHECK_SECONDS = 10.0  # between checks of the credentials while no message arrives


class Listener:
    """Prints one line per message of `subscription` (projects/P/subscriptions/S)."""

    def __init__(self, subscription: str):
        self.subscription = subscription
        # None stops the listener.
        self._arrived: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._credentials: Any = None

    def stop(self) -> None:
        """Make `run` return."""
        self._arrived.put(None)

    def run(self, messages: int | None, timeout: float | None) -> int:
        """Print and acknowledge up to `messages` messages, or until none arrives for `timeout` seconds.

        None means no limit. Returns the number printed. A message that was received but not printed is redelivered once
        its acknowledgement deadline has passed.

        Raises:
            ServiceError: the subscription cannot be read.
        """
        self._credentials = find_credentials(self.subscription)
        with subscriber_client(self._credentials) as client:
            transport: Any = client.transport  # of gRPC; the clients' base class has no channel
            check_reachable(transport.grpc_channel, client.target)
            stream = client.subscribe(self.subscription, callback=self._arrived.put, flow_control=FLOW_CONTROL)
            stream.add_done_callback(lambda _: self.stop())
            try:
                printed = self._print(messages, timeout)
            finally:
                stream.cancel()
            try:
                stream.result()
            except GoogleAPIError as error:
                raise ServiceError(explain(error, self.subscription)) from error
        return printed

    def _print(self, messages: int | None, timeout: float | None) -> int:
        printed = 0
        while printed != messages:
            message = self._next(timeout)
            if message is None:
                break
            print(describe(message), flush=True)
            message.ack()
            printed += 1
        return printed

    def _next(self, timeout: float | None) -> Message | None:
        """Return the next message; None when stopped, and when none arrives for `timeout` seconds.

        Checks the credentials every CHECK_SECONDS, because the client retries forever when they are refused.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._arrived.get(timeout=max(0.0, min(end - time.monotonic(), CHECK_SECONDS)))
            except queue.Empty:
                if time.monotonic() >= end:
                    return None
                if self._credentials:
                    check_credentials(self._credentials, self.subscription)


def subscriber_client(credentials: Any) -> pubsub_v1.SubscriberClient:
    """Return Google's client with these google-auth credentials, or one for the emulator, which needs none.

    The client for the emulator receives messages of any size; gRPC's default limit is 4 MB.
    """
    if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
        channel = grpc.insecure_channel(emulator, [("grpc.max_receive_message_length", -1)])
        return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    return pubsub_v1.SubscriberClient(credentials=credentials)


def describe(message: Message) -> str:
    """Return one line: publish time (RFC 3339, UTC), attributes as JSON, and data with unprintable bytes escaped."""
    text = message.data.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    attributes = json.dumps(dict(message.attributes), sort_keys=True, allow_nan=False)
    published = message.publish_time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{published} {attributes} {text}"
