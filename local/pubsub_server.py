"""A small Pub/Sub server in plain Python: runs the system where Google's emulator is missing, and breaks on command.

It speaks gRPC to Google's own clients: topics, pull subscriptions, publish, pull, streaming pull, acknowledge, ack
deadlines, seek to a time. What it does not know (snapshots, push, filters, ordering keys, exactly once, REST) it
refuses as UNIMPLEMENTED. Everything is in memory, and any project exists. `python -m local.pubsub_server --port 8085`
runs it by itself; tests run it in their own process and give it faults:

    with PubsubServer() as server:            # server.host is 127.0.0.1:PORT
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE, times=2)
        server.redeliver(subscription, fraction=0.1, seed=1)
        server.reorder(subscription, seed=1)
        released = server.stall()
"""

import argparse
import itertools
import math
import random
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.pubsub_v1 import types

from local.processes import interrupt_once

# Raw protobuf: reading and filling fields through proto-plus costs ten times as much.
ListSubscriptionsResponse = types.ListSubscriptionsResponse.pb()
ListTopicsResponse = types.ListTopicsResponse.pb()
ListTopicSubscriptionsResponse = types.ListTopicSubscriptionsResponse.pb()
PublishResponse = types.PublishResponse.pb()
PullResponse = types.PullResponse.pb()
SeekResponse = types.SeekResponse.pb()
StreamingPullResponse = types.StreamingPullResponse.pb()

PUBLISH_MESSAGES = 1000  # the most in one request, as on the service
PUBLISH_BYTES = 10_000_000
RESPONSE_BYTES = 1_000_000  # a pull is cut at the message that passes it; clients take 4 MB unless told otherwise
ACK_DEADLINE = 10  # seconds, of a subscription that does not say
ACK_DEADLINES = range(10, 601)  # seconds a subscription may ask for
PULL_WAIT = 10.0  # seconds a pull waits for a first message, or until a second before its client gives up
RETENTION = 600.0  # seconds, of a subscription that does not say
RETENTIONS = (600, 31 * 86400)  # seconds a subscription may ask for, from and to
STOP_GRACE = 0.3  # seconds calls have to end when the server stops; then they are cancelled
CALLS = 64  # at one time; a streaming pull is one as long as it lasts
PAGE = 1000  # names a list call returns at most
HONOURED = {"name", "topic", "ack_deadline_seconds", "retain_acked_messages", "message_retention_duration"}
KEPT = {"labels", "expiration_policy"}  # kept and returned; nothing expires here
NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~%+-]{2,254}")
Code = grpc.StatusCode


