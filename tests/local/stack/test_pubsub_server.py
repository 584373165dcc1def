"""Our Pub/Sub server and the official emulator agree, as Google's clients see them; then the faults only ours has."""

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
    """A topic and a subscription of one test's own; `names` of more are made with `name`."""

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
        """What is there now."""
        request = {"subscription": subscription or self.subscription, "max_messages": at_most}
        return list(self.subscriber.pull({**request, "return_immediately": True}).received_messages)

    def wait_and_pull(self) -> list[Any]:
        """What comes first, waiting for it."""
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
        """A bare streaming pull: where to put further requests (None closes), and the responses."""
        requests: queue.Queue[Any] = queue.Queue()
        first = {"subscription": self.subscription, "stream_ack_deadline_seconds": 60, **settings}
        requests.put(StreamingPullRequest(first))
        return requests, self.subscriber.streaming_pull(iter(requests.get, None), timeout=timeout, retry=None)

    @contextmanager
    def streaming(self, callback: Callable[[Any], None]) -> Iterator[None]:
        """The official client's subscribe() for the length of the block."""
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


class TestPulling:
    def test_messages_come_once_with_all_that_was_published(self, place: Place) -> None:
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

    def test_no_more_than_asked_for_and_the_rest_later(self, place: Place) -> None:
        place.publish("1", "2", "3")
        assert len(place.pull(2)) == 2
        assert len(place.pull(2)) == 1

    def test_every_subscription_gets_what_is_published_after_its_creation(self, place: Place) -> None:
        place.publish("early")
        other = place.subscribe()
        place.publish("late")
        assert sorted(texts(place.pull())) == ["early", "late"]
        assert texts(place.pull(subscription=other)) == ["late"]

    def test_a_pull_waits_for_a_message(self, place: Place) -> None:
        with ThreadPoolExecutor() as pool:
            pulled = pool.submit(place.wait_and_pull)
            place.publish("hello")
            assert texts(pulled.result(TIMEOUT_SECONDS)) == ["hello"]

    def test_a_pull_that_finds_nothing_comes_back_empty(self, place: Place) -> None:
        pulled = place.subscriber.pull(subscription=place.subscription, max_messages=1, timeout=1.5)
        assert not pulled.received_messages


class TestAckDeadlines:
    def test_what_is_not_acknowledged_in_time_comes_again(self, place: Place) -> None:
        place.publish("again", "kept")
        received = place.pull()
        place.modify_deadline([one for one in received if one.message.data == b"again"], 1)
        second = place.wait_and_pull()
        assert texts(second) == ["again"]
        assert second[0].message.message_id in [one.message.message_id for one in received]

    def test_zero_seconds_gives_a_message_back_at_once(self, place: Place) -> None:
        place.publish("again")
        for _ in range(3):
            received = place.pull()
            assert texts(received) == ["again"]
            place.modify_deadline(received, 0)

    def test_an_ack_of_an_expired_delivery_does_not_count(self, place: Place) -> None:
        place.publish("again")
        first = place.pull()
        place.modify_deadline(first, 0)
        second = place.pull()
        place.ack(first)
        place.modify_deadline(second, 0)
        assert texts(place.pull()) == ["again"]

    def test_an_ack_counts_twice_as_once_and_a_nack_after_it_not_at_all(self, place: Place) -> None:
        place.publish("done")
        received = place.pull()
        place.ack(received)
        place.ack(received)
        place.modify_deadline(received, 0)
        assert place.pull() == []


