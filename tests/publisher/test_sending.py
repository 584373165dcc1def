import threading
from contextlib import contextmanager

import grpc
import pytest
from google.api_core.exceptions import InvalidArgument, PermissionDenied, RetryError
from google.pubsub_v1 import PublisherClient

from publisher import sending
from publisher.messages import Message
from publisher.sending import Sender, WrongAnswer

TOPIC = "projects/sensor-stream-test/topics/some-topic"


def message(number, data=b"x"):
    return Message(data, {"reading_id": f"r-{number}"}, 0, None)


def sizes(settled):
    return sorted(len(one.messages) for one in settled)


def numbers(messages):
    return [int(one.attributes["reading_id"].removeprefix("r-")) for one in messages]


@contextmanager
def sender_to(topic, settled, retry_seconds=60):
    with PublisherClient() as client, Sender(client, topic, settled.append, retry_seconds) as sender:
        yield sender


def send(topic, messages, retry_seconds=60):
    """What became of the messages."""
    settled = []
    with sender_to(topic, settled, retry_seconds) as sender:
        for one in messages:
            sender.send(one)
        assert sender.finish(60)
        assert sender.outstanding == 0
    return settled


@pytest.fixture
def service(service, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
    return service


class TestRequests:
    def test_hold_a_thousand_messages_and_each_gets_its_own_id(self, server):
        settled = send(server.topic, map(message, range(2500)))
        assert sizes(settled) == [500, 1000, 1000]
        told = {
            message_id: one.attributes
            for part in settled
            for one, message_id in zip(part.messages, part.ids, strict=True)
        }
        assert told == {one.message_id: dict(one.attributes) for one in server.pull()}
        assert len(told) == 2500

    def test_hold_a_megabyte_at_most(self, server):
        settled = send(server.topic, [message(number, b"x" * 300_000) for number in range(7)])
        assert sizes(settled) == [1, 3, 3]

    def test_leave_when_told_to_and_not_before(self, server, until):
        settled = []
        with sender_to(server.topic, settled) as sender:
            sender.send(message(1))
            assert sender.outstanding == 0
            sender.flush()
            until(lambda: settled)
        assert numbers(settled[0].messages) == [1]

    def test_that_wait_for_a_stalled_service_are_joined(self, server):
        released = server.stall()
        settled = []
        with sender_to(server.topic, settled) as sender:
            for number in range(100):
                sender.send(message(number))
                sender.flush()
            released.set()
            assert sender.finish(60)
        assert sorted(number for part in settled for number in numbers(part.messages)) == list(range(100))
        assert len(settled) <= 2 * sending.REQUESTS + 1

    def test_that_are_made_later_are_never_stamped_earlier(self, server):
        settled = send(server.topic, map(message, range(20_000)))
        in_order = sorted(settled, key=lambda part: numbers(part.messages))
        stamps = [part.sent for part in in_order]
        assert stamps == sorted(stamps)


class TestOutstanding:
    def peaks(self, server, until, messages, sent_before_it_waits):
        """The most messages seen under way, while the service stalls and when it goes on."""
        released = server.stall()
        settled, seen = [], []

        def produce():
            for one in messages:
                sender.send(one)
                seen.append(sender.outstanding)

        with sender_to(server.topic, settled) as sender:
            producer = threading.Thread(target=produce, daemon=True)
            producer.start()
            until(lambda: len(seen) >= sent_before_it_waits)
            stalled = max(seen)
            released.set()
            producer.join(60)
            assert sender.finish(60)
        assert sum(sizes(settled)) == len(seen) == len(messages)
        return stalled, max(seen)

    def test_messages_are_bounded(self, server, until):
        messages = [message(number) for number in range(25_000)]
        # The thousandth message of the request that has no room is being sent.
        assert self.peaks(server, until, messages, 10_999) == (10_000, 10_000)

    def test_bytes_are_bounded(self, server, until):
        messages = [message(number, b"x" * 499_000) for number in range(50)]
        # Two to a request of 998,800 bytes.
        assert self.peaks(server, until, messages, 22) == (20, 20)

    def test_a_message_heavier_than_all_that_may_be_outstanding_gets_its_turn(self, server, monkeypatch):
        monkeypatch.setattr(sending, "OUTSTANDING_BYTES", 5000)
        settled = send(server.topic, [message(0), message(1, b"x" * 9000), message(2)])
        assert sorted(numbers(server.pull())) == [0, 1, 2]
        assert sum(sizes(settled)) == 3


class TestFailures:
    def test_that_may_pass_are_tried_again(self, server):
        server.refuse("Publish", grpc.StatusCode.UNAVAILABLE, times=2)
        (settled,) = send(server.topic, map(message, range(10)))
        assert (len(settled.ids), settled.error) == (10, None)
        assert numbers(server.pull()) == list(range(10))

    def test_that_do_not_pass_in_time_end_with_all_messages_of_the_request(self, service):
        service.always = grpc.StatusCode.UNAVAILABLE
        (settled,) = send(TOPIC, map(message, range(10)), retry_seconds=0.2)
        assert (numbers(settled.messages), settled.ids) == (list(range(10)), [])
        assert isinstance(settled.error, RetryError)

    def test_of_one_request_leave_the_others_alone(self, server):
        server.refuse("Publish", grpc.StatusCode.PERMISSION_DENIED)
        settled = send(server.topic, map(message, range(3000)))
        (failed,) = [part for part in settled if part.error]
        assert isinstance(failed.error, PermissionDenied)
        assert len(failed.messages) == 1000
        expected = set(range(3000)) - set(numbers(failed.messages))
        assert set(numbers(server.pull())) == expected

    def test_of_a_message_too_large_for_the_service_leave_its_neighbours_alone(self, server):
        messages = [message(number, b"x" * (11_000_000 if number == 5 else 10)) for number in range(10)]
        settled = send(server.topic, messages)
        (failed,) = [part for part in settled if part.error]
        assert (numbers(failed.messages), type(failed.error)) == ([5], InvalidArgument)
        assert sorted(numbers(server.pull())) == [0, 1, 2, 3, 4, 6, 7, 8, 9]

    @pytest.mark.parametrize("bad", [{0}, {999}, {500, 501}, {1, 250, 777}])
    def test_of_bad_messages_leave_good_ones_in_the_same_request_alone(self, bad, server):
        # The service refuses a request in which a message has neither data nor attributes.
        messages = [Message(b"", {}, number, None) if number in bad else message(number) for number in range(1000)]
        settled = send(server.topic, messages)
        refused = [part for part in settled if part.error]
        assert {one.due_ms for part in refused for one in part.messages} == bad
        assert {len(part.messages) for part in refused} == {1}
        assert set(numbers(server.pull())) == set(range(1000)) - bad
        assert sum(sizes(settled)) == 1000

    def test_of_every_message_are_found_out_with_few_requests(self, service):
        service.always = grpc.StatusCode.INVALID_ARGUMENT
        settled = send(TOPIC, map(message, range(1000)))
        assert sum(sizes(settled)) == 1000
        assert all(isinstance(part.error, InvalidArgument) for part in settled)
        assert service.calls < 100

    def test_to_tell_every_id_are_failures(self, service):
        service.withheld_ids = 1
        (settled,) = send(TOPIC, map(message, range(10)))
        assert (len(settled.messages), settled.ids) == (10, [])
        assert isinstance(settled.error, WrongAnswer)
        assert service.calls == 1

    def test_after_an_answer_that_was_lost_send_messages_twice_and_count_them_once(self, service, until, monkeypatch):
        monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 0.2)
        service.hold_first = True
        settled = []
        with sender_to(TOPIC, settled) as sender:
            sender.send(message(1))
            assert sender.finish(60)
            service.release.set()
            until(lambda: len(service.published) == 2)
        assert (numbers(service.published), sizes(settled)) == ([1, 1], [1])

    def test_do_not_hold_up_other_requests(self, service, until):
        service.hold_first = True
        settled = []
        with sender_to(TOPIC, settled) as sender:
            for number in range(3000):
                sender.send(message(number))
            until(lambda: len(settled) == 2)
            assert sender.outstanding == 1000
            service.release.set()
            assert sender.finish(60)
        assert sorted(number for part in settled for number in numbers(part.messages)) == list(range(3000))


class TestTheEndOfTheBlock:
    def test_waits_for_nothing_and_tells_nothing_more(self, service):
        service.hold = True
        settled = []
        with sender_to(TOPIC, settled) as sender:
            sender.send(message(1))
            assert not sender.finish(0)
            assert sender.outstanding == 1
        assert settled == []
