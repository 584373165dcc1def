"""A plain listener: prints each message of a subscription and acknowledges it."""

import json
import os
import queue

import grpc  # type: ignore[import-untyped]
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.message import Message
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from publisher.service import ServiceError, check_reachable, explain

# What is on its way to be printed is withheld from other listeners, so little of it.
FLOW_CONTROL = pubsub_v1.types.FlowControl(max_messages=100)


class Listener:
    """Prints one line per message of `subscription` (projects/P/subscriptions/S)."""

    def __init__(self, subscription: str):
        self.subscription = subscription
        # None asks for the end.
        self._arrived: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def stop(self) -> None:
        """Make `run` return."""
        self._arrived.put(None)

    def run(self, messages: int | None, timeout: float | None) -> int:
        """Print and acknowledge up to `messages` messages until none comes for `timeout` seconds; None means no limit.

        Returns the number printed. A message received but not printed is delivered again, to whoever listens then, once
        its acknowledgement deadline has passed.

        Raises:
            ServiceError: the subscription cannot be read, and why.
        """
        try:
            client = subscriber_client()
        except GoogleAuthError as error:
            raise ServiceError(explain(error, self.subscription)) from error
        with client:
            check_reachable(client.transport.grpc_channel, client.target)
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
            try:
                message = self._arrived.get(timeout=timeout)
            except queue.Empty:
                break
            if message is None:
                break
            print(describe(message), flush=True)
            message.ack()
            printed += 1
        return printed


def subscriber_client() -> pubsub_v1.SubscriberClient:
    """Google's client; it takes messages of any size from an emulator too, where by itself it takes at most 4 MB."""
    if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
        channel = grpc.insecure_channel(emulator, [("grpc.max_receive_message_length", -1)])
        return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    return pubsub_v1.SubscriberClient()


def describe(message: Message) -> str:
    """One line: publish time (RFC 3339, UTC), attributes as JSON, data as text with anything unprintable escaped."""
    text = message.data.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    attributes = json.dumps(dict(message.attributes), sort_keys=True, allow_nan=False)
    published = message.publish_time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{published} {attributes} {text}"
