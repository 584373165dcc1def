"""Our Pub/Sub server and the official emulator behave equally for Google's clients; and the faults of our server."""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1 import StreamingPullRequest, types
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from local.stack import emulators
from local.stack.pubsub_server import PubsubServer
from local.stack.pubsub_server import server as server_module

TIMEOUT_SECONDS = 15.0


class Place:
    """A topic and a subscription of one test; `name` returns names for more of them."""

    def __init__(self, host: str, project: str, **settings: Any) -> None:
        self.host = host
        self.project = f"projects/{project}"
        self.publisher = emulators.publisher_client(host)
        self.subscriber = emulators.subscriber_client(host)
        self.topic = self.publisher.create_topic(name=self.name("topics")).name
        self.subscription = self.subscribe(**settings)

    def name(self, kind: str) -> str:
        return f"{self.project}/{kind}/t{uuid.uuid4().hex}"

    def subscribe(self, **settings: Any) -> str:
        request = {"name": self.name("subscriptions"), "topic": self.topic, "ack_deadline_seconds": 60, **settings}
        return self.subscriber.create_subscription(request).name

    def publish(self, *texts: str) -> list[str]:
        messages = [{"data": text.encode()} for text in texts]
        return list(self.publisher.publish(topic=self.topic, messages=messages).message_ids)

    def pull(self, at_most: int = 100, subscription: str = "") -> list[Any]:
        """Return the messages that are available now."""
        request = {"subscription": subscription or self.subscription, "max_messages": at_most}
        return list(self.subscriber.pull({**request, "return_immediately": True}).received_messages)

    def wait_and_pull(self) -> list[Any]:
        """Return the first messages that become available."""
        pulled = self.subscriber.pull(subscription=self.subscription, max_messages=100, timeout=5)
        return list(pulled.received_messages)

    def ack(self, received: list[Any]) -> None:
        self.subscriber.acknowledge(subscription=self.subscription, ack_ids=[one.ack_id for one in received])

    def modify_deadline(self, received: list[Any], seconds: int) -> None:
        ack_ids = [one.ack_id for one in received]
        self.subscriber.modify_ack_deadline(
            subscription=self.subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )

    def seek(self, moment: datetime) -> None:
        self.subscriber.seek({"subscription": self.subscription, "time": moment})

    def stream(self, timeout: float = TIMEOUT_SECONDS, **settings: Any) -> tuple["queue.Queue[Any]", Any]:
        """Start a streaming pull; returns the queue of further requests (None closes it), and the responses."""
        requests: queue.Queue[Any] = queue.Queue()
        first = {"subscription": self.subscription, "stream_ack_deadline_seconds": 60, **settings}
        requests.put(StreamingPullRequest(first))
        return requests, self.subscriber.streaming_pull(iter(requests.get, None), timeout=timeout, retry=None)

    @contextmanager
    def streaming(self, callback: Callable[[Any], None]) -> Iterator[None]:
        """Run the official client's subscribe() for the length of the block."""
        transport = SubscriberGrpcTransport(channel=emulators.insecure_channel(self.host))
        with pubsub_v1.SubscriberClient(transport=transport) as client:
            future = client.subscribe(self.subscription, callback)
            yield
            future.cancel()
            future.result(TIMEOUT_SECONDS)


def texts(received: list[Any]) -> list[str]:
    return [one.message.data.decode() for one in received]


@pytest.fixture
def place(pubsub_server: str, project: str) -> Place:
    return Place(pubsub_server, project)