class TestStreamingPull:
    def test_the_official_subscriber_gets_everything_and_its_acks_count(self, place: Place) -> None:
        heard: queue.Queue[str] = queue.Queue()

        def callback(message: Any) -> None:
            heard.put(message.data.decode())
            message.ack()

        before = {str(n) for n in range(50)}
        place.publish(*before)
        with place.streaming(callback):
            assert {heard.get(timeout=TIMEOUT_SECONDS) for _ in before} == before
            place.publish("live")
            assert heard.get(timeout=TIMEOUT_SECONDS) == "live"
        # Acks leave in the background: what is not acknowledged by now is leased, and a seek would bring it back.
        place.seek(datetime.now(UTC) - timedelta(minutes=5))
        assert place.pull() == []

    def test_a_nack_brings_the_message_again(self, place: Place) -> None:
        heard: queue.Queue[str] = queue.Queue()
        answers = iter(["nack", "ack"])

        def callback(message: Any) -> None:
            getattr(message, next(answers))()
            heard.put(message.message_id)

        (message_id,) = place.publish("again")
        with place.streaming(callback):
            assert [heard.get(timeout=TIMEOUT_SECONDS) for _ in range(2)] == [message_id] * 2

    def test_closing_the_request_stream_ends_it(self, place: Place) -> None:
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
    def test_a_malformed_request_ends_the_stream(self, request_: dict[str, Any], place: Place) -> None:
        requests, stream = place.stream()
        requests.put(StreamingPullRequest(request_))
        with pytest.raises(exceptions.InvalidArgument):
            list(stream)

    @pytest.mark.parametrize("request_", [{"ack_ids": ["x"]}, {"modify_deadline_ack_ids": ["x"]}])
    def test_a_malformed_first_request_ends_the_stream(self, request_: dict[str, Any], place: Place) -> None:
        with pytest.raises(exceptions.InvalidArgument):
            list(place.stream(**request_)[1])

    def test_the_first_request_may_acknowledge(self, place: Place) -> None:
        place.publish("done")
        received = place.pull()
        requests, stream = place.stream(ack_ids=[one.ack_id for one in received])
        requests.put(None)
        assert not list(stream)
        place.seek(datetime.now(UTC) - timedelta(minutes=5))  # brings back what is leased
        assert place.pull() == []

    def test_a_stream_needs_a_subscription_and_a_deadline(self, place: Place) -> None:
        with pytest.raises(exceptions.NotFound):
            list(place.stream(subscription=place.name("subscriptions"))[1])
        with pytest.raises(exceptions.InvalidArgument):
            list(place.stream(stream_ack_deadline_seconds=9)[1])


class TestSeek:
    def test_back_in_time_replays_what_was_published_since(self, pubsub_server: str, project: str) -> None:
        place = Place(pubsub_server, project, retain_acked_messages=True)
        place.publish("before")
        time.sleep(0.01)  # the official emulator's times have milliseconds
        place.publish("after-1", "after-2")
        received = place.pull()
        place.ack(received)
        assert place.pull() == []
        between = received[0].message.publish_time + timedelta(milliseconds=5)
        place.seek(between)
        assert sorted(texts(place.pull())) == ["after-1", "after-2"]
        place.seek(between - timedelta(minutes=1))
        assert sorted(texts(place.pull())) == ["after-1", "after-2", "before"]

    def test_without_retention_only_what_was_never_acknowledged_comes_again(self, place: Place) -> None:
        place.publish("done", "leased", "waiting")
        received = place.pull(2)
        place.ack(received[:1])
        place.seek(datetime.now(UTC) - timedelta(minutes=1))
        assert sorted(texts(place.pull())) == ["leased", "waiting"]

    def test_to_the_future_acknowledges_all_there_is(self, place: Place) -> None:
        place.publish("leased", "waiting")
        leased = place.pull(1)
        place.seek(datetime.now(UTC) + timedelta(minutes=1))
        place.modify_deadline(leased, 0)
        assert place.pull() == []
        place.publish("new")
        assert texts(place.pull()) == ["new"]


