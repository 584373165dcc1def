"""The pipeline as a process, from messages to rows; the expected rows are computed without its code."""

import json
import math
import random
import time
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from local.stack.processes import wait_for
from tests.e2e.conftest import TIMEOUT_SECONDS, Stack

SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reading(seconds: float, sensor: str, value: float, device: str) -> tuple[bytes, dict[str, str]]:
    data = {"Timestamp": stamp(seconds), "Device": device, sensor: value}
    return json.dumps(data).encode(), {"timestamp": stamp(seconds)}


def backlog(count: int, start: float, spacing: float, devices: tuple[str, ...]) -> list[tuple]:
    """Return (seconds, sensor, value, device), device after device, with seconds exact to 1 ms."""
    rng = random.Random(11)
    return [
        (round(start + n * spacing, 3), rng.choice(SENSORS), rng.uniform(-50, 1100), device)
        for device in devices
        for n in range(count // len(devices))
    ]


def expected_rows(readings: list[tuple], interval: int) -> dict[datetime, dict]:
    groups: dict = defaultdict(lambda: defaultdict(list))
    for seconds, sensor, value, _ in readings:
        groups[seconds // interval * interval][sensor].append(value)
    return {
        datetime.fromtimestamp(start, UTC): {
            sensor: pytest.approx(math.fsum(by_sensor[sensor]) / len(by_sensor[sensor]), rel=1e-9)
            if sensor in by_sensor
            else None
            for sensor in SENSORS
        }
        for start, by_sensor in groups.items()
    }


def by_timestamp(rows: list[dict]) -> dict[datetime, dict]:
    found = {row["Timestamp"]: {sensor: row[sensor] for sensor in SENSORS} for row in rows}
    assert len(found) == len(rows), "an interval has two rows"
    return found


class TestBacklog:
    # Ten minutes ago or more, so that nothing is near the present.
    START = math.floor(time.time() / 60) * 60 - 1500

    @pytest.mark.parametrize("attribute", ["timestamp", ""])
    def test_backlog_of_ten_minutes_device_after_device_is_complete_and_exact(self, stack: Stack, attribute: str):
        readings = backlog(20_000, self.START, 0.06, ("north", "south"))
        stack.publish([reading(*each) for each in readings])
        expected = expected_rows(readings, 15)
        assert len(expected) == 40
        flags = [f"--input_subscription={stack.subscription}", f"--timestamp_attribute={attribute}", stack.table_flag]
        with stack.start(*flags) as pipeline:
            rows = stack.wait_for_rows(pipeline, 40)
        assert by_timestamp(rows) == expected
        assert stack.rows("readings_dead_letters") == []

    def test_backlog_with_a_message_of_nine_megabytes_is_complete(self, stack: Stack):
        small = [reading(self.START + second, "Temp", 1.0, "a") for second in (0, 2)]
        large = json.dumps({"Timestamp": stamp(self.START + 1), "Temp": 4.0, "note": "x" * 9_000_000}).encode()
        stack.publish(small[:1])
        stack.publish([(large, {"timestamp": stamp(self.START + 1)})])
        stack.publish(small[1:])
        flags = [f"--input_subscription={stack.subscription}", "--timestamp_attribute=timestamp", stack.table_flag]
        with stack.start(*flags) as pipeline:
            (row,) = stack.wait_for_rows(pipeline, 1)
        assert row["Temp"] == 2.0
        assert stack.rows("readings_dead_letters") == []

    def test_backlog_of_bursts_becomes_sessions_by_device(self, stack: Stack):
        bursts = {"a": [(0, 20), (50, 70)], "b": [(10, 65)]}
        readings = [
            (self.START + second, "Temp", float(second), device)
            for device, spans in bursts.items()
            for first, last in spans
            for second in range(first, last + 1)
        ]
        random.Random(3).shuffle(readings)
        stack.publish([reading(*each) for each in readings])
        flags = ["--window=session", "--session_gap=20s", "--group_by_device=true", "--timestamp_attribute=timestamp"]
        with stack.start(f"--input_subscription={stack.subscription}", *flags, stack.table_flag) as pipeline:
            rows = stack.wait_for_rows(pipeline, 3)
        found = {(row["Device"], row["Timestamp"].timestamp() - self.START): row["Temp"] for row in rows}
        # A burst's mean is the middle of its span; its end is the last reading and the gap.
        assert found == {("a", 40.0): 10.0, ("a", 90.0): 60.0, ("b", 85.0): 37.5}
        assert len(rows) == 3

    def test_backlog_has_a_dead_letter_for_each_unreadable_message(self, stack: Stack):
        good = backlog(100, self.START, 0.1, ("north",))
        bad = [b"\xff\xfe", b"[]", b'{"Temp": 1}', b'{"Timestamp": "noon", "Temp": 1}']
        stack.publish([(data, {}) for data in bad] + [reading(*each) for each in good])
        flags = [f"--input_subscription={stack.subscription}", "--timestamp_attribute=timestamp", stack.table_flag]
        with stack.start(*flags) as pipeline:
            dead_letters = stack.wait_for_rows(pipeline, 4, "readings_dead_letters")
            rows = stack.wait_for_rows(pipeline, len(expected_rows(good, 15)))
        assert by_timestamp(rows) == expected_rows(good, 15)
        assert {dead_letter["payload"]: dead_letter["stage"] for dead_letter in dead_letters} == {
            bad[0]: "decode",
            bad[1]: "decode",
            bad[2]: "timestamp",
            bad[3]: "timestamp",
        }
        assert len(dead_letters) == 4

    def test_backlog_with_duplicates_counts_each_reading_once(self, stack: Stack):
        readings = backlog(500, self.START, 0.1, ("north",))
        messages = [
            (data, {**attributes, "reading_id": f"r{n}"})
            for n, (data, attributes) in enumerate(reading(*each) for each in readings)
        ]
        stack.publish(messages + messages[::2] + messages[::3])
        flags = [f"--input_subscription={stack.subscription}", "--timestamp_attribute=timestamp", stack.table_flag]
        expected = expected_rows(readings, 15)
        with stack.start(*flags, "--id_attribute=reading_id") as pipeline:
            rows = stack.wait_for_rows(pipeline, len(expected))
        assert by_timestamp(rows) == expected
        assert stack.rows("readings_dead_letters") == []


class TestLate:
    FLAGS = ("--timestamp_attribute=timestamp", "--interval=1s", "--grace_period=1s")

    def late_reading(self, stack: Stack, *flags: str) -> None:
        """Publish two readings, wait for their row, publish a third of the same second."""
        second = math.floor(time.time())
        stack.publish([reading(second, "Temp", 1.0, "north"), reading(second + 0.5, "Temp", 3.0, "north")])
        with stack.start(
            f"--input_subscription={stack.subscription}", *self.FLAGS, stack.table_flag, *flags
        ) as pipeline:
            stack.wait_for_rows(pipeline, 1)
            stack.publish([reading(second + 0.9, "Temp", 8.0, "north")])
            if "--on_late=revise" in flags:
                stack.wait_for_rows(pipeline, 2)
            else:
                stack.wait_for_rows(pipeline, 1, "readings_dead_letters")

    def test_late_reading_becomes_a_dead_letter_and_the_row_is_final(self, stack: Stack):
        self.late_reading(stack)
        assert [row["Temp"] for row in stack.rows()] == [2.0]
        (dead_letter,) = stack.rows("readings_dead_letters")
        assert (dead_letter["stage"], dead_letter["device"]) == ("late", None)
        assert json.loads(dead_letter["payload"])["readings"] == {"Temp": {"sum": 8.0, "count": 1}}

    def test_late_reading_revises_the_row_and_the_view_shows_the_newest(self, stack: Stack):
        self.late_reading(stack, "--on_late=revise")
        assert sorted((row["Revision"], row["Temp"]) for row in stack.rows()) == [(0, 2.0), (1, 4.0)]
        latest = stack.bq.query_and_wait(f"SELECT Temp FROM {stack.dataset}.readings_latest")
        assert [row["Temp"] for row in latest] == [4.0]
        assert stack.rows("readings_dead_letters") == []


class TestLive:
    def test_topic_is_complete_with_readings_out_of_order_within_the_grace(self, stack: Stack):
        flags = [
            f"--input_topic={stack.topic}",
            "--timestamp_attribute=timestamp",
            "--interval=2s",
            "--grace_period=5s",
        ]
        with stack.start(*flags, stack.table_flag) as pipeline:
            # The stack's subscription, and the one that the pipeline creates.
            wait_for(pipeline, lambda: stack.topic_has_subscribers(2), TIMEOUT_SECONDS)
            now = round(time.time(), 3)
            readings = [(round(now - n * 0.01, 3), SENSORS[n % 4], float(n), "north") for n in range(300)]
            random.Random(5).shuffle(readings)
            stack.publish([reading(*each) for each in readings])
            expected = expected_rows(readings, 2)
            rows = stack.wait_for_rows(pipeline, len(expected))
        assert by_timestamp(rows) == expected
        assert stack.rows("readings_dead_letters") == []


class TestDeadLetterTopic:
    def test_dead_letter_topic_receives_each_dead_letter_with_its_payload(self, stack: Stack):
        topic, subscription = f"{stack.topic}-dead", f"{stack.subscription}-dead"
        stack.publisher.create_topic(name=topic)
        stack.subscriber.create_subscription(name=subscription, topic=topic)
        stack.publish([(b"\xff\x00", {})])
        flags = [f"--input_subscription={stack.subscription}", stack.table_flag, f"--dead_letter_topic={topic}"]
        with stack.start(*flags) as pipeline:
            (row,) = stack.wait_for_rows(pipeline, 1, "readings_dead_letters")
            pulled: list = []

            def arrived() -> bool:
                pulled.extend(stack.subscriber.pull(subscription=subscription, max_messages=9).received_messages)
                return bool(pulled)

            wait_for(pipeline, arrived, TIMEOUT_SECONDS)
        (message,) = [received.message for received in pulled]
        assert message.data == row["payload"] == b"\xff\x00"
        assert (message.attributes["error"], message.attributes["stage"]) == ("NotJson", "decode")
        assert message.attributes["dead_letter_id"] == row["dead_letter_id"]


class TestSilences:
    @pytest.mark.parametrize("write_method", ["streaming_inserts", "upsert"])
    def test_silences_are_noticed_ended_and_published_for_a_device_and_the_stream(
        self, stack: Stack, write_method: str
    ):
        topic, subscription = f"{stack.topic}-silences", f"{stack.subscription}-silences"
        stack.publisher.create_topic(name=topic)
        stack.subscriber.create_subscription(name=subscription, topic=topic)
        flags = [f"--input_subscription={stack.subscription}", "--timestamp_attribute=timestamp", stack.table_flag]
        flags += [
            "--silence_after=2s",
            "--grace_period=1s",
            f"--silence_topic={topic}",
            f"--write_method={write_method}",
        ]
        silent_since = math.floor(time.time())
        stack.publish([reading(silent_since - 1, "Temp", 1.0, "north"), reading(silent_since, "Temp", 2.0, "north")])
        with stack.start(*flags) as pipeline:
            noticed = stack.wait_for_rows(pipeline, 2, "readings_silences")
            resumed_at = math.floor(time.time())
            stack.publish([reading(resumed_at, "Temp", 3.0, "north")])

            def over() -> list:
                rows = stack.rows("readings_silences")
                return [
                    (row["Device"] or None, row["SilentSince"].timestamp(), row["BackAt"])
                    for row in rows
                    if row["BackAt"]
                ]

            wait_for(pipeline, lambda: len(over()) >= 2, TIMEOUT_SECONDS)
            pulled: list = []

            def arrived() -> bool:
                pulled.extend(stack.subscriber.pull(subscription=subscription, max_messages=9).received_messages)
                return len(pulled) >= 4

            wait_for(pipeline, arrived, TIMEOUT_SECONDS)
        # A key must not be NULL.
        stream = "" if write_method == "upsert" else None
        assert {(row["Device"], row["SilentSince"].timestamp(), row["BackAt"]) for row in noticed} == {
            ("north", silent_since, None),
            (stream, silent_since, None),
        }
        assert all(row["NoticedAt"].timestamp() >= silent_since + 3 for row in noticed)
        ended = datetime.fromtimestamp(resumed_at, UTC)
        assert sorted(over(), key=str) == [("north", silent_since, ended), (None, silent_since, ended)]
        # One row of each silence when upserted; the two that begin at `resumed_at` may have been noticed by now.
        rows = [row for row in stack.rows("readings_silences") if row["SilentSince"].timestamp() == silent_since]
        assert len(rows) == (2 if write_method == "upsert" else 4)
        messages = [received.message for received in pulled]
        assert [(m.attributes["event"], m.attributes.get("device", "")) for m in messages][:4].count(
            ("silent", "north")
        )
        assert {json.loads(m.data)["SilentSince"][:19] for m in messages if m.attributes["event"] == "back"} == {
            stamp(silent_since)[:19]
        }


class TestWithoutTable:
    def test_rows_are_printed_without_an_output_table(self, stack: Stack):
        start = TestBacklog.START
        stack.publish([reading(start, "Temp", 20.0, "north"), reading(start + 1, "Temp", 22.0, "north")])
        flags = [f"--input_subscription={stack.subscription}", "--timestamp_attribute=timestamp"]
        with stack.start(*flags) as pipeline:
            wait_for(pipeline, lambda: '"Temp": 21.0' in pipeline.log.read_text(), TIMEOUT_SECONDS)
