import threading
from contextlib import contextmanager

import grpc
import pytest
from google.api_core.exceptions import InvalidArgument, PermissionDenied, RetryError
from google.pubsub_v1 import PublisherClient

from publisher import sending
from publisher.messages import Message
from publisher.sending import IncompleteResponse, Sender

TOPIC = "projects/sensor-stream-test/topics/some-topic"


def message(number, data=b"x"):
    return Message(data, {"reading_id": f"r-{number}"}, 0, None)


def sizes(outcomes):
    return sorted(len(one.messages) for one in outcomes)


def numbers(messages):
    return [int(one.attributes["reading_id"].removeprefix("r-")) for one in messages]


@contextmanager
def sender_to(topic, outcomes, retry_seconds=60):
    with PublisherClient() as client, Sender(client, topic, outcomes.append, retry_seconds) as sender:
        yield sender


def send(topic, messages, retry_seconds=60):
    """Return the outcomes of the messages."""
    outcomes = []
    with sender_to(topic, outcomes, retry_seconds) as sender:
        for one in messages:
            sender.send(one)
        assert sender.finish(60)
        assert sender.outstanding == 0
    return outcomes


@pytest.fixture
def service(service, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
    return service


class TestSenderRequests:
    def test_requests_hold_a_thousand_messages_and_return_an_id_for_each(self, server):
        outcomes = send(server.topic, map(message, range(2500)))
        assert sizes(outcomes) == [500, 1000, 1000]
        ids = {
            message_id: one.attributes
            for part in outcomes
            for one, message_id in zip(part.messages, part.ids, strict=True)
        }
        assert ids == {one.message_id: dict(one.attributes) for one in server.pull()}
        assert len(ids) == 2500

    def test_requests_hold_at_most_a_megabyte(self, server):
        outcomes = send(server.topic, [message(number, b"x" * 300_000) for number in range(7)])
        assert sizes(outcomes) == [1, 3, 3]

    def test_requests_are_sent_by_flush_and_not_before(self, server, until):
        outcomes = []
        with sender_to(server.topic, outcomes) as sender:
            sender.send(message(1))
            assert sender.outstanding == 0
            sender.flush()
            until(lambda: outcomes)
        assert numbers(outcomes[0].messages) == [1]

    def test_requests_are_joined_while_the_service_stalls(self, server):
        released = server.stall()
        outcomes = []
        with sender_to(server.topic, outcomes) as sender:
            for number in range(100):
                sender.send(message(number))
                sender.flush()
            released.set()
            assert sender.finish(60)
        assert sorted(number for part in outcomes for number in numbers(part.messages)) == list(range(100))
        assert len(outcomes) <= 2 * sending.REQUESTS + 1

    def test_requests_have_times_in_the_order_of_sending(self, server):
        outcomes = send(server.topic, map(message, range(20_000)))
        in_order = sorted(outcomes, key=lambda part: numbers(part.messages))
        stamps = [part.sent for part in in_order]
        assert stamps == sorted(stamps)


class TestSenderOutstanding:
    def peaks(self, server, until, messages, sent_before_it_waits):
        """Return the most messages outstanding while the service stalls, and in all."""
        released = server.stall()
        outcomes, seen = [], []

        def produce():
            for one in messages:
                sender.send(one)
                seen.append(sender.outstanding)

        with sender_to(server.topic, outcomes) as sender:
            producer = threading.Thread(target=produce, daemon=True)
            producer.start()
            until(lambda: len(seen) >= sent_before_it_waits)
            stalled = max(seen)
            released.set()
            producer.join(60)
            assert sender.finish(60)
        assert sum(sizes(outcomes)) == len(seen) == len(messages)
        return stalled, max(seen)

    def test_messages_are_limited(self, server, until):
        messages = [message(number) for number in range(25_000)]
        # The thousandth message of the request that has no room is being sent.
        assert self.peaks(server, until, messages, 10_999) == (10_000, 10_000)

    def test_bytes_are_limited(self, server, until):
        messages = [message(number, b"x" * 499_000) for number in range(50)]
        # Two to a request of 998,800 bytes.
        assert self.peaks(server, until, messages, 22) == (20, 20)

    def test_message_above_the_limit_is_sent_alone(self, server, monkeypatch):
        monkeypatch.setattr(sending, "OUTSTANDING_BYTES", 5000)
        outcomes = send(server.topic, [message(0), message(1, b"x" * 9000), message(2)])
        assert sorted(numbers(server.pull())) == [0, 1, 2]
        assert sum(sizes(outcomes)) == 3


class TestSenderFailures:
    def test_sender_retries_transient_errors(self, server):
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE, times=2)
        (outcomes,) = send(server.topic, map(message, range(10)))
        assert (len(outcomes.ids), outcomes.error) == (10, None)
        assert numbers(server.pull()) == list(range(10))

    def test_sender_fails_all_messages_of_a_request_when_retries_end(self, service):
        service.always = grpc.StatusCode.UNAVAILABLE
        (outcomes,) = send(TOPIC, map(message, range(10)), retry_seconds=0.2)
        assert (numbers(outcomes.messages), outcomes.ids) == (list(range(10)), [])
        assert isinstance(outcomes.error, RetryError)

    def test_sender_sends_other_requests_after_a_permanent_error(self, server):
        server.refuse("Publish", grpc.StatusCode.PERMISSION_DENIED)
        outcomes = send(server.topic, map(message, range(3000)))
        (failed,) = [part for part in outcomes if part.error]
        assert isinstance(failed.error, PermissionDenied)
        assert len(failed.messages) == 1000
        expected = set(range(3000)) - set(numbers(failed.messages))
        assert set(numbers(server.pull())) == expected

    def test_sender_rejects_only_a_too_large_message(self, server):
        messages = [message(number, b"x" * (11_000_000 if number == 5 else 10)) for number in range(10)]
        outcomes = send(server.topic, messages)
        (failed,) = [part for part in outcomes if part.error]
        assert (numbers(failed.messages), type(failed.error)) == ([5], InvalidArgument)
        assert sorted(numbers(server.pull())) == [0, 1, 2, 3, 4, 6, 7, 8, 9]

    @pytest.mark.parametrize("bad", [{0}, {999}, {500, 501}, {1, 250, 777}])
    def test_sender_rejects_only_bad_messages_of_a_request(self, bad, server):
        # The service refuses a request in which a message has neither data nor attributes.
        messages = [Message(b"", {}, number, None) if number in bad else message(number) for number in range(1000)]
        outcomes = send(server.topic, messages)
        refused = [part for part in outcomes if part.error]
        assert {one.due_ms for part in refused for one in part.messages} == bad
        assert {len(part.messages) for part in refused} == {1}
        assert set(numbers(server.pull())) == set(range(1000)) - bad
        assert sum(sizes(outcomes)) == 1000

    def test_sender_needs_few_requests_when_every_message_is_rejected(self, service):
        service.always = grpc.StatusCode.INVALID_ARGUMENT
        outcomes = send(TOPIC, map(message, range(1000)))
        assert sum(sizes(outcomes)) == 1000
        assert all(isinstance(part.error, InvalidArgument) for part in outcomes)
        assert service.calls < 100

    def test_sender_fails_a_request_without_all_ids(self, service):
        service.withheld_ids = 1
        (outcomes,) = send(TOPIC, map(message, range(10)))
        assert (len(outcomes.messages), outcomes.ids) == (10, [])
        assert isinstance(outcomes.error, IncompleteResponse)
        assert service.calls == 1

    def test_sender_counts_messages_once_after_a_lost_response(self, service, until, monkeypatch):
        monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 0.2)
        service.hold_first = True
        outcomes = []
        with sender_to(TOPIC, outcomes) as sender:
            sender.send(message(1))
            assert sender.finish(60)
            service.release.set()
            until(lambda: len(service.published) == 2)
        assert (numbers(service.published), sizes(outcomes)) == ([1, 1], [1])

    def test_sender_does_not_delay_other_requests(self, service, until):
        service.hold_first = True
        outcomes = []
        with sender_to(TOPIC, outcomes) as sender:
            for number in range(3000):
                sender.send(message(number))
            until(lambda: len(outcomes) == 2)
            assert sender.outstanding == 1000
            service.release.set()
            assert sender.finish(60)
        assert sorted(number for part in outcomes for number in numbers(part.messages)) == list(range(3000))


class TestSenderExit:
    def test_does_not_wait_and_reports_no_further_outcome(self, service):
        service.hold = True
        outcomes = []
        with sender_to(TOPIC, outcomes) as sender:
            sender.send(message(1))
            assert not sender.finish(0)
            assert sender.outstanding == 1
        assert outcomes == []
