"""A topic per test on the emulator, a scripted service, and the command line as a process."""

import os
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import types

from local.stack import emulators
from local.stack.pubsub_server import PubsubServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Return a function that waits for a condition; its time limit only ends tests that would hang."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "the condition did not become true within 30 s"
            time.sleep(0.005)

    return wait


@dataclass
class Topic:
    """A topic and its only subscription on the emulator at `host`."""

    host: str
    path: str
    subscription: str

    def pull(self, at_least: int, seconds: float = 20) -> list[types.PubsubMessage]:
        """Return and acknowledge all messages once there are `at_least` of them, or after `seconds`."""
        messages: list[types.PubsubMessage] = []
        end = time.monotonic() + seconds
        with emulators.subscriber_client(self.host) as client:
            while time.monotonic() < end:
                request = {"subscription": self.subscription, "max_messages": 1000, "return_immediately": True}
                with warnings.catch_warnings():  # return_immediately is deprecated, but pulls that wait end slowly
                    warnings.simplefilter("ignore", DeprecationWarning)
                    received = client.pull(request).received_messages
                if received:
                    client.acknowledge(subscription=self.subscription, ack_ids=[one.ack_id for one in received])
                    messages += [one.message for one in received]
                elif len(messages) >= at_least:
                    break
                else:
                    time.sleep(0.02)
        return messages


@pytest.fixture
def topic(pubsub_server: str, project: str) -> Topic:
    name = f"t-{uuid.uuid4().hex}"
    path = emulators.create_topic(pubsub_server, project, name)
    return Topic(pubsub_server, path, emulators.create_subscription(pubsub_server, project, name, name))


@dataclass
class FakeService:
    """Publisher and Subscriber services that respond as the test sets them up.

    Attributes:
      rejections: status codes of the first Publish calls; `always` is that of every call.
      hold: Publish calls wait for `release`; with `hold_first` only the first one does.
      withheld_ids: the number of message ids that each response lacks.
      outbox: messages of the one StreamingPull, which then stays open, or ends with `stream_status` if that is set.
    """

    host: str = ""
    rejections: list[grpc.StatusCode] = field(default_factory=list)
    always: grpc.StatusCode | None = None
    hold: bool = False
    hold_first: bool = False
    withheld_ids: int = 0
    outbox: list[types.PubsubMessage] = field(default_factory=list)
    stream_status: grpc.StatusCode | None = None
    called: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    published: list[types.PubsubMessage] = field(default_factory=list)
    calls: int = 0
    acknowledged: list[str] = field(default_factory=list)

    def publish(self, request: types.PublishRequest, context: grpc.ServicerContext) -> types.PublishResponse:
        self.calls += 1
        self.called.set()
        if self.hold or (self.hold_first and self.calls == 1):
            self.release.wait(30)
        if code := self.always or (self.rejections.pop(0) if self.rejections else None):
            context.abort(code, "set by the test")
        self.published += request.messages
        count = len(request.messages) - self.withheld_ids
        return types.PublishResponse(message_ids=[str(number) for number in range(count)])

    def streaming_pull(self, requests: Iterator, context: grpc.ServicerContext) -> Iterator:
        if self.stream_status:
            context.abort(self.stream_status, "set by the test")
        if self.outbox:
            received = [
                types.ReceivedMessage(ack_id=message.message_id, message=message, delivery_attempt=1)
                for message in self.outbox
            ]
            self.outbox = []
            yield types.StreamingPullResponse(received_messages=received)
        context.add_callback(self.release.set)
        self.release.wait(30)

    def acknowledge(self, request: types.AcknowledgeRequest, context: grpc.ServicerContext) -> types.AcknowledgeRequest:
        self.acknowledged += request.ack_ids
        # The protocol's Empty: a message without fields.
        return types.AcknowledgeRequest()


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = FakeService()
    serializer = {"response_serializer": lambda message: type(message).serialize(message)}
    publisher = {
        "Publish": grpc.unary_unary_rpc_method_handler(fake.publish, types.PublishRequest.deserialize, **serializer)
    }
    subscriber = {
        "StreamingPull": grpc.stream_stream_rpc_method_handler(
            fake.streaming_pull, types.StreamingPullRequest.deserialize, **serializer
        ),
        "Acknowledge": grpc.unary_unary_rpc_method_handler(
            fake.acknowledge, types.AcknowledgeRequest.deserialize, **serializer
        ),
        "ModifyAckDeadline": grpc.unary_unary_rpc_method_handler(
            lambda request, context: types.AcknowledgeRequest(), lambda data: data, **serializer
        ),
    }
    server = grpc.server(ThreadPoolExecutor(20))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
            grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", subscriber),
        )
    )
    fake.host = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    fake.release.set()
    server.stop(None).wait()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m publisher ARGUMENTS` in tmp_path; keyword arguments are environment variables."""
    started: list[subprocess.Popen[str]] = []

    def popen(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"PROJECT_ID", "TOPIC_NAME", "SUBSCRIPTION_NAME", "PUBSUB_EMULATOR_HOST"}
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "publisher", *arguments],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


@dataclass
class OwnServer:
    """Our Pub/Sub server in this process, with a topic and a subscription; `stall` and `refuse` are the server's."""

    server: PubsubServer
    topic: str
    subscription: str

    def __post_init__(self) -> None:
        self.stall, self.refuse = self.server.stall, self.server.refuse

    def pull(self) -> list[Any]:
        """Return every message published so far, without acknowledging them."""
        with emulators.subscriber_client(self.server.host) as client:
            return [received.message for received in emulators.pull(client, self.subscription, 1_000_000)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnServer]:
    with PubsubServer() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.host)
        topic = emulators.create_topic(server.host, "test-project", "readings")
        subscription = emulators.create_subscription(server.host, "test-project", "readings", "readings-sub")
        yield OwnServer(server, topic, subscription)