class TestNames:
    def test_topics_and_subscriptions_are_listed_until_they_are_deleted(self, place: Place) -> None:
        other = place.subscribe()

        def listed() -> tuple[bool, set[str], set[str]]:
            topics = {one.name for one in place.publisher.list_topics({"project": place.project, "page_size": 1})}
            subscriptions = {one.name for one in place.subscriber.list_subscriptions(project=place.project)}
            of_topic = set(place.publisher.list_topic_subscriptions(topic=place.topic))
            return place.topic in topics, subscriptions & {place.subscription, other}, of_topic

        assert listed() == (True, {place.subscription, other}, {place.subscription, other})
        place.subscriber.delete_subscription(subscription=other)
        assert listed() == (True, {place.subscription}, {place.subscription})

    def test_a_subscription_outlives_its_topic(self, place: Place) -> None:
        place.publish("kept")
        place.publisher.delete_topic(topic=place.topic)
        assert place.subscriber.get_subscription(subscription=place.subscription).topic == "_deleted-topic_"
        place.publisher.create_topic(name=place.topic)
        place.publish("not for it")
        assert texts(place.pull()) == ["kept"]

    def test_creating_twice_is_refused(self, place: Place) -> None:
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
    def test_what_does_not_exist_is_not_found(self, call: Callable[[Place], Any], place: Place) -> None:
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
    def test_what_makes_no_sense_is_an_invalid_argument(self, call: Callable[[Place], Any], place: Place) -> None:
        with pytest.raises(exceptions.InvalidArgument):
            call(place)
        assert place.pull() == []


@pytest.fixture
def server() -> Iterator[PubsubServer]:
    with PubsubServer() as running:
        yield running


@pytest.fixture
def broken(server: PubsubServer, project: str) -> Place:
    """A place on the server that takes commands."""
    return Place(server.host, project)