class TestPull:
    def test_returns_each_message_once_with_all_fields(self, place: Place) -> None:
        messages = [{"data": b"\x00\xff", "attributes": {"a": "b"}, "message_id": "mine"}, {"attributes": {"c": ""}}]
        message_ids = place.publisher.publish(topic=place.topic, messages=messages).message_ids
        received = place.pull()
        assert [(one.message.data, dict(one.message.attributes)) for one in received] == [
            (b"\x00\xff", {"a": "b"}),
            (b"", {"c": ""}),
        ]
        assert [one.message.message_id for one in received] == list(message_ids)
        assert "mine" not in message_ids
        assert all(abs(one.message.publish_time - datetime.now(UTC)) < timedelta(seconds=10) for one in received)
        place.ack(received)
        assert place.pull() == []

    def test_returns_at_most_max_messages_and_the_rest_later(self, place: Place) -> None:
        place.publish("1", "2", "3")
        assert len(place.pull(2)) == 2
        assert len(place.pull(2)) == 1

    def test_returns_messages_published_after_the_creation_of_the_subscription(self, place: Place) -> None:
        place.publish("early")
        other = place.subscribe()
        place.publish("late")
        assert sorted(texts(place.pull())) == ["early", "late"]
        assert texts(place.pull(subscription=other)) == ["late"]

    def test_waits_for_a_message(self, place: Place) -> None:
        with ThreadPoolExecutor() as pool:
            pulled = pool.submit(place.wait_and_pull)
            place.publish("hello")
            assert texts(pulled.result(TIMEOUT_SECONDS)) == ["hello"]

    def test_returns_no_messages_after_the_timeout(self, place: Place) -> None:
        pulled = place.subscriber.pull(subscription=place.subscription, max_messages=1, timeout=1.5)
        assert not pulled.received_messages


class TestAckDeadlines:
    def test_redelivers_unacknowledged_messages_after_the_deadline(self, place: Place) -> None:
        place.publish("again", "kept")
        received = place.pull()
        place.modify_deadline([one for one in received if one.message.data == b"again"], 1)
        second = place.wait_and_pull()
        assert texts(second) == ["again"]
        assert second[0].message.message_id in [one.message.message_id for one in received]

    def test_redelivers_immediately_after_a_deadline_of_zero(self, place: Place) -> None:
        place.publish("again")
        for _ in range(3):
            received = place.pull()
            assert texts(received) == ["again"]
            place.modify_deadline(received, 0)

    def test_ignores_acks_of_expired_deliveries(self, place: Place) -> None:
        place.publish("again")
        first = place.pull()
        place.modify_deadline(first, 0)
        second = place.pull()
        place.ack(first)
        place.modify_deadline(second, 0)
        assert texts(place.pull()) == ["again"]

    def test_ignores_repeated_acks_and_later_nacks(self, place: Place) -> None:
        place.publish("done")
        received = place.pull()
        place.ack(received)
        place.ack(received)
        place.modify_deadline(received, 0)
        assert place.pull() == []


class TestStreamingPull:
    def test_delivers_to_the_official_subscriber_and_accepts_its_acks(self, place: Place) -> None:
        received_texts: queue.Queue[str] = queue.Queue()

        def callback(message: Any) -> None:
            received_texts.put(message.data.decode())
            message.ack()

        before = {str(n) for n in range(50)}
        place.publish(*before)
        with place.streaming(callback):
            assert {received_texts.get(timeout=TIMEOUT_SECONDS) for _ in before} == before
            place.publish("live")
            assert received_texts.get(timeout=TIMEOUT_SECONDS) == "live"
        # Acks are sent in the background. An unacknowledged message is leased, and would be redelivered after a seek.
        place.seek(datetime.now(UTC) - timedelta(minutes=5))
        assert place.pull() == []

    def test_redelivers_after_a_nack(self, place: Place) -> None:
        received_texts: queue.Queue[str] = queue.Queue()
        answers = iter(["nack", "ack"])

        def callback(message: Any) -> None:
            getattr(message, next(answers))()
            received_texts.put(message.message_id)

        (message_id,) = place.publish("again")
        with place.streaming(callback):
            assert [received_texts.get(timeout=TIMEOUT_SECONDS) for _ in range(2)] == [message_id] * 2

    def test_ends_when_the_client_closes_its_side(self, place: Place) -> None:
        requests, stream = place.stream()
        requests.put(None)
        assert not list(stream)

    @pytest.mark.parametrize(
        "request_",
        [
            {"ack_ids": ["x"]},
            {"modify_deadline_ack_ids": ["x"]},
            {"modify_deadline_seconds": [1]},
            {"stream_ack_deadline_seconds": 9},
            {"stream_ack_deadline_seconds": -1},
            {"subscription": "projects/p/subscriptions/another"},
        ],
    )
    def test_ends_on_a_malformed_request(self, request_: dict[str, Any], place: Place) -> None:
        requests, stream = place.stream()
        requests.put(StreamingPullRequest(request_))
        with pytest.raises(exceptions.InvalidArgument):
            list(stream)

    @pytest.mark.parametrize("request_", [{"ack_ids": ["x"]}, {"modify_deadline_ack_ids": ["x"]}])
    def test_ends_on_a_malformed_first_request(self, request_: dict[str, Any], place: Place) -> None:
        with pytest.raises(exceptions.InvalidArgument):
            list(place.stream(**request_)[1])

    def test_accepts_acks_in_the_first_request(self, place: Place) -> None:
        place.publish("done")
        received = place.pull()
        requests, stream = place.stream(ack_ids=[one.ack_id for one in received])
        requests.put(None)
        assert not list(stream)
        place.seek(datetime.now(UTC) - timedelta(minutes=5))  # leased messages are redelivered
        assert place.pull() == []

    def test_requires_a_subscription_and_a_deadline(self, place: Place) -> None:
        with pytest.raises(exceptions.NotFound):
            list(place.stream(subscription=place.name("subscriptions"))[1])
        with pytest.raises(exceptions.InvalidArgument):
            list(place.stream(stream_ack_deadline_seconds=9)[1])