class Refusal(Exception):
    """Ends a call with this status code and these words."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


@dataclass
class _Flow:
    """What one streaming pull has outstanding, and how much of it the client allows; a limit of 0 is none."""

    max_messages: int
    max_bytes: int
    messages: int = 0
    bytes: int = 0
    ended: bool = False  # the client has closed its side, or is refused
    refusal: Refusal | None = None

    def room(self) -> int:
        """Messages that may be sent now."""
        if 0 < self.max_bytes <= self.bytes:
            return 0
        return max(0, self.max_messages - self.messages) if self.max_messages > 0 else sys.maxsize


@dataclass(slots=True)
class _Lease:
    """A delivery that is neither acknowledged nor given up; `deadline` is in time.monotonic() seconds."""

    message: Any
    deadline: float
    size: int  # bytes
    flow: _Flow | None


class _Subscription:
    """Where each message is: in the queue, leased to a subscriber, or acknowledged. The server's lock guards it."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.retention = settings.message_retention_duration.ToTimedelta().total_seconds()
        self.queue: deque[Any] = deque()
        self.leases: dict[str, _Lease] = {}  # by ack id
        self.acknowledged: deque[tuple[float, Any]] = deque()  # when, in time.monotonic() seconds; message
        self.expiry = math.inf  # no lease ends before this time.monotonic()
        self.deleted = False
        self._deliveries = itertools.count(1)

    def take(self, into: Any, at_most: int, deadline: int, flow: _Flow | None = None) -> int:
        """Lease up to `at_most` messages for `deadline` seconds and add them to the response `into`.

        Returns how many; fewer than there are when they exceed RESPONSE_BYTES.
        """
        now = time.monotonic()
        self._expire(now)
        count = size = 0
        while self.queue and count < at_most and size < RESPONSE_BYTES:
            message = self.queue.popleft()
            lease = _Lease(message, now + deadline, message.ByteSize(), flow)
            received = into.received_messages.add(ack_id=f"{self.settings.name}:{next(self._deliveries)}")
            received.message.CopyFrom(message)
            self.leases[received.ack_id] = lease
            if flow:
                flow.messages += 1
                flow.bytes += lease.size
            count += 1
            size += lease.size
        if count:
            self.expiry = min(self.expiry, now + deadline)
        return count

    def until_expiry(self) -> float:
        """Seconds until a lease may end; a long time when there is none."""
        return min(max(0.0, self.expiry - time.monotonic()), threading.TIMEOUT_MAX)

    def acknowledge(self, ack_ids: Iterable[str]) -> None:
        """Acknowledge deliveries. As on the service, one that has expired comes again all the same."""
        now = time.monotonic()
        self._expire(now)
        self._forget(now)
        for ack_id in self._known(ack_ids):
            self.acknowledged.append((now, self._release(ack_id)))

    def modify_deadline(self, ack_ids: Iterable[str], seconds: int) -> None:
        """Let deliveries end `seconds` from now; 0 gives them back at once."""
        now = time.monotonic()
        self._expire(now)
        self.expiry = min(self.expiry, now + seconds)
        for ack_id in self._known(ack_ids):
            self.leases[ack_id].deadline = now + seconds
        self._expire(now)

    def seek(self, nanoseconds: int) -> None:
        """Make what was published since then (Unix time) unacknowledged, as far as it is kept, and the rest not."""
        now = time.monotonic()
        self._forget(now)
        messages = [*self.queue, *(self._release(ack_id) for ack_id in list(self.leases))]
        if self.settings.retain_acked_messages:
            messages += [message for _, message in self.acknowledged]
            self.acknowledged.clear()
        self.queue.clear()
        for message in sorted(messages, key=lambda message: int(message.message_id)):
            if message.publish_time.ToNanoseconds() >= nanoseconds:
                self.queue.append(message)
            else:
                self.acknowledged.append((now, message))

    def redeliver(self, fraction: float, seed: int) -> int:
        """Queue that fraction of the acknowledged messages once more, chosen by `seed`; returns how many."""
        self._forget(time.monotonic())
        count = round(len(self.acknowledged) * fraction)
        chosen = set(random.Random(seed).sample(range(len(self.acknowledged)), count))
        self.queue.extend(message for n, (_, message) in enumerate(self.acknowledged) if n in chosen)
        self.acknowledged = deque(one for n, one in enumerate(self.acknowledged) if n not in chosen)
        return count

    def _known(self, ack_ids: Iterable[str]) -> Iterator[str]:
        """The ack ids of current leases. Refuses those that never were one of this subscription."""
        for ack_id in ack_ids:
            if ack_id in self.leases:
                yield ack_id
            elif not ack_id.removeprefix(f"{self.settings.name}:").isdecimal():
                raise Refusal(Code.INVALID_ARGUMENT, f"Invalid ack id (ack_id={ack_id})")

    def _expire(self, now: float) -> None:
        if now < self.expiry:
            return
        for ack_id in [ack_id for ack_id, lease in self.leases.items() if lease.deadline <= now]:
            self.queue.append(self._release(ack_id))
        self.expiry = min((lease.deadline for lease in self.leases.values()), default=math.inf)

    def _forget(self, now: float) -> None:
        while self.acknowledged and self.acknowledged[0][0] <= now - self.retention:
            self.acknowledged.popleft()

    def _release(self, ack_id: str) -> Any:
        lease = self.leases.pop(ack_id)
        if lease.flow:
            lease.flow.messages -= 1
            lease.flow.bytes -= lease.size
        return lease.message


def _is_there(context: grpc.ServicerContext) -> bool:
    """Whether the client still waits. Its deadline says so before gRPC has noticed that it is gone."""
    remaining = context.time_remaining()
    return context.is_active() and (remaining is None or remaining > 0)