class TestOnlyOurs:
    """Where the service is stricter than its emulator, ours is like the service."""

    def test_more_than_ten_megabytes_are_refused(self, broken: Place) -> None:
        broken.publisher.publish(topic=broken.topic, messages=[{"data": b"x" * 9_900_000}])
        with pytest.raises(exceptions.InvalidArgument):
            broken.publisher.publish(topic=broken.topic, messages=[{"data": b"x" * 5_000_000}] * 2)

    def test_large_messages_come_in_more_than_one_pull(self, broken: Place) -> None:
        broken.publisher.publish(topic=broken.topic, messages=[{"data": b"x" * 700_000}] * 5)
        assert [len(broken.pull()) for _ in range(4)] == [2, 2, 1, 0]

    def test_the_subscriptions_of_a_missing_topic_are_not_found(self, broken: Place) -> None:
        with pytest.raises(exceptions.NotFound):
            list(broken.publisher.list_topic_subscriptions(topic=broken.name("topics")))

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
    def test_what_the_documentation_forbids_is_an_invalid_argument(
        self, call: Callable[[Place], Any], broken: Place
    ) -> None:
        with pytest.raises(exceptions.InvalidArgument):
            call(broken)
        assert broken.pull() == []

    def test_a_message_at_every_limit_is_taken(self, broken: Place) -> None:
        attributes = {f"{number:0256}": "v" * 1024 for number in range(100)}
        broken.publisher.publish(topic=broken.topic, messages=[{"data": b"x", "attributes": attributes}])
        assert [dict(one.message.attributes) for one in broken.pull()] == [attributes]

    def test_a_later_request_changes_the_deadline(self, broken: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("local.stack.pubsub_server.requests.ACK_DEADLINES", range(1, 601))
        broken.publish("first", "second")
        requests, stream = broken.stream(max_outstanding_messages=1)
        (first,) = next(stream).received_messages
        requests.put(StreamingPullRequest(ack_ids=[first.ack_id], stream_ack_deadline_seconds=1))
        assert [texts(next(stream).received_messages) for _ in range(2)] == [["second"], ["second"]]
        stream.cancel()

    @pytest.mark.parametrize("limit", ["max_outstanding_messages", "max_outstanding_bytes"])
    def test_limits_of_a_stream_cannot_be_changed(self, limit: str, broken: Place) -> None:
        requests, stream = broken.stream()
        requests.put(StreamingPullRequest({limit: 5}))
        with pytest.raises(exceptions.InvalidArgument):
            list(stream)

    def test_a_page_has_at_most_a_thousand_names(self, broken: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("local.stack.pubsub_server.requests.PAGE", 2)
        names = {broken.subscribe() for _ in range(3)} | {broken.subscription}
        pages = broken.subscriber.list_subscriptions({"project": broken.project, "page_size": 1_000_000}).pages
        listed = [{one.name for one in page.subscriptions} for page in pages]
        assert [len(page) for page in listed] == [2, 2]
        assert set.union(*listed) == names

    def test_a_topic_with_settings_it_cannot_honour_is_unimplemented(self, broken: Place) -> None:
        with pytest.raises(exceptions.MethodNotImplemented):
            broken.publisher.create_topic({"name": broken.name("topics"), "kms_key_name": "k"})

    @pytest.mark.parametrize("settings", [{"filter": "attributes:a"}, {"enable_message_ordering": True}])
    def test_what_it_cannot_do_is_unimplemented(self, settings: dict[str, Any], broken: Place) -> None:
        with pytest.raises(exceptions.MethodNotImplemented):
            broken.subscribe(**settings)
        with pytest.raises(exceptions.MethodNotImplemented):
            broken.subscriber.seek({"subscription": broken.subscription, "snapshot": broken.name("snapshots")})

    def test_no_more_is_streamed_than_the_client_lets_be_outstanding(self, broken: Place) -> None:
        broken.publish(*map(str, range(20)))
        requests, stream = broken.stream(max_outstanding_messages=5)
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

    def test_deleting_a_subscription_ends_its_pulls(self, server: PubsubServer, broken: Place) -> None:
        _, stream = broken.stream()
        broken.publish("the stream is up")
        next(stream)
        with ThreadPoolExecutor() as pool:
            pulled = pool.submit(broken.wait_and_pull)
            broken.subscriber.delete_subscription(subscription=broken.subscription)
            with pytest.raises(exceptions.NotFound):
                pulled.result(TIMEOUT_SECONDS)
        with pytest.raises(exceptions.NotFound):
            next(stream)

    def test_five_hundred_idle_streams_keep_nobody_waiting(self, broken: Place) -> None:
        streams = [broken.stream(max_outstanding_messages=1, timeout=60)[1] for _ in range(500)]
        broken.publish(*map(str, range(500)))
        taken = {text for stream in streams for text in texts(next(stream).received_messages)}
        assert taken == set(map(str, range(500)))  # each has one, and waits
        other = broken.subscribe()
        for number in range(20):
            broken.publisher.publish(
                topic=broken.topic, messages=[{"data": b"%d" % number}], timeout=TIMEOUT_SECONDS, retry=None
            )
            assert texts(broken.pull(subscription=other)) == [str(number)]
        for stream in streams:
            stream.cancel()

    def test_a_call_too_many_is_refused_rather_than_kept_waiting(self, project: str, monkeypatch) -> None:
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

    def test_a_port_in_use_is_refused(self, server: PubsubServer) -> None:
        with pytest.raises(RuntimeError):
            PubsubServer(int(server.host.rpartition(":")[2]))


class TestFaults:
    def test_redeliver_brings_a_chosen_part_of_the_acknowledged_messages_again(self, server, broken) -> None:
        published = broken.publish(*map(str, range(100)))
        broken.ack(broken.pull())
        broken.publish("still there")
        assert server.redeliver(broken.subscription, fraction=0.25, seed=4) == 25
        again = {one.message.message_id for one in broken.pull()}
        assert len(again) == 26
        assert len(again & set(published)) == 25

    def test_redeliver_twice_chooses_the_same_by_the_same_seed(self, server, broken) -> None:
        broken.publish(*map(str, range(100)))
        chosen = []
        for _ in range(2):
            received = broken.pull()
            broken.ack(sorted(received, key=lambda one: int(one.message.data)))
            server.redeliver(broken.subscription, fraction=1)
            broken.ack(sorted(broken.pull(), key=lambda one: int(one.message.data)))
            server.redeliver(broken.subscription, fraction=0.1, seed=4)
            again = broken.pull()
            chosen.append(sorted(texts(again)))
            broken.modify_deadline(again, 0)
            server.redeliver(broken.subscription, fraction=1)
        assert len(chosen[0]) == 10
        assert chosen[0] == chosen[1]

    def test_acknowledged_messages_are_forgotten_after_the_retention(self, project: str) -> None:
        with PubsubServer(retention=0) as server:
            place = Place(server.host, project, retain_acked_messages=True)
            place.publish("gone")
            place.ack(place.pull())
            assert server.redeliver(place.subscription, fraction=1) == 0
            place.seek(datetime.now(UTC) - timedelta(minutes=1))
            assert place.pull() == []

    def test_reorder_shuffles_what_waits_the_same_way_for_the_same_seed(self, server, broken) -> None:
        twin = broken.subscribe()
        published = broken.publish(*map(str, range(50)))
        for subscription in (broken.subscription, twin):
            server.reorder(subscription, seed=7)
        orders = [
            [one.message.message_id for one in broken.pull(subscription=subscription)]
            for subscription in (broken.subscription, twin)
        ]
        assert orders[0] == orders[1] != published
        assert sorted(orders[0]) == sorted(published)

    def test_a_stalled_publish_hangs_and_counts_after_all(self, server, broken) -> None:
        released = server.stall()
        with pytest.raises(exceptions.DeadlineExceeded):
            broken.publisher.publish(topic=broken.topic, messages=[{"data": b"lost?"}], timeout=0.3, retry=None)
        released.set()
        assert texts(broken.wait_and_pull()) == ["lost?"]

    def test_stalled_pulls_take_nothing_for_clients_that_have_gone(self, server, broken) -> None:
        broken.publish("here")
        released = server.stall()
        with pytest.raises(exceptions.DeadlineExceeded):
            broken.subscriber.pull(subscription=broken.subscription, max_messages=1, timeout=0.3, retry=None)
        with pytest.raises(exceptions.DeadlineExceeded):
            list(broken.stream(timeout=0.3)[1])
        released.set()
        assert texts(broken.wait_and_pull()) == ["here"]

    def test_a_stall_ends_by_itself_after_so_many_seconds(self, server, broken) -> None:
        released = server.stall(0.3)
        broken.publish("late")
        assert released.is_set()

    def test_stopping_the_server_ends_a_stall(self, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with PubsubServer() as server, ThreadPoolExecutor() as pool:
            place = Place(server.host, project)
            released, stalled = server.stall(), threading.Event()
            wait = released.wait
            monkeypatch.setattr(released, "wait", lambda: stalled.set() or wait())
            request = {"subscription": place.subscription, "max_messages": 1, "return_immediately": True}
            hanging = pool.submit(place.subscriber.pull, request, retry=None)
            # A server that stops takes no new calls, so this one must have come before.
            assert stalled.wait(TIMEOUT_SECONDS)
            threading.Thread(target=server.__exit__, args=(None, None, None)).start()
            assert not hanging.result(TIMEOUT_SECONDS).received_messages

    def test_refused_calls_fail_as_often_as_commanded_and_change_nothing(self, server, broken) -> None:
        server.refuse("Publish", grpc.StatusCode.PERMISSION_DENIED, times=2)
        for _ in range(2):
            with pytest.raises(exceptions.PermissionDenied):
                broken.publish("refused")
        broken.publish("taken")
        assert texts(broken.pull()) == ["taken"]

    def test_the_official_publisher_gets_over_an_unavailable_server(self, server, broken) -> None:
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE)
        broken.publish("tried twice")
        assert texts(broken.pull()) == ["tried twice"]

    def test_a_refused_stream_fails_and_the_next_one_works(self, server, broken) -> None:
        server.refuse("StreamingPull", grpc.StatusCode.UNAVAILABLE)
        broken.publish("hello")
        with pytest.raises(exceptions.ServiceUnavailable):
            list(broken.stream()[1])
        _, stream = broken.stream()
        assert texts(next(stream).received_messages) == ["hello"]

    def test_a_method_that_is_not_there_cannot_be_refused(self, server) -> None:
        with pytest.raises(ValueError, match="no method Push; there are CreateTopic"):
            server.refuse("Push", grpc.StatusCode.UNAVAILABLE)