class TestSeek:
    def test_seek_to_the_past_redelivers_messages_published_since(self, pubsub_server: str, project: str) -> None:
        place = Place(pubsub_server, project, retain_acked_messages=True)
        place.publish("before")
        time.sleep(0.01)  # times of the official emulator are in milliseconds
        place.publish("after-1", "after-2")
        received = place.pull()
        place.ack(received)
        assert place.pull() == []
        between = received[0].message.publish_time + timedelta(milliseconds=5)
        place.seek(between)
        assert sorted(texts(place.pull())) == ["after-1", "after-2"]
        place.seek(between - timedelta(minutes=1))
        assert sorted(texts(place.pull())) == ["after-1", "after-2", "before"]

    def test_seek_to_the_past_redelivers_only_unacknowledged_messages_without_retention(self, place: Place) -> None:
        place.publish("done", "leased", "waiting")
        received = place.pull(2)
        place.ack(received[:1])
        place.seek(datetime.now(UTC) - timedelta(minutes=1))
        assert sorted(texts(place.pull())) == ["leased", "waiting"]

    def test_seek_to_the_future_acknowledges_all_messages(self, place: Place) -> None:
        place.publish("leased", "waiting")
        leased = place.pull(1)
        place.seek(datetime.now(UTC) + timedelta(minutes=1))
        place.modify_deadline(leased, 0)
        assert place.pull() == []
        place.publish("new")
        assert texts(place.pull()) == ["new"]