class PubsubServer:
    """The server, running for the length of a `with` block; `host` is 127.0.0.1:PORT.

    `port` 0 takes a free one; RuntimeError if a port cannot be had. Acknowledged messages are kept for `retention`
    seconds (or the subscription's own message_retention_duration) after their acknowledgement, for `redeliver`, and
    for seek where the subscription sets retain_acked_messages.
    """

    def __init__(self, port: int = 0, retention: float = RETENTION) -> None:
        self._retention = retention
        self._topics: dict[str, Any] = {}
        self._subscriptions: dict[str, _Subscription] = {}
        self._message_ids = itertools.count(1)
        self._refusals: dict[str, deque[grpc.StatusCode]] = {}
        self._released = threading.Event()
        self._released.set()
        self._changed = threading.Condition()  # guards all of the above; notified when waiting calls should look again
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(CALLS, "pubsub-server"), options=options)
        self._server.add_generic_rpc_handlers(self._handlers())
        self.host = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self._server.stop(STOP_GRACE)
        self._released.set()
        self._wake()
        stopped.wait()

    # Faults.

    def redeliver(self, subscription: str, fraction: float, seed: int = 0) -> int:
        """Deliver that fraction (0 to 1) of the acknowledged messages once more, chosen by `seed`; returns how many."""
        with self._changed:
            count = self._find_subscription(subscription).redeliver(fraction, seed)
            self._changed.notify_all()
            return count

    def reorder(self, subscription: str, seed: int = 0) -> None:
        """Shuffle the messages that wait for delivery, by `seed`."""
        with self._changed:
            random.Random(seed).shuffle(self._find_subscription(subscription).queue)

    def stall(self, seconds: float | None = None) -> threading.Event:
        """Publish and pulls of both kinds hang, for so many seconds or until the event that is returned is set.

        Then they go on, a publish also if its client has given up: what the publisher thinks lost is there after all.
        """
        released = self._released = threading.Event()
        if seconds is not None:
            timer = threading.Timer(seconds, released.set)
            timer.daemon = True
            timer.start()
        return released

    def refuse(self, method: str, code: grpc.StatusCode, times: int = 1) -> None:
        """Refuse the next calls of a method ("Publish", "StreamingPull", ...); they change nothing."""
        if method not in self._refusals:
            raise ValueError(f"no method {method}; there are {', '.join(self._refusals)}")
        self._refusals[method].extend([code] * times)

    # Calls.

    def _handlers(self) -> list[Any]:
        publisher = [
            self._unary("CreateTopic", self._create_topic, types.Topic),
            self._unary("GetTopic", self._get_topic, types.GetTopicRequest),
            self._unary("ListTopics", self._list_topics, types.ListTopicsRequest),
            self._unary("DeleteTopic", self._delete_topic, types.DeleteTopicRequest),
            self._unary("ListTopicSubscriptions", self._list_topic_subscriptions, types.ListTopicSubscriptionsRequest),
            self._unary("Publish", self._publish, types.PublishRequest),
        ]
        subscriber = [
            self._unary("CreateSubscription", self._create_subscription, types.Subscription),
            self._unary("GetSubscription", self._get_subscription, types.GetSubscriptionRequest),
            self._unary("ListSubscriptions", self._list_subscriptions, types.ListSubscriptionsRequest),
            self._unary("DeleteSubscription", self._delete_subscription, types.DeleteSubscriptionRequest),
            self._unary("Pull", self._pull, types.PullRequest),
            self._unary("Acknowledge", self._acknowledge, types.AcknowledgeRequest),
            self._unary("ModifyAckDeadline", self._modify_ack_deadline, types.ModifyAckDeadlineRequest),
            self._unary("Seek", self._seek, types.SeekRequest),
            self._streaming("StreamingPull", self._streaming_pull, types.StreamingPullRequest),
        ]
        return [
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", dict(publisher)),
            grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", dict(subscriber)),
        ]

    def _unary(self, method: str, answer: Callable[[Any, Any], Any], request_type: Any) -> tuple[str, Any]:
        self._refusals[method] = deque()

        def call(request: Any, context: Any) -> Any:
            try:
                self._obey_faults(method)
                with self._changed:
                    return answer(request, context)
            except Refusal as refusal:
                context.abort(refusal.code, str(refusal))

        handler = grpc.unary_unary_rpc_method_handler(call, request_type.pb().FromString, _serialize)
        return method, handler

    def _streaming(self, method: str, answer: Callable[[Any, Any], Iterator], request_type: Any) -> tuple[str, Any]:
        self._refusals[method] = deque()

        def call(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            try:
                self._obey_faults(method)
                yield from answer(requests, context)
            except Refusal as refusal:
                context.abort(refusal.code, str(refusal))

        handler = grpc.stream_stream_rpc_method_handler(call, request_type.pb().FromString, _serialize)
        return method, handler

    def _obey_faults(self, method: str) -> None:
        if method in ("Publish", "Pull"):
            self._released.wait()
        with self._changed:
            if refusals := self._refusals[method]:
                raise Refusal(refusals.popleft(), f"{method} is refused on command")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _create_topic(self, request: Any, _: Any) -> Any:
        _check_name(request.name, "topics")
        if request.name in self._topics:
            raise Refusal(Code.ALREADY_EXISTS, "Topic already exists")
        self._topics[request.name] = request
        return request

    def _get_topic(self, request: Any, _: Any) -> Any:
        return self._find_topic(request.topic)

    def _list_topics(self, request: Any, _: Any) -> Any:
        names, next_page = _page(request, (name for name in self._topics if name.startswith(f"{request.project}/")))
        return ListTopicsResponse(topics=[self._topics[name] for name in names], next_page_token=next_page)

    def _delete_topic(self, request: Any, _: Any) -> Any:
        self._find_topic(request.topic)
        del self._topics[request.topic]
        for subscription in self._subscriptions.values():
            if subscription.settings.topic == request.topic:
                subscription.settings.topic = "_deleted-topic_"
        return Empty()

    def _list_topic_subscriptions(self, request: Any, _: Any) -> Any:
        self._find_topic(request.topic)
        found = (name for name, one in self._subscriptions.items() if one.settings.topic == request.topic)
        names, next_page = _page(request, found)
        return ListTopicSubscriptionsResponse(subscriptions=names, next_page_token=next_page)

    def _publish(self, request: Any, _: Any) -> Any:
        self._find_topic(request.topic)
        if not request.messages:
            raise Refusal(Code.INVALID_ARGUMENT, "No messages to publish")
        if len(request.messages) > PUBLISH_MESSAGES:
            raise Refusal(Code.INVALID_ARGUMENT, "Too many messages to publish")
        if request.ByteSize() > PUBLISH_BYTES:
            raise Refusal(Code.INVALID_ARGUMENT, f"The request is larger than {PUBLISH_BYTES} bytes")
        if not all(message.data or message.attributes for message in request.messages):
            raise Refusal(Code.INVALID_ARGUMENT, "Some messages are empty")
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        for message in request.messages:
            message.message_id = str(next(self._message_ids))
            message.publish_time.seconds = seconds
            message.publish_time.nanos = nanoseconds
        for subscription in self._subscriptions.values():
            if subscription.settings.topic == request.topic:
                subscription.queue.extend(request.messages)
        self._changed.notify_all()
        return PublishResponse(message_ids=[message.message_id for message in request.messages])

    def _create_subscription(self, request: Any, _: Any) -> Any:
        _check_name(request.name, "subscriptions")
        if unknown := {field.name for field, _ in request.ListFields()} - HONOURED - KEPT:
            raise Refusal(Code.UNIMPLEMENTED, f"This server does not do {', '.join(sorted(unknown))}")
        if request.name in self._subscriptions:
            raise Refusal(Code.ALREADY_EXISTS, "Subscription already exists")
        self._find_topic(request.topic)
        request.ack_deadline_seconds = request.ack_deadline_seconds or ACK_DEADLINE
        if request.ack_deadline_seconds not in ACK_DEADLINES:
            raise Refusal(Code.INVALID_ARGUMENT, "ack_deadline_seconds must be from 10 to 600")
        if not request.HasField("message_retention_duration"):
            request.message_retention_duration.FromMilliseconds(round(self._retention * 1000))
        elif not RETENTIONS[0] <= request.message_retention_duration.ToSeconds() <= RETENTIONS[1]:
            raise Refusal(Code.INVALID_ARGUMENT, "message_retention_duration must be from 10 minutes to 31 days")
        self._subscriptions[request.name] = _Subscription(request)
        return request

    def _get_subscription(self, request: Any, _: Any) -> Any:
        return self._find_subscription(request.subscription).settings

    def _list_subscriptions(self, request: Any, _: Any) -> Any:
        found = (name for name in self._subscriptions if name.startswith(f"{request.project}/"))
        names, next_page = _page(request, found)
        settings = [self._subscriptions[name].settings for name in names]
        return ListSubscriptionsResponse(subscriptions=settings, next_page_token=next_page)

    def _delete_subscription(self, request: Any, _: Any) -> Any:
        self._find_subscription(request.subscription).deleted = True
        del self._subscriptions[request.subscription]
        self._changed.notify_all()
        return Empty()

    def _pull(self, request: Any, context: Any) -> Any:
        subscription = self._find_subscription(request.subscription)
        if request.max_messages <= 0:
            raise Refusal(Code.INVALID_ARGUMENT, "max_messages must be 1 or more")
        response = PullResponse()
        wait = 0 if request.return_immediately else min(PULL_WAIT, context.time_remaining() - 1)
        give_up = time.monotonic() + wait
        while _is_there(context) and not subscription.deleted:
            if subscription.take(response, request.max_messages, subscription.settings.ack_deadline_seconds):
                break
            left = give_up - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(min(left, subscription.until_expiry()))
        if subscription.deleted:
            raise _no_subscription()
        return response

    def _acknowledge(self, request: Any, _: Any) -> Any:
        subscription = self._find_subscription(request.subscription)
        if not request.ack_ids:
            raise Refusal(Code.INVALID_ARGUMENT, "No ack ids specified")
        subscription.acknowledge(request.ack_ids)
        self._changed.notify_all()  # a streaming pull may have room again
        return Empty()

    def _modify_ack_deadline(self, request: Any, _: Any) -> Any:
        subscription = self._find_subscription(request.subscription)
        if not request.ack_ids:
            raise Refusal(Code.INVALID_ARGUMENT, "No ack ids specified")
        _check_deadline(request.ack_deadline_seconds)
        subscription.modify_deadline(request.ack_ids, request.ack_deadline_seconds)
        self._changed.notify_all()
        return Empty()

    def _seek(self, request: Any, _: Any) -> Any:
        subscription = self._find_subscription(request.subscription)
        if request.HasField("snapshot"):
            raise Refusal(Code.UNIMPLEMENTED, "This server does not do snapshots")
        if not request.HasField("time"):
            raise Refusal(Code.INVALID_ARGUMENT, "No target was specified: a time is needed")
        subscription.seek(request.time.ToNanoseconds())
        self._changed.notify_all()
        return SeekResponse()

    def _streaming_pull(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests)
        deadline = first.stream_ack_deadline_seconds
        if deadline not in ACK_DEADLINES:
            raise Refusal(Code.INVALID_ARGUMENT, "stream_ack_deadline_seconds must be from 10 to 600")
        with self._changed:
            subscription = self._find_subscription(first.subscription)
        flow = _Flow(first.max_outstanding_messages, first.max_outstanding_bytes)
        context.add_callback(self._wake)  # when the client has gone
        reader = threading.Thread(target=self._read_stream, args=(requests, subscription, flow), daemon=True)
        reader.start()
        while self._released.wait() and _is_there(context) and not flow.ended:
            response = StreamingPullResponse()
            with self._changed:
                if subscription.deleted:
                    raise _no_subscription()
                if not subscription.take(response, flow.room(), deadline, flow):
                    if _is_there(context) and not flow.ended:
                        self._changed.wait(subscription.until_expiry())
                    continue
            yield response
        if flow.refusal:
            raise flow.refusal

    def _read_stream(self, requests: Iterator[Any], subscription: _Subscription, flow: _Flow) -> None:
        """Take what a streaming pull's client sends after its first request, until it closes its side or goes away."""
        try:
            for request in requests:
                with self._changed:
                    subscription.acknowledge(request.ack_ids)
                    if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
                        raise Refusal(Code.INVALID_ARGUMENT, "modify_deadline_seconds must be as many as the ack ids")
                    for ack_id, seconds in zip(
                        request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True
                    ):
                        _check_deadline(seconds)
                        subscription.modify_deadline([ack_id], seconds)
                    self._changed.notify_all()
        except Refusal as refusal:
            flow.refusal = refusal
        except grpc.RpcError:
            pass  # the client is gone
        finally:
            flow.ended = True
            self._wake()

    def _find_topic(self, name: str) -> Any:
        _check_name(name, "topics")
        if name not in self._topics:
            raise Refusal(Code.NOT_FOUND, "Topic not found")
        return self._topics[name]

    def _find_subscription(self, name: str) -> _Subscription:
        _check_name(name, "subscriptions")
        if name not in self._subscriptions:
            raise _no_subscription()
        return self._subscriptions[name]


def _no_subscription() -> Refusal:
    return Refusal(Code.NOT_FOUND, "Subscription does not exist")


def _check_name(name: str, kind: str) -> None:
    match = NAME.fullmatch(name)
    if not match or match[1] != kind:
        raise Refusal(Code.INVALID_ARGUMENT, f"Invalid [{kind}] name: (name={name})")


def _check_deadline(seconds: int) -> None:
    if not 0 <= seconds < ACK_DEADLINES.stop:
        raise Refusal(Code.INVALID_ARGUMENT, "An ack deadline must be from 0 to 600 seconds")


def _page(request: Any, names: Iterable[str]) -> tuple[list[str], str]:
    """The names of the page that is asked for, and the token of the next one: the last name of this one, or empty."""
    rest = sorted(name for name in names if name > request.page_token)
    page = rest[: request.page_size or PAGE]
    return page, page[-1] if len(page) < len(rest) else ""


def _serialize(response: Any) -> bytes:
    return bytes(response.SerializeToString())


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; says on stdout where, once it listens. Returns the exit code: 1 for a bad port."""
    parser = argparse.ArgumentParser(prog="python -m local.pubsub_server", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    port = parser.parse_args(argv).port
    interrupt_once()
    try:
        with PubsubServer(port) as server:
            print(f"Listening on {server.host}", flush=True)
            while True:
                signal.pause()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
