import signal
from datetime import UTC, datetime

import grpc
import pytest
from google.cloud.pubsub_v1.subscriber.message import Message
from google.pubsub_v1 import types

from local.stack import emulators
from publisher.listen import describe

SUBSCRIPTION = "projects/sensor-stream-test/subscriptions/some-subscription"
PUBLISHED = datetime(2026, 11, 22, 13, 0, 1, 250_000, tzinfo=UTC)


def messages(count):
    return [
        types.PubsubMessage(
            data=b'{"Temp": %d}' % number,
            attributes={"n": str(number)},
            message_id=f"m{number}",
            publish_time=PUBLISHED,
        )
        for number in range(count)
    ]


class TestListen:
    def test_prints_and_acknowledges_until_the_timeout(self, service, start):
        service.outbox = messages(5)
        process = start("listen", "--subscription", SUBSCRIPTION, "--timeout", "1", PUBSUB_EMULATOR_HOST=service.host)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        # Not ordered: the client hands messages over on several threads.
        assert sorted(out.splitlines()) == [
            f'2026-11-22T13:00:01.250Z {{"n": "{n}"}} {{"Temp": {n}}}' for n in range(5)
        ]
        assert sorted(service.acknowledged) == ["m0", "m1", "m2", "m3", "m4"]
        assert err.splitlines()[-1] == "Received 5 messages."

    def test_acknowledges_no_more_than_it_prints(self, service, start):
        service.outbox = messages(5)
        process = start("listen", "--subscription", SUBSCRIPTION, "--messages", "3", PUBSUB_EMULATOR_HOST=service.host)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, len(out.splitlines()), len(service.acknowledged)) == (0, 3, 3)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_without_traceback_on_a_signal(self, service, start, number):
        service.outbox = messages(1)
        process = start("listen", "--subscription", SUBSCRIPTION, PUBSUB_EMULATOR_HOST=service.host)
        assert process.stdout.readline().endswith('{"Temp": 0}\n')
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err.splitlines()[-1]) == (0, "Received 1 messages.")
        assert "Traceback" not in err

    def test_names_the_fix_without_permission(self, service, start):
        service.stream_status = grpc.StatusCode.PERMISSION_DENIED
        process = start("listen", "--subscription", SUBSCRIPTION, PUBSUB_EMULATOR_HOST=service.host)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "--role=roles/pubsub.subscriber" in err.splitlines()[-1]

    def test_receives_from_the_emulator(self, topic, start):
        listener = start(
            "listen", "--subscription", topic.subscription, "--messages", "4", PUBSUB_EMULATOR_HOST=topic.host
        )
        publisher = start("publish", "--topic", topic.path, "--messages", "4", PUBSUB_EMULATOR_HOST=topic.host)
        assert publisher.wait(20) == 0
        out, _ = listener.communicate(timeout=20)
        assert listener.returncode == 0
        assert {sensor for sensor in ("Airtight", "AtmP", "H2OC", "Temp") if f'"{sensor}": ' in out} == {
            "Airtight",
            "AtmP",
            "H2OC",
            "Temp",
        }

    def test_prints_a_message_of_nine_megabytes(self, server, start):
        with emulators.publisher_client(server.server.host) as publisher:
            publisher.publish(topic=server.topic, messages=[{"data": b"x" * 9_000_000}])
        process = start(
            *("listen", "--subscription", server.subscription, "--messages", "1", "--timeout", "10"),
            PUBSUB_EMULATOR_HOST=server.server.host,
        )
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out.endswith("x" * 9_000_000 + "\n")

    def test_names_the_fix_when_the_subscription_is_missing(self, pubsub_server, start):
        process = start("listen", "--subscription", SUBSCRIPTION, PUBSUB_EMULATOR_HOST=pubsub_server)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert f"{SUBSCRIPTION} was not found" in err
        assert "create it with: " in err


class TestDescribe:
    @pytest.mark.parametrize(
        ("data", "shown"),
        [
            ('{"Ort": "Köln"}'.encode(), '{"Ort": "Köln"}'),
            (b"two\nlines \x1b[31m", r"two\nlines \x1b[31m"),
            (b"\xff\x00", r"\\xff\x00"),
        ],
    )
    def test_returns_one_printable_line(self, data, shown):
        message = Message(
            types.PubsubMessage.pb(types.PubsubMessage(data=data, publish_time=PUBLISHED)), "ack", 0, None
        )
        assert describe(message) == f"2026-11-22T13:00:01.250Z {{}} {shown}"