class TestResources:
    def test_are_listed_until_they_are_deleted(self, place: Place) -> None:
        other = place.subscribe()

        def listed() -> tuple[bool, set[str], set[str]]:
            topics = {one.name for one in place.publisher.list_topics({"project": place.project, "page_size": 1})}
            subscriptions = {one.name for one in place.subscriber.list_subscriptions(project=place.project)}
            of_topic = set(place.publisher.list_topic_subscriptions(topic=place.topic))
            return place.topic in topics, subscriptions & {place.subscription, other}, of_topic

        assert listed() == (True, {place.subscription, other}, {place.subscription, other})
        place.subscriber.delete_subscription(subscription=other)
        assert listed() == (True, {place.subscription}, {place.subscription})

    def test_subscription_outlives_its_topic(self, place: Place) -> None:
        place.publish("kept")
        place.publisher.delete_topic(topic=place.topic)
        assert place.subscriber.get_subscription(subscription=place.subscription).topic == "_deleted-topic_"
        place.publisher.create_topic(name=place.topic)
        place.publish("not for it")
        assert texts(place.pull()) == ["kept"]

    def test_create_is_refused_for_existing_names(self, place: Place) -> None:
        with pytest.raises(exceptions.AlreadyExists):
            place.publisher.create_topic(name=place.topic)
        with pytest.raises(exceptions.AlreadyExists):
            place.subscriber.create_subscription(name=place.subscription, topic=place.topic)

    @pytest.mark.parametrize(
        "call",
        [
            lambda p: p.publisher.get_topic(topic=p.name("topics")),
            lambda p: p.publisher.delete_topic(topic=p.name("topics")),
            lambda p: p.publisher.publish(topic=p.name("topics"), messages=[{"data": b"x"}]),
            lambda p: p.subscriber.create_subscription(name=p.name("subscriptions"), topic=p.name("topics")),
            lambda p: p.subscriber.get_subscription(subscription=p.name("subscriptions")),
            lambda p: p.subscriber.delete_subscription(subscription=p.name("subscriptions")),
            lambda p: p.subscriber.pull(subscription=p.name("subscriptions"), max_messages=1),
            lambda p: p.subscriber.acknowledge(subscription=p.name("subscriptions"), ack_ids=["x"]),
            lambda p: p.subscriber.modify_ack_deadline(
                subscription=p.name("subscriptions"), ack_ids=["x"], ack_deadline_seconds=1
            ),
            lambda p: p.subscriber.seek({"subscription": p.name("subscriptions"), "time": datetime.now(UTC)}),
        ],
    )
    def test_calls_on_missing_resources_are_not_found(self, call: Callable[[Place], Any], place: Place) -> None:
        with pytest.raises(exceptions.NotFound):
            call(place)

    @pytest.mark.parametrize(
        "call",
        [
            lambda p: p.publisher.create_topic(name="readings"),
            lambda p: p.publisher.create_topic(name=f"{p.project}/topics/1st"),
            lambda p: p.publisher.create_topic(name=f"{p.project}/topics/google"),
            lambda p: p.publisher.create_topic(name=p.name("subscriptions")),
            lambda p: p.publisher.publish(topic=p.topic, messages=[]),
            lambda p: p.publisher.publish(topic=p.topic, messages=[{"data": b"x"}, {}]),
            lambda p: p.publisher.publish(topic=p.topic, messages=[{"data": b"x"}] * 1001),
            lambda p: p.subscriber.create_subscription(name="readings", topic=p.topic),
            lambda p: p.subscribe(ack_deadline_seconds=601),
            lambda p: p.subscribe(message_retention_duration=timedelta(seconds=599)),
            lambda p: p.subscriber.pull(subscription=p.subscription, max_messages=0),
            lambda p: p.subscriber.acknowledge(subscription=p.subscription, ack_ids=[]),
            lambda p: p.subscriber.acknowledge(subscription=p.subscription, ack_ids=["x"]),
            lambda p: p.subscriber.modify_ack_deadline(
                subscription=p.subscription, ack_ids=["x"], ack_deadline_seconds=1
            ),
            lambda p: p.subscriber.seek({"subscription": p.subscription}),
            *(
                lambda p, moment=moment: p.subscriber.seek(
                    types.SeekRequest.wrap(types.SeekRequest.pb()(subscription=p.subscription, time=moment))
                )
                for moment in (
                    Timestamp(seconds=253402300800),  # the first of the year 10000
                    Timestamp(seconds=-62135596801),  # the last before the year 1
                    Timestamp(seconds=2**63 - 1),
                    Timestamp(seconds=-(2**63)),
                    Timestamp(nanos=10**9),
                    Timestamp(nanos=-1),
                )
            ),
            *(
                lambda p, retention=retention: p.subscriber.create_subscription(
                    types.Subscription.wrap(
                        types.Subscription.pb()(
                            name=p.name("subscriptions"), topic=p.topic, message_retention_duration=retention
                        )
                    )
                )
                for retention in (
                    Duration(seconds=-600),
                    Duration(seconds=31 * 86400, nanos=1),
                    Duration(seconds=2**63 - 1),
                    Duration(seconds=600, nanos=-1),
                    Duration(seconds=600, nanos=10**9),
                )
            ),
        ],
    )
    def test_invalid_requests_are_refused(self, call: Callable[[Place], Any], place: Place) -> None:
        with pytest.raises(exceptions.InvalidArgument):
            call(place)
        assert place.pull() == []


@pytest.fixture
def server() -> Iterator[PubsubServer]:
    with PubsubServer() as running:
        yield running


@pytest.fixture
def own_place(server: PubsubServer, project: str) -> Place:
    """Return a place on our server, which can inject faults."""
    return Place(server.host, project)


