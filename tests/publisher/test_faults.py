import json
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise

import pytest

from publisher.faults import MALFORMED, PER_READING, YEAR_MS, Faults, parse
from publisher.messages import encode
from publisher.sensors import readings

START_MS = 1_800_000_000_000
DEVICES = ("device-1", "device-2")
RATES = "late=0.01,duplicate=0.02,malformed=0.03,out_of_order=0.05,skew=0.01"


def plan(total=1000, rate=100.0):
    return list(readings(["Temp", "AtmP"], devices=2, rate=rate, start_ms=START_MS, total=total, seed=1))


def messages(text, total=1000, seed=5, late_by=60.0):
    return list(Faults(parse(text), late_by, seed).messages(plan(total), "run"))


class TestParse:
    def test_reads_rates_and_a_burst(self):
        assert parse("late=0.01, skew=0,burst=100") == {"late": 0.01, "skew": 0.0, "burst": 100}

    @pytest.mark.parametrize(
        ("text", "message_part"),
        [
            ("", "'' is not a fault; choose from late, duplicate,"),
            ("lost=0.1", "'lost' is not a fault"),
            ("late", "late= is not a probability from 0 to 1"),
            ("late=1.1", "late=1.1 is not"),
            ("late=-0.1", "late=-0.1 is not"),
            ("late=nan", "late=nan is not"),
            ("late=0.1,late=0.2", "'late' is given twice"),
            ("late=0.6,skew=0.6", "add up to more than 1"),
            ("burst=0", "burst=0 is not a whole number"),
            ("burst=0.5", "burst=0.5 is not a whole number"),
        ],
    )
    def test_raises_one_line_for_a_wrong_rate(self, text, message_part):
        with pytest.raises(ValueError, match=message_part):
            parse(text)


class TestFaults:
    def test_messages_have_no_fault_by_default(self):
        assert list(Faults().messages(plan(), "run")) == [encode(reading, "run") for reading in plan()]

    def test_messages_are_equal_for_the_same_seed_in_any_order_of_names(self):
        assert messages(RATES) == messages(",".join(reversed(RATES.split(","))))
        assert messages(RATES) != messages(RATES, seed=6)

    def test_messages_have_faults_at_about_their_rates(self):
        total = 20_000
        found = Counter((message.fault or "none").split(":")[0] for message in messages(RATES, total))
        for name, rate in parse(RATES).items():
            # Six standard deviations.
            assert found[name] == pytest.approx(rate * total, abs=6 * (rate * total) ** 0.5)

    @pytest.mark.parametrize("name", PER_READING)
    def test_messages_include_every_reading(self, name):
        ids = {message.attributes["reading_id"] for message in messages(f"{name}=0.5,burst=50")}
        assert ids == {f"run-{number}" for number in range(1000)}

    def test_late_and_out_of_order_messages_are_only_delayed(self):
        undisturbed = {message.attributes["reading_id"]: message for message in messages("late=0")}
        for name, shortest, longest in (("late", 15_000, 25_000), ("out_of_order", 100, 2000)):
            for message in messages(f"{name}=1", late_by=20):
                same = undisturbed[message.attributes["reading_id"]]
                assert (message.data, message.attributes) == (same.data, same.attributes)
                assert shortest <= message.due_ms - same.due_ms <= longest

    def test_delayed_messages_are_yielded_when_due(self):
        sent = messages("late=0.1,out_of_order=0.1", late_by=2)
        assert all(one.due_ms <= other.due_ms for one, other in pairwise(sent))
        numbers = [message.reading.number for message in sent]
        assert numbers != sorted(numbers)

    def test_duplicate_is_the_same_message_within_two_seconds(self):
        sent = messages("duplicate=1")
        assert len(sent) == 2000
        by_id = {message.attributes["reading_id"]: message for message in sent if message.fault is None}
        for copy in (message for message in sent if message.fault == "duplicate"):
            first = by_id[copy.attributes["reading_id"]]
            assert (copy.data, copy.attributes) == (first.data, first.attributes)
            assert 100 <= copy.due_ms - first.due_ms <= 2000

    def test_skewed_message_is_on_time_with_a_timestamp_a_year_ahead_or_in_1970(self):
        found = Counter()
        for message in messages("skew=1"):
            stamp = json.loads(message.data)["Timestamp"]
            assert stamp == message.attributes["timestamp"] == message.reading.timestamp
            found[stamp[:4]] += 1
            assert message.reading.time_ms in (message.due_ms + YEAR_MS, message.due_ms // 1000)
        assert set(found) == {"1970", "2028"}
        assert min(found.values()) > 400

    def test_malformed_messages_include_every_variant(self):
        sent = messages("malformed=1")
        assert {message.fault for message in sent} == {f"malformed: {way}" for way in MALFORMED}
        assert len({message.data for message in sent[:200]}) > 50
        assert all(message.reading is None for message in sent)

    @pytest.mark.parametrize("name", PER_READING)
    def test_faulty_messages_are_not_packed(self, name):
        sent = messages(f"{name}=0.2,burst=50")
        disturbed = {message.attributes["reading_id"] for message in sent if message.fault not in (None, "burst")}
        assert len(disturbed) > 100
        # A duplicate's first copy too, or removing the copy would take its neighbours with it.
        assert {message.attributes["reading_id"] for message in sent if message.alone} == disturbed

    def test_burst_is_held_back_until_its_last_reading(self):
        sent = []

        def watched():
            for reading in plan(4000):
                sent.append(reading.number)
                yield reading

        for place, message in enumerate(Faults(parse("burst=150")).messages(watched(), "run")):
            bursting = place >= 1000 and place % 1000 < 150
            assert message.fault == ("burst" if bursting else None)
            assert len(sent) == (place // 1000 * 1000 + 150 if bursting else place + 1)


class TestPublishFaults:
    def test_held_back_messages_are_sent_when_due(self, start, service):
        process = start(
            *("publish", "--topic", "projects/p12345/topics/some-topic", "--rate", "50", "--messages", "20"),
            *("--faults", "late=1", "--late-by", "2"),
            PUBSUB_EMULATOR_HOST=service.host,
        )
        process.communicate(timeout=20)
        assert len(service.published) == 20
        last = max(message.attributes["timestamp"] for message in service.published)
        assert time.time() - datetime.fromisoformat(last).timestamp() > 1.4


class TestDropout:
    def test_device_is_silent_after_its_marked_reading_while_others_go_on(self):
        sent = list(Faults({"dropout": 0.002}, dropout_for=3.0, seed=5).messages(plan(10_000), "run"))
        marked = [message.reading for message in sent if message.fault == "dropout"]
        assert len(marked) > 3
        silent = {device: [(m.time_ms, m.time_ms + 3000) for m in marked if m.device == device] for device in DEVICES}
        expected = [
            encode(reading, "run").data
            for reading in plan(10_000)
            if not any(since < reading.time_ms < until for since, until in silent[reading.device])
        ]
        assert [message.data for message in sent] == expected

    def test_messages_held_back_before_it_are_sent(self):
        sent = list(Faults({"out_of_order": 0.5, "dropout": 0.05}, dropout_for=60.0, seed=5).messages(plan(), "run"))
        last = {device: max(m.reading.number for m in sent if m.reading.device == device) for device in DEVICES}
        by_number = {message.reading.number: message.fault for message in sent}
        assert [by_number[number] for number in last.values()] == ["dropout", "dropout"]
        # Two sensors of device-1, then two of device-2, and so on.
        assert set(by_number) == {number for number in range(1000) if number <= last[DEVICES[number // 2 % 2]]}
