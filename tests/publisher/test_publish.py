import json
import threading
import time

import grpc
import pytest

from publisher.messages import encode
from publisher.publish import Publishing
from publisher.sensors import Reading, readings
from publisher.service import ServiceError

TOPIC = "projects/sensor-stream-test/topics/some-topic"
PAST_MS = 1_700_000_000_000


def backlog(total, rate=1000.0):
    return readings(["Temp"], devices=1, rate=rate, start_ms=PAST_MS, total=total, seed=1)


@pytest.fixture
def service(service, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
    return service


class TestEncode:
    def test_message_as_the_contract_has_it(self):
        message = encode(Reading(7, "device-2", "Temp", 1_795_352_401_250, 21.4), "abc")
        assert message.data == b'{"Timestamp": "2026-11-22T13:00:01.250Z", "Device": "device-2", "Temp": 21.4}'
        assert message.attributes == {
            "timestamp": "2026-11-22T13:00:01.250Z",
            "reading_id": "abc-7",
            "device": "device-2",
        }


class TestPublishingToAServiceThatWorks:
    def test_sends_every_reading_once_and_counts_it(self, service):
        run = Publishing(TOPIC)
        run.run(backlog(2500))
        assert (run.accepted, run.published, run.failed) == (2500, 2500, 0)
        assert len({message.attributes["reading_id"] for message in service.published}) == 2500

    def test_packs_a_backlog_into_few_requests(self, service):
        Publishing(TOPIC).run(backlog(5000))
        assert service.calls <= 50

    def test_two_runs_share_no_reading_id(self, service):
        for _ in range(2):
            Publishing(TOPIC).run(backlog(10))
        assert len({message.attributes["reading_id"] for message in service.published}) == 20

    def test_summary(self, service):
        run = Publishing(TOPIC)
        run.run(backlog(5))
        run.published, run._seconds = 1200, 60.06
        assert run.summary == "Published 1200 readings in 60.1 s (20.0/s), 0 failed."


class TestPublishingInStepWithTheClock:
    def test_no_reading_leaves_before_its_timestamp_and_all_leave_soon_after(self, service):
        start_ms = time.time_ns() // 1_000_000
        sent_ms = []

        def watched():
            for reading in readings(["Temp"], devices=1, rate=20, start_ms=start_ms, total=20, seed=1):
                yield reading
                sent_ms.append(time.time() * 1000 - reading.time_ms)

        Publishing(TOPIC).run(watched())
        assert len(sent_ms) == 20
        assert min(sent_ms) >= -1
        # The first ones wait for the connection; the last must be back on the schedule.
        assert sent_ms[-1] < 500

    def test_stop_ends_the_wait_for_a_reading_far_ahead(self, service):
        run = Publishing(TOPIC)
        threading.Timer(0.3, run.stop).start()
        hour_ahead = Reading(0, "device-1", "Temp", time.time_ns() // 1_000_000 + 3_600_000, 1.0)
        run.run([hour_ahead])
        assert (run.accepted, run.seconds < 5) == (0, True)


class TestPublishingToAServiceThatFails:
    def test_a_passing_error_is_tried_again(self, service):
        service.refusals = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
        run = Publishing(TOPIC)
        run.run(backlog(10))
        assert (run.published, run.failed, len(service.published)) == (10, 0, 10)

    def test_an_error_for_good_after_success_ends_the_run_and_is_counted(self, service):
        run = Publishing(TOPIC)

        def endless():
            yield from backlog(3)
            while not run.published:
                time.sleep(0.01)
            service.always = grpc.StatusCode.PERMISSION_DENIED
            yield from readings(["Temp"], devices=1, rate=1000, start_ms=PAST_MS, total=None, seed=1)

        run.run(endless())
        assert run.published == 3
        assert run.failed == run.accepted - 3 > 0
        assert f"{run.failed} failed. Last error: no permission to use {TOPIC}" in run.summary

    def test_an_error_for_good_at_once_says_what_to_do(self, service):
        service.always = grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(ServiceError, match=r"gcloud pubsub topics add-iam-policy-binding some-topic "):
            Publishing(TOPIC).run(backlog(None))

    def test_an_outage_longer_than_the_retries_is_counted_and_the_run_goes_on(self, service):
        service.always = grpc.StatusCode.UNAVAILABLE
        run = Publishing(TOPIC, retry_seconds=0.5)

        def outage():
            yield from backlog(3)
            while run.failed < 3:
                time.sleep(0.01)
            service.always = None
            yield from backlog(4)

        run.run(outage())
        assert (run.accepted, run.published, run.failed) == (7, 4, 3)
        assert "Timeout of 0.5s exceeded" in run.summary

    def test_a_slow_service_bounds_what_is_accepted(self, service):
        service.hold = True
        run = Publishing(TOPIC)
        runner = threading.Thread(target=run.run, args=(backlog(30_000),))
        runner.start()
        # The 10,001st reading is waiting for room; two equal looks 0.2 s apart show that nothing moves.
        seen = -1
        while seen != run.accepted or not run.accepted:
            seen = run.accepted
            time.sleep(0.2)
        assert seen == 10_001
        run.stop()
        service.release.set()
        runner.join(30)
        assert run.accepted == run.published == len(service.published)


class TestPublishingToTheEmulator:
    def test_messages_arrive_as_sent(self, topic, monkeypatch):
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", topic.host)
        Publishing(topic.path).run(backlog(300))
        messages = topic.pull(300)
        assert len(messages) == 300
        for message in messages:
            reading = json.loads(message.data)
            assert reading.keys() == {"Timestamp", "Device", "Temp"}
            assert message.attributes["timestamp"] == reading["Timestamp"]
            assert message.attributes["device"] == reading["Device"] == "device-1"