class TestOwnServer:
    """Our server is like the service where that is stricter than the official emulator."""

    def test_refuses_requests_above_ten_megabytes(self, own_place: Place) -> None:
        own_place.publisher.publish(topic=own_place.topic, messages=[{"data": b"x" * 9_900_000}])
        with pytest.raises(exceptions.InvalidArgument):
            own_place.publisher.publish(topic=own_place.topic, messages=[{"data": b"x" * 5_000_000}] * 2)

    def test_returns_large_messages_in_several_pulls(self, own_place: Place) -> None:
        own_place.publisher.publish(topic=own_place.topic, messages=[{"data": b"x" * 700_000}] * 5)
        assert [len(own_place.pull()) for _ in range(4)] == [2, 2, 1, 0]

    def test_list_of_subscriptions_of_a_missing_topic_is_not_found(self, own_place: Place) -> None:
        with pytest.raises(exceptions.NotFound):
            list(own_place.publisher.list_topic_subscriptions(topic=own_place.name("topics")))

    @pytest.mark.parametrize(
        "call",
        [
            *(
                lambda p, size=size: p.publisher.list_topics({"project": p.project, "page_size": size})
                for size in (-1, -(2**31))
            ),
            lambda p: p.publisher.list_topic_subscriptions({"topic": p.topic, "page_size": -1}),
            lambda p: p.subscriber.list_subscriptions({"project": p.project, "page_size": -1}),
            *(
                lambda p, project=project: p.publisher.list_topics(project=project)
                for project in ("", "p", "projects/", "projects/p/topics")
            ),
            lambda p: p.subscriber.list_subscriptions(project="p"),
            lambda p: p.subscriber.pull(subscription=p.subscription, max_messages=-1),
            *(
                lambda p, message=message: p.publisher.publish(topic=p.topic, messages=[message])
                for message in (
                    {"data": b"x", "attributes": {str(number): "" for number in range(101)}},
                    {"data": b"x", "attributes": {"n" * 257: ""}},
                    {"data": b"x", "attributes": {"n": "ä" * 513}},
                    {"data": b"x", "ordering_key": "k" * 1025},
                )
            ),
            lambda p: list(p.subscriber.streaming_pull(iter(()), timeout=TIMEOUT_SECONDS, retry=None)),
        ],
    )
    def test_refuses_what_the_documentation_forbids(self, call: Callable[[Place], Any], own_place: Place) -> None:
        with pytest.raises(exceptions.InvalidArgument):
            call(own_place)
        assert own_place.pull() == []

    def test_accepts_a_message_at_every_limit(self, own_place: Place) -> None:
        attributes = {f"{number:0256}": "v" * 1024 for number in range(100)}
        own_place.publisher.publish(topic=own_place.topic, messages=[{"data": b"x", "attributes": attributes}])
        assert [dict(one.message.attributes) for one in own_place.pull()] == [attributes]

    def test_changes_the_deadline_by_a_later_request(self, own_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("local.stack.pubsub_server.requests.ACK_DEADLINES", range(1, 601))
        own_place.publish("first", "second")
        requests, stream = own_place.stream(max_outstanding_messages=1)
        (first,) = next(stream).received_messages
        requests.put(StreamingPullRequest(ack_ids=[first.ack_id], stream_ack_deadline_seconds=1))
        assert [texts(next(stream).received_messages) for _ in range(2)] == [["second"], ["second"]]
        stream.cancel()

    @pytest.mark.parametrize("limit", ["max_outstanding_messages", "max_outstanding_bytes"])
    def test_refuses_to_change_the_limits_of_a_stream(self, limit: str, own_place: Place) -> None:
        requests, stream = own_place.stream()
        requests.put(StreamingPullRequest({limit: 5}))
        with pytest.raises(exceptions.InvalidArgument):
            list(stream)

    def test_lists_at_most_a_thousand_names_per_page(self, own_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("local.stack.pubsub_server.requests.PAGE", 2)
        names = {own_place.subscribe() for _ in range(3)} | {own_place.subscription}
        pages = own_place.subscriber.list_subscriptions({"project": own_place.project, "page_size": 1_000_000}).pages
        listed = [{one.name for one in page.subscriptions} for page in pages]
        assert [len(page) for page in listed] == [2, 2]
        assert set.union(*listed) == names

    def test_refuses_unsupported_settings_of_topics(self, own_place: Place) -> None:
        with pytest.raises(exceptions.MethodNotImplemented):
            own_place.publisher.create_topic({"name": own_place.name("topics"), "kms_key_name": "k"})

    @pytest.mark.parametrize("settings", [{"filter": "attributes:a"}, {"enable_message_ordering": True}])
    def test_refuses_unsupported_settings_and_snapshots(self, settings: dict[str, Any], own_place: Place) -> None:
        with pytest.raises(exceptions.MethodNotImplemented):
            own_place.subscribe(**settings)
        with pytest.raises(exceptions.MethodNotImplemented):
            own_place.subscriber.seek({"subscription": own_place.subscription, "snapshot": own_place.name("snapshots")})

    def test_streams_at_most_the_outstanding_messages_that_the_client_allows(self, own_place: Place) -> None:
        own_place.publish(*map(str, range(20)))
        requests, stream = own_place.stream(max_outstanding_messages=5)
        received: list[Any] = []
        while len(received) < 5:
            received += next(stream).received_messages
        assert len(received) == 5
        requests.put(StreamingPullRequest(ack_ids=[one.ack_id for one in received[:2]]))
        while len(received) < 7:
            received += next(stream).received_messages
        assert len(received) == 7
        assert len(set(texts(received))) == 7
        stream.cancel()

    def test_ends_pulls_of_a_deleted_subscription(self, server: PubsubServer, own_place: Place) -> None:
        _, stream = own_place.stream()
        own_place.publish("the stream is up")
        next(stream)
        with ThreadPoolExecutor() as pool:
            pulled = pool.submit(own_place.wait_and_pull)
            own_place.subscriber.delete_subscription(subscription=own_place.subscription)
            with pytest.raises(exceptions.NotFound):
                pulled.result(TIMEOUT_SECONDS)
        with pytest.raises(exceptions.NotFound):
            next(stream)

    def test_serves_other_calls_beside_five_hundred_idle_streams(self, own_place: Place) -> None:
        streams = [own_place.stream(max_outstanding_messages=1, timeout=60)[1] for _ in range(500)]
        own_place.publish(*map(str, range(500)))
        taken = {text for stream in streams for text in texts(next(stream).received_messages)}
        assert taken == set(map(str, range(500)))  # each has one message, and waits
        other = own_place.subscribe()
        for number in range(20):
            own_place.publisher.publish(
                topic=own_place.topic, messages=[{"data": b"%d" % number}], timeout=TIMEOUT_SECONDS, retry=None
            )
            assert texts(own_place.pull(subscription=other)) == [str(number)]
        for stream in streams:
            stream.cancel()

    def test_refuses_calls_above_the_limit(self, project: str, monkeypatch) -> None:
        monkeypatch.setattr(server_module, "CALLS", 3)
        with PubsubServer() as server:
            place = Place(server.host, project)
            place.publish("1", "2", "3")
            streams = [place.stream(max_outstanding_messages=1)[1] for _ in range(3)]
            assert sorted(text for stream in streams for text in texts(next(stream).received_messages)) == list("123")
            with pytest.raises(exceptions.ResourceExhausted):
                place.publisher.publish(
                    topic=place.topic, messages=[{"data": b"x"}], timeout=TIMEOUT_SECONDS, retry=None
                )
            for stream in streams:
                stream.cancel()

    def test_raises_for_a_port_in_use(self, server: PubsubServer) -> None:
        with pytest.raises(RuntimeError):
            PubsubServer(int(server.host.rpartition(":")[2]))


class TestFaults:
    def test_redeliver_delivers_a_fraction_of_the_acknowledged_messages(self, server, own_place) -> None:
        published = own_place.publish(*map(str, range(100)))
        own_place.ack(own_place.pull())
        own_place.publish("still there")
        assert server.redeliver(own_place.subscription, fraction=0.25, seed=4) == 25
        again = {one.message.message_id for one in own_place.pull()}
        assert len(again) == 26
        assert len(again & set(published)) == 25

    def test_redeliver_chooses_the_same_messages_for_the_same_seed(self, server, own_place) -> None:
        own_place.publish(*map(str, range(100)))
        chosen = []
        for _ in range(2):
            received = own_place.pull()
            own_place.ack(sorted(received, key=lambda one: int(one.message.data)))
            server.redeliver(own_place.subscription, fraction=1)
            own_place.ack(sorted(own_place.pull(), key=lambda one: int(one.message.data)))
            server.redeliver(own_place.subscription, fraction=0.1, seed=4)
            again = own_place.pull()
            chosen.append(sorted(texts(again)))
            own_place.modify_deadline(again, 0)
            server.redeliver(own_place.subscription, fraction=1)
        assert len(chosen[0]) == 10
        assert chosen[0] == chosen[1]

    def test_acknowledged_messages_are_deleted_after_the_retention(self, project: str) -> None:
        with PubsubServer(retention=0) as server:
            place = Place(server.host, project, retain_acked_messages=True)
            place.publish("gone")
            place.ack(place.pull())
            assert server.redeliver(place.subscription, fraction=1) == 0
            place.seek(datetime.now(UTC) - timedelta(minutes=1))
            assert place.pull() == []

    def test_reorder_shuffles_equally_for_the_same_seed(self, server, own_place) -> None:
        twin = own_place.subscribe()
        published = own_place.publish(*map(str, range(50)))
        for subscription in (own_place.subscription, twin):
            server.reorder(subscription, seed=7)
        orders = [
            [one.message.message_id for one in own_place.pull(subscription=subscription)]
            for subscription in (own_place.subscription, twin)
        ]
        assert orders[0] == orders[1] != published
        assert sorted(orders[0]) == sorted(published)

    def test_stall_delays_a_publish_that_is_stored_later(self, server, own_place) -> None:
        released = server.stall()
        with pytest.raises(exceptions.DeadlineExceeded):
            own_place.publisher.publish(topic=own_place.topic, messages=[{"data": b"lost?"}], timeout=0.3, retry=None)
        released.set()
        assert texts(own_place.wait_and_pull()) == ["lost?"]

    def test_stalled_pulls_lease_nothing_for_disconnected_clients(self, server, own_place) -> None:
        own_place.publish("here")
        released = server.stall()
        with pytest.raises(exceptions.DeadlineExceeded):
            own_place.subscriber.pull(subscription=own_place.subscription, max_messages=1, timeout=0.3, retry=None)
        with pytest.raises(exceptions.DeadlineExceeded):
            list(own_place.stream(timeout=0.3)[1])
        released.set()
        assert texts(own_place.wait_and_pull()) == ["here"]

    def test_stall_ends_after_its_seconds(self, server, own_place) -> None:
        released = server.stall(0.3)
        own_place.publish("late")
        assert released.is_set()

    def test_stall_ends_when_the_server_stops(self, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with PubsubServer() as server, ThreadPoolExecutor() as pool:
            place = Place(server.host, project)
            released, stalled = server.stall(), threading.Event()
            wait = released.wait
            monkeypatch.setattr(released, "wait", lambda: stalled.set() or wait())
            request = {"subscription": place.subscription, "max_messages": 1, "return_immediately": True}
            hanging = pool.submit(place.subscriber.pull, request, retry=None)
            # The call must have started before, because a server that stops accepts no new calls.
            assert stalled.wait(TIMEOUT_SECONDS)
            threading.Thread(target=server.__exit__, args=(None, None, None)).start()
            assert not hanging.result(TIMEOUT_SECONDS).received_messages

    def test_refuse_fails_that_many_calls_without_effect(self, server, own_place) -> None:
        server.refuse("Publish", grpc.StatusCode.PERMISSION_DENIED, times=2)
        for _ in range(2):
            with pytest.raises(exceptions.PermissionDenied):
                own_place.publish("refused")
        own_place.publish("taken")
        assert texts(own_place.pull()) == ["taken"]

    def test_official_publisher_retries_when_unavailable(self, server, own_place) -> None:
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE)
        own_place.publish("tried twice")
        assert texts(own_place.pull()) == ["tried twice"]

    def test_refuse_fails_one_streaming_pull(self, server, own_place) -> None:
        server.refuse("StreamingPull", grpc.StatusCode.UNAVAILABLE)
        own_place.publish("hello")
        with pytest.raises(exceptions.ServiceUnavailable):
            list(own_place.stream()[1])
        _, stream = own_place.stream()
        assert texts(next(stream).received_messages) == ["hello"]

    def test_refuse_raises_for_an_unknown_method(self, server) -> None:
        with pytest.raises(ValueError, match="no method Push; there are CreateTopic"):
            server.refuse("Push", grpc.StatusCode.UNAVAILABLE)
