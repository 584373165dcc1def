"""The calls of the publisher and subscriber services, on topics and subscriptions in memory."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.pubsub_v1 import types

from local.stack.pubsub_server.requests import (
    Code,
    RequestRejected,
    check_ack_ids,
    check_deadline,
    check_name,
    check_project,
    check_published,
    check_subscription,
    check_topic,
    nanoseconds,
    no_subscription,
    page,
)
from local.stack.pubsub_server.subscription import Subscription

# Raw protobuf, because access to fields through proto-plus takes ten times as long.
ListSubscriptionsResponse = types.ListSubscriptionsResponse.pb()
ListTopicsResponse = types.ListTopicsResponse.pb()
ListTopicSubscriptionsResponse = types.ListTopicSubscriptionsResponse.pb()
PublishResponse = types.PublishResponse.pb()
PullResponse = types.PullResponse.pb()
SeekResponse = types.SeekResponse.pb()

PUBLISHER, SUBSCRIBER = "google.pubsub.v1.Publisher", "google.pubsub.v1.Subscriber"
Call = Callable[[Any, Any], Any]  # from request and context to the response
Calls = dict[str, tuple[Call, Any]]  # by method: its implementation, and the type of its request
ACK_DEADLINE = 10  # seconds; the default of subscriptions
PULL_WAIT = 10.0  # seconds that a pull waits for a first message; less if the client's timeout is shorter


class Service:
    """Topics and subscriptions, guarded by `lock`; `retention` is their default retention in seconds."""

    def __init__(self, retention: float) -> None:
        self.lock = threading.RLock()
        self._retention = retention
        self._topics: dict[str, Any] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._message_ids = itertools.count(1)

    @property
    def calls(self) -> dict[str, Calls]:
        """All calls but the streaming one, by gRPC service; they must be called with `lock` held."""
        publisher: Calls = {
            "CreateTopic": (self._create_topic, types.Topic),
            "GetTopic": (self._get_topic, types.GetTopicRequest),
            "ListTopics": (self._list_topics, types.ListTopicsRequest),
            "DeleteTopic": (self._delete_topic, types.DeleteTopicRequest),
            "ListTopicSubscriptions": (self._list_topic_subscriptions, types.ListTopicSubscriptionsRequest),
            "Publish": (self._publish, types.PublishRequest),
        }
        subscriber: Calls = {
            "CreateSubscription": (self._create_subscription, types.Subscription),
            "GetSubscription": (self._get_subscription, types.GetSubscriptionRequest),
            "ListSubscriptions": (self._list_subscriptions, types.ListSubscriptionsRequest),
            "DeleteSubscription": (self._delete_subscription, types.DeleteSubscriptionRequest),
            "Pull": (self._pull, types.PullRequest),
            "Acknowledge": (self._acknowledge, types.AcknowledgeRequest),
            "ModifyAckDeadline": (self._modify_ack_deadline, types.ModifyAckDeadlineRequest),
            "Seek": (self._seek, types.SeekRequest),
        }
        return {PUBLISHER: publisher, SUBSCRIBER: subscriber}

    def wake(self) -> None:
        """Wake up all waiting calls."""
        with self.lock:
            for subscription in self._subscriptions.values():
                subscription.changed.notify_all()

    def _create_topic(self, request: Any, _: Any) -> Any:
        check_name(request.name, "topics")
        check_topic(request)
        if request.name in self._topics:
            raise RequestRejected(Code.ALREADY_EXISTS, "Topic already exists")
        self._topics[request.name] = request
        return request

    def _get_topic(self, request: Any, _: Any) -> Any:
        return self._find_topic(request.topic)

    def _list_topics(self, request: Any, _: Any) -> Any:
        check_project(request.project)
        names, next_page = page(request, (name for name in self._topics if name.startswith(f"{request.project}/")))
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
        names, next_page = page(request, found)
        return ListTopicSubscriptionsResponse(subscriptions=names, next_page_token=next_page)

    def _publish(self, request: Any, _: Any) -> Any:
        self._find_topic(request.topic)
        check_published(request)
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        for message in request.messages:
            message.message_id = str(next(self._message_ids))
            message.publish_time.seconds = seconds
            message.publish_time.nanos = nanoseconds
        for subscription in self._subscriptions.values():
            if subscription.settings.topic == request.topic:
                subscription.publish(request.messages)
        return PublishResponse(message_ids=[message.message_id for message in request.messages])

    def _create_subscription(self, request: Any, _: Any) -> Any:
        check_name(request.name, "subscriptions")
        check_subscription(request)
        if request.name in self._subscriptions:
            raise RequestRejected(Code.ALREADY_EXISTS, "Subscription already exists")
        self._find_topic(request.topic)
        request.ack_deadline_seconds = request.ack_deadline_seconds or ACK_DEADLINE
        if not request.HasField("message_retention_duration"):
            request.message_retention_duration.FromMilliseconds(round(self._retention * 1000))
        self._subscriptions[request.name] = Subscription(request, self.lock)
        return request

    def _get_subscription(self, request: Any, _: Any) -> Any:
        return self.find_subscription(request.subscription).settings

    def _list_subscriptions(self, request: Any, _: Any) -> Any:
        check_project(request.project)
        found = (name for name in self._subscriptions if name.startswith(f"{request.project}/"))
        names, next_page = page(request, found)
        settings = [self._subscriptions[name].settings for name in names]
        return ListSubscriptionsResponse(subscriptions=settings, next_page_token=next_page)

    def _delete_subscription(self, request: Any, _: Any) -> Any:
        subscription = self.find_subscription(request.subscription)
        subscription.deleted = True
        del self._subscriptions[request.subscription]
        subscription.changed.notify_all()
        return Empty()

    def _pull(self, request: Any, context: Any) -> Any:
        subscription = self.find_subscription(request.subscription)
        if request.max_messages <= 0:
            raise RequestRejected(Code.INVALID_ARGUMENT, "max_messages must be 1 or more")
        response = PullResponse()
        wait = 0 if request.return_immediately else min(PULL_WAIT, context.time_remaining() - 1)
        give_up = time.monotonic() + wait
        while is_there(context) and not subscription.deleted:
            if subscription.take(response, subscription.settings.ack_deadline_seconds, request.max_messages):
                break
            left = give_up - time.monotonic()
            if left <= 0:
                break
            subscription.changed.wait(min(left, subscription.until_expiry()))
        if subscription.deleted:
            raise no_subscription()
        return response

    def _acknowledge(self, request: Any, _: Any) -> Any:
        subscription = self.find_subscription(request.subscription)
        check_ack_ids(request)
        subscription.acknowledge(request.ack_ids)
        return Empty()

    def _modify_ack_deadline(self, request: Any, _: Any) -> Any:
        subscription = self.find_subscription(request.subscription)
        check_ack_ids(request)
        check_deadline(request.ack_deadline_seconds)
        subscription.modify_deadline(request.ack_ids, request.ack_deadline_seconds)
        return Empty()

    def _seek(self, request: Any, _: Any) -> Any:
        subscription = self.find_subscription(request.subscription)
        if request.HasField("snapshot"):
            raise RequestRejected(Code.UNIMPLEMENTED, "This server does not support snapshots")
        if not request.HasField("time"):
            raise RequestRejected(Code.INVALID_ARGUMENT, "No target was specified: a time is needed")
        subscription.seek(nanoseconds(request.time))
        return SeekResponse()

    def _find_topic(self, name: str) -> Any:
        check_name(name, "topics")
        if name not in self._topics:
            raise RequestRejected(Code.NOT_FOUND, "Topic not found")
        return self._topics[name]

    def find_subscription(self, name: str) -> Subscription:
        """Return the subscription of this name; refuses the call if it does not exist."""
        check_name(name, "subscriptions")
        if name not in self._subscriptions:
            raise no_subscription()
        return self._subscriptions[name]


def is_there(context: grpc.ServicerContext) -> bool:
    """Return whether the client still waits; after its deadline it does not, even if gRPC has not noticed yet."""
    remaining = context.time_remaining()
    return context.is_active() and (remaining is None or remaining > 0)
