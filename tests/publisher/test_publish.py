import json
import threading
import time
from collections import defaultdict
from contextlib import contextmanager

import grpc
import pytest

from publisher.faults import Faults
from publisher.manifest import Manifest
from publisher.publish import Publishing
from publisher.sensors import Reading, readings
from publisher.service import ServiceError

TOPIC = "projects/sensor-stream-test/topics/some-topic"
PAST_MS = 1_700_000_000_000


def backlog(total, rate=1000.0):
    return readings(["Temp"], devices=1, rate=rate, start_ms=PAST_MS, total=total, seed=1)


def live(rate=200.0):
    now_ms = time.time_ns() // 1_000_000
    return readings(["Temp"], devices=1, rate=rate, start_ms=now_ms, total=None, seed=1)


@contextmanager
def running(run, plan):
    """Run in a thread that must have ended at the end of the block."""
    thread = threading.Thread(target=run.run, args=(plan,), daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def service(service, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
    return service


class WithAnEmptyMessage(Faults):
    """The second message has nothing in it."""

    def messages(self, readings, run_id):
        for number, message in enumerate(super().messages(readings, run_id)):
            yield message._replace(data=b"", attributes={}) if number == 1 else message


class TestPublishing:
    def test_sends_every_reading_once_and_counts_it(self, service):
        run = Publishing(TOPIC)
        run.run(backlog(2500))
        assert (run.accepted, run.published, run.failed) == (2500, 2500, 0)
        assert len({message.attributes["reading_id"] for message in service.published}) == 2500

    def test_sends_a_backlog_in_few_requests(self, service):
        Publishing(TOPIC).run(backlog(5000))
        assert service.calls == 5

    def test_reading_ids_differ_between_runs(self, service):
        for _ in range(2):
            Publishing(TOPIC).run(backlog(10))
        assert len({message.attributes["reading_id"] for message in service.published}) == 20

    def test_summary_is_one_line(self, service):
        run = Publishing(TOPIC)
        run.run(backlog(5))
        run.published, run._seconds = 1200, 60.06
        assert run.summary == "Published 1200 readings in 60.1 s (20.0/s), 0 failed."


class TestPublishingPace:
    def test_sends_each_reading_at_or_soon_after_its_timestamp(self, service):
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

    def test_stop_ends_the_wait_for_a_reading_in_the_future(self, service):
        run = Publishing(TOPIC)
        threading.Timer(0.3, run.stop).start()
        hour_ahead = Reading(0, "device-1", "Temp", time.time_ns() // 1_000_000 + 3_600_000, 1.0)
        run.run([hour_ahead])
        assert (run.accepted, run.seconds < 5) == (0, True)


class TestPublishingErrors:
    def test_retries_a_transient_error(self, service):
        service.rejections = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
        run = Publishing(TOPIC)
        run.run(backlog(10))
        assert (run.published, run.failed, len(service.published)) == (10, 0, 10)

    def test_ends_and_counts_on_a_permanent_error_after_success(self, service, until):
        run = Publishing(TOPIC)
        with running(run, live()):
            until(lambda: run.published)
            service.always = grpc.StatusCode.PERMISSION_DENIED
        assert run.published == len(service.published) > 0
        assert run.failed == run.accepted - run.published > 0
        assert f"{run.failed} failed. Last error: no permission to use {TOPIC}" in run.summary

    def test_raises_with_the_fix_on_a_permanent_error_at_the_start(self, service):
        service.always = grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(ServiceError, match=r"gcloud pubsub topics add-iam-policy-binding some-topic "):
            Publishing(TOPIC).run(backlog(None))

    def test_goes_on_and_counts_after_an_outage_longer_than_the_retries(self, service, until):
        service.always = grpc.StatusCode.UNAVAILABLE
        run = Publishing(TOPIC, retry_seconds=0.5)
        with running(run, live()):
            until(lambda: run.failed)
            service.always = None
            until(lambda: run.published)
            run.stop()
        assert run.published == len(service.published)
        assert run.accepted == run.published + run.failed
        assert "set by the test" in run.summary

    def test_goes_on_when_one_message_is_rejected(self, server):
        # The service rejects a request that contains a message without data and attributes.
        run = Publishing(server.topic)
        run._faults = WithAnEmptyMessage()
        run.run(backlog(3000))
        assert (run.accepted, run.published, run.failed) == (3000, 2999, 1)
        assert f"1 failed. Last error: {server.topic}: Some messages are empty" in run.summary
        assert len(server.pull()) == 2999

    def test_ends_when_every_message_is_rejected(self, service):
        service.always = grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ServiceError, match=f"{TOPIC}: set by the test"):
            Publishing(TOPIC).run(backlog(None))
        # At most ten requests are in flight at a time; each is divided a few times, not down to every message.
        assert service.calls < 1000

    def test_counts_a_response_without_all_ids_as_failed(self, service):
        service.withheld_ids = 1
        run = Publishing(TOPIC)
        run.run(backlog(10))
        assert (run.published, run.failed) == (0, 10)
        assert "the service returned 9 message ids for 10 messages" in run.summary

    def test_counts_responses_in_any_order(self, service, until):
        service.hold_first = True
        run = Publishing(TOPIC)
        with running(run, backlog(3000)):
            until(lambda: run.published == 2000)
            assert (run.accepted, run.failed) == (3000, 0)
            service.release.set()
        assert (run.published, run.failed) == (3000, 0)

    def test_limits_accepted_readings_while_the_service_stalls(self, server, until):
        released = server.stall()
        run = Publishing(server.topic)
        taken = []

        def watched():
            for reading in backlog(30_000):
                taken.append(run.accepted - run.published)
                yield reading

        with running(run, watched()):
            until(lambda: run.accepted == 11_000)
            run.stop()
            released.set()
        # 10,000 outstanding, and a request of 1,000 that waits.
        assert max(taken) == 10_999
        assert run.accepted == run.published == 11_000
        assert len(server.pull()) == 11_000

    def test_sends_held_back_readings_when_stopped_during_a_stall(self, server, until):
        released = server.stall()
        run = Publishing(server.topic, Faults({"late": 0.5}, late_by=3600, seed=1))
        taken = []

        def watched():
            for reading in live():
                yield reading
                taken.append(reading)

        with running(run, watched()):
            until(lambda: len(taken) > 20)
            assert run.accepted < 20
            run.stop()
            until(lambda: run.accepted == len(taken))
            assert (run.published, run.failed) == (0, 0)
            released.set()
        assert run.accepted == run.published == len(server.pull()) == len(taken)

    def test_counts_recorded_readings_when_the_manifest_is_full(self, server, tmp_path):
        class Full(Manifest):
            room = 4

            def record(self, message, message_id, sent):
                if not self.room:
                    raise OSError(28, "No space left on device")
                self.room -= 1

        run = Publishing(server.topic, manifest=Full(tmp_path / "manifest"))
        run.run(backlog(10))
        assert (run.published, run.failed) == (4, 6)
        assert "not written to the manifest: No space left on device" in run.summary


class TestPublishingPacked:
    def test_counts_readings_and_sends_few_messages(self, service):
        run = Publishing(TOPIC, pack=10)
        run.run(backlog(25))
        assert (run.accepted, run.published, run.failed) == (25, 25, 0)
        packed = [json.loads(message.data) for message in service.published]
        assert [len(one) for one in packed] == [10, 10, 5]
        expected = [reading.timestamp for reading in backlog(25)]
        assert [reading["Timestamp"] for one in packed for reading in one] == expected
        assert [message.attributes["timestamp"] for message in service.published] == expected[::10]

    def test_fails_all_readings_of_a_failed_request(self, service):
        service.always = grpc.StatusCode.PERMISSION_DENIED
        run = Publishing(TOPIC, pack=10)
        with pytest.raises(ServiceError):
            run.run(backlog(25))
        assert (run.accepted, run.failed) == (25, 25)

    def test_sends_an_incomplete_pack_at_the_end_of_a_tick(self, service, until):
        run = Publishing(TOPIC, pack=1000)
        with running(run, live(rate=20)):
            # Far fewer than a thousand have happened by then.
            until(lambda: run.published)
            run.stop()
        assert run.published < 1000

    def test_packs_only_good_readings_and_records_each(self, server, tmp_path):
        faults = Faults(dict.fromkeys(("late", "duplicate", "malformed", "out_of_order", "skew"), 0.05), 60, seed=3)
        run = Publishing(server.topic, faults, Manifest(tmp_path / "manifest"), pack=10)
        run.run(backlog(1000))
        lines_of = defaultdict(list)
        for line in map(json.loads, (tmp_path / "manifest").read_text().splitlines()):
            lines_of[line["message_id"]].append(line)
        messages = server.pull()
        assert run.published == sum(map(len, lines_of.values())) > 1000
        assert {message.message_id for message in messages} == set(lines_of)
        assert len(messages) < 500
        for message in messages:
            lines = lines_of[message.message_id]
            assert all(line["attributes"] == dict(message.attributes) for line in lines)
            assert message.attributes["reading_id"] == lines[0]["reading_id"]
            if len(lines) == 1:
                assert lines[0]["data"] in (None, message.data.decode(errors="replace"))
            else:
                assert json.loads(message.data) == [json.loads(line["data"]) for line in lines]
                assert {line["fault"] for line in lines} == {None}
        # A duplicate is the same message again, not a copy of a reading that others came with.
        ids = [lines[0]["reading_id"] for lines in lines_of.values() if len(lines) == 1]
        copies = [lines[0]["reading_id"] for lines in lines_of.values() if lines[0]["fault"] == "duplicate"]
        assert len(copies) > 20
        assert all(ids.count(copy) == 2 for copy in copies)
        assert len({line["reading_id"] for lines in lines_of.values() for line in lines}) == 1000


class TestPublishingOnTheEmulator:
    def test_messages_are_received_as_sent(self, topic, monkeypatch):
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", topic.host)
        Publishing(topic.path).run(backlog(300))
        messages = topic.pull(300)
        assert len(messages) == 300
        for message in messages:
            reading = json.loads(message.data)
            assert reading.keys() == {"Timestamp", "Device", "Temp"}
            assert message.attributes["timestamp"] == reading["Timestamp"]
            assert message.attributes["device"] == reading["Device"] == "device-1"
