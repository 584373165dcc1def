"""Redrive on both emulators: what is sent, what is not, and that nothing is sent twice."""

import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument, RetryError, ServiceUnavailable, from_http_status
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient

from pipeline.dead_letters import dead_letter
from pipeline.launch import tables
from redrive.__main__ import _batches, main
from redrive.flags import parse
from redrive.ledger import Ledger
from redrive.targets import DeadLetter, Target

NOT_UTF8 = b"\xff\xfe{"
ROW = {"Timestamp": "2026-11-22T13:00:00.000000Z", "Temp": 21.5}
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Place:
    """A topic, a subscription, an output table and a dead-letter table, used by one test."""

    project: str
    name: str
    bq: bigquery.Client
    capsys: pytest.CaptureFixture
    publisher: PublisherClient = field(default_factory=PublisherClient)
    subscriber: SubscriberClient = field(default_factory=SubscriberClient)

    def __post_init__(self) -> None:
        self.dead_letters = tables.TableId(self.project, self.name, "readings_dead_letters")
        self.rows = tables.TableId(self.project, self.name, "readings")
        self.topic = f"projects/{self.project}/topics/{self.name}"
        self.subscription = f"projects/{self.project}/subscriptions/{self.name}"

    def create(self) -> None:
        self.bq.create_dataset(self.name)
        tables.prepare(self.dead_letters, tables.DEAD_LETTER_COLUMNS, "received_at", None)
        tables.prepare(self.rows, tables.row_columns(("Temp",), by_device=False, revise=False), "Timestamp", None)
        self.create_topic()

    def create_topic(self) -> None:
        self.publisher.create_topic(name=self.topic)
        self.subscriber.create_subscription(name=self.subscription, topic=self.topic)

    def add(self, stage: str = "decode", error: str = "NotJson", payload: bytes = NOT_UTF8, **fields: Any) -> dict:
        """Store a dead letter, received `age` ago, and return it."""
        age = fields.pop("age", timedelta())
        record = dead_letter(stage, error, "in words", payload, **fields)
        record["received_at"] = (NOW - age).isoformat()
        self.store(record)
        return record

    def store(self, *dead_letters: dict) -> None:
        assert not self.bq.insert_rows_json(str(self.dead_letters).replace(":", "."), dead_letters)

    def run(self, *flags: str) -> tuple[int, str, str]:
        """Redrive to the topic and the table; return exit code, stdout and stderr."""
        to = [f"--dead_letter_table={self.dead_letters}", f"--topic={self.topic}", f"--output_table={self.rows}"]
        code = main([*to, *flags])
        return code, *self.capsys.readouterr()

    def redrive(self, *flags: str) -> str:
        """Redrive, which must succeed; return the summary."""
        code, out, err = self.run("--execute", *flags)
        assert (code, err) == (0, "")
        return out.splitlines()[-1]

    def arrived(self) -> list[Any]:
        """Return and acknowledge the messages of the subscription, in any order."""
        messages: list[Any] = []
        while True:
            request = {"subscription": self.subscription, "max_messages": 1000, "return_immediately": True}
            received = self.subscriber.pull(request).received_messages
            if not received:
                return messages
            acks = [each.ack_id for each in received]
            self.subscriber.acknowledge(subscription=self.subscription, ack_ids=acks)
            messages += [each.message for each in received]

    def table(self, name: str) -> list[dict]:
        return [dict(row) for row in self.bq.list_rows(f"{self.project}.{self.name}.{name}")]


@pytest.fixture
def place(
    pubsub_server: str,
    bigquery_emulator: str,
    bigquery_storage: str,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> Iterator[Place]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_server)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator)
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", bigquery_storage)
    place = Place(project, f"t{uuid.uuid4().hex}", tables.client(project), capsys)
    place.create()
    yield place
    place.bq.delete_dataset(place.name, delete_contents=True)
    place.publisher.transport.close()
    place.subscriber.transport.close()


class Crash(Exception):
    """An exception that the program does not catch."""


def crash_at(monkeypatch: pytest.MonkeyPatch, crashing_state: str) -> None:
    """Crash instead of recording that dead letters reached this state."""
    record = Ledger.record

    def crash(self: Ledger, dead_letters: Any, target: Any, state: str) -> None:
        if state == crashing_state:
            raise Crash
        record(self, dead_letters, target, state)

    monkeypatch.setattr(Ledger, "record", crash)


class TestDryRun:
    def test_sends_and_creates_nothing(self, place):
        place.add()
        place.add("insert", "invalid", json.dumps(ROW).encode())
        code, out, _ = place.run()
        assert code == 0
        assert (
            out.splitlines()[-1] == "Dry run: nothing was sent. With --execute, 2 of 2 selected dead letters would be."
        )
        assert place.arrived() == []
        assert place.table("readings") == []
        assert {table.table_id for table in place.bq.list_tables(place.name)} == {"readings", "readings_dead_letters"}

    def test_counts_by_stage_and_error_with_times_and_destination(self, place):
        place.add(age=timedelta(hours=2))
        place.add(age=timedelta(hours=1))
        place.add("validate", "NoKnownSensor")
        place.add("insert", "invalid", json.dumps(ROW).encode())
        _, out, _ = place.run()
        _, two, row, one, _ = out.splitlines()
        oldest, newest = (f"{NOW - timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}" for hours in (2, 1))
        assert two.split() == ["2", "decode", "NotJson", oldest, "to", newest, place.topic]
        assert (row.split()[:3], row.split()[-1]) == (["1", "insert", "invalid"], str(place.rows))
        assert one.split()[:3] == ["1", "validate", "NoKnownSensor"]

    def test_reports_that_sums_cannot_be_redriven(self, place):
        place.add("late", "Late", b"{}")
        place.add("average", "Overflow", b"{}")
        _, out, _ = place.run()
        assert out.count("nowhere: sums cannot be redriven") == 2

    def test_names_the_missing_flags_without_targets(self, place):
        place.add()
        place.add("insert", "invalid", json.dumps(ROW).encode())
        assert main([f"--dead_letter_table={place.dead_letters}"]) == 0
        out = place.capsys.readouterr().out
        assert "nowhere: give --topic" in out
        assert "nowhere: give --output_table" in out


class TestRedriveMessages:
    def test_keeps_bytes_and_attributes_and_adds_attempt_and_id(self, place):
        attributes = {"timestamp": "2026-11-22T13:00:01Z", "device": "north", "grüße": "schön"}
        dead_letter = place.add(attributes=attributes)
        assert place.redrive() == "Redrove 1 dead letters (1 to topic, 0 to table), 0 skipped, 0 failed."
        (message,) = place.arrived()
        assert message.data == NOT_UTF8
        added = {"redrive_attempt": "1", "dead_letter_id": dead_letter["dead_letter_id"]}
        assert dict(message.attributes) == attributes | added

    def test_counts_attempts_of_a_message_that_fails_again(self, place):
        place.add()
        place.redrive()
        (first,) = place.arrived()
        place.add(attributes=dict(first.attributes))
        place.redrive()
        (second,) = place.arrived()
        assert second.attributes["redrive_attempt"] == "2"
        assert second.attributes["dead_letter_id"] != first.attributes["dead_letter_id"]

    def test_sends_a_message_without_data_and_attributes(self, place):
        place.add(payload=b"")
        place.redrive()
        (message,) = place.arrived()
        assert message.data == b""

    def test_drops_attributes_that_pubsub_reserves(self, place):
        place.add(attributes={"googclient_schemaencoding": "JSON", "device": "north"})
        place.redrive()
        (message,) = place.arrived()
        assert set(message.attributes) == {"device", "redrive_attempt", "dead_letter_id"}

    def test_sets_different_id_attributes_for_items_of_one_array(self, place):
        ids = {place.add(attributes={"reading_id": "run-1"})["dead_letter_id"] for _ in range(2)}
        place.redrive("--id_attribute=reading_id")
        assert {message.attributes["reading_id"] for message in place.arrived()} == ids

    def test_sets_the_event_time_of_the_payload_without_kept_attributes(self, place):
        for stamp in ('"2026-11-22T14:00:01.25+01:00"', "1795352401250", '"noon"', "null"):
            place.add("validate", "NoKnownSensor", f'{{"Timestamp": {stamp}, "Wind": 1}}'.encode())
        place.add("decode", "TooManyRefused", b'[{"Timestamp": "2026-11-22T13:00:03Z"}, 0, {"Timestamp": 1795352402}]')
        place.add(payload=NOT_UTF8)
        place.add("validate", "BadValue", b'{"Timestamp": "2026-11-22T13:00:01Z"}', attributes={"device": "north"})
        place.redrive()
        stamps = sorted(message.attributes.get("timestamp", "") for message in place.arrived())
        own = "2026-11-22T13:00:01.250000Z"
        assert stamps == ["", "", "", "", own, own, "2026-11-22T13:00:02.000000Z"]

    def test_sets_the_event_time_in_the_pipelines_attribute(self, place):
        place.add("validate", "NoKnownSensor", b'{"Timestamp": "2026-11-22T13:00:01Z", "Wind": 1}')
        place.redrive("--timestamp_attribute=measured")
        (message,) = place.arrived()
        assert message.attributes["measured"] == "2026-11-22T13:00:01.000000Z"
        assert "timestamp" not in message.attributes

    @pytest.mark.parametrize(
        ("kept", "added"),
        [(98, {"dead_letter_id", "redrive_attempt"}), (99, {"dead_letter_id"}), (100, set())],
    )
    def test_keeps_within_pubsubs_limit_of_attributes(self, place, kept, added):
        attributes = {f"a{n}": str(n) for n in range(kept)}
        place.add(attributes=attributes)
        place.redrive()
        (message,) = place.arrived()
        assert message.attributes.keys() - attributes.keys() == added
        assert dict(message.attributes).items() >= attributes.items()

    def test_counts_from_one_when_the_attempt_is_not_a_number(self, place):
        for attempt in ("9" * 1024, "²", "-1", "many"):
            place.add(attributes={"redrive_attempt": attempt})
        place.redrive()
        assert [message.attributes["redrive_attempt"] for message in place.arrived()] == ["1"] * 4

    def test_sends_each_message_once_in_many_batches(self, place, monkeypatch):
        monkeypatch.setattr("redrive.__main__.BATCH_SIZE", 10)
        monkeypatch.setattr("redrive.__main__.BATCH_BYTES", 5000)
        dead_letters = [dead_letter("decode", "NotJson", "", b"x" * (n * 40)) for n in range(55)]
        place.store(*dead_letters)
        assert place.redrive().startswith("Redrove 55 dead letters")
        arrived = [message.attributes["dead_letter_id"] for message in place.arrived()]
        assert sorted(arrived) == sorted(dead_letter["dead_letter_id"] for dead_letter in dead_letters)

    def test_sends_a_dead_letter_once_that_was_stored_twice(self, place):
        dead_letter = place.add()
        place.store(dead_letter)
        place.redrive()
        assert len(place.arrived()) == 1


class TestBatching:
    def test_batches_have_one_target_and_limited_count_and_bytes(self, monkeypatch):
        monkeypatch.setattr("redrive.__main__.BATCH_SIZE", 3)
        monkeypatch.setattr("redrive.__main__.BATCH_BYTES", 2000)
        topic, table = (Target(kind, kind, lambda dead_letters: {}) for kind in ("topic", "table"))
        stages = ["decode"] * 4 + ["insert"] + ["decode"] * 2
        sizes = [0, 0, 0, 0, 0, 5000, 0]
        dead_letters = [
            DeadLetter(str(n), stage, b"x" * size, {}, 0)
            for n, (stage, size) in enumerate(zip(stages, sizes, strict=True))
        ]
        batches = _batches(dead_letters, {"decode": topic, "insert": table})
        assert [(target.kind, "".join(dead_letter.id for dead_letter in batch)) for target, batch in batches] == [
            ("topic", "012"),
            ("topic", "3"),
            ("topic", "5"),
            ("topic", "6"),
            ("table", "4"),
        ]


class TestSelection:
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            (["--stage=decode"], {"old", "new"}),
            (["--error=BadValue"], {"value"}),
            ([f"--since={(NOW - timedelta(hours=1)).isoformat()}"], {"new", "value"}),
            ([f"--until={(NOW - timedelta(hours=1)).isoformat()}"], {"old"}),
            (["--stage=decode", "--error=BadValue"], set()),
            (["--limit=1"], {"old"}),
        ],
    )
    def test_includes_what_matches_all_flags(self, place, flags, expected):
        place.add(payload=b"old", age=timedelta(hours=2))
        place.add(payload=b"new", age=timedelta(hours=1))
        place.add("validate", "BadValue", b"value")
        place.redrive(*flags)
        assert {message.data.decode() for message in place.arrived()} == expected

    def test_is_of_the_last_seven_days_without_since(self, place):
        place.add(payload=b"old", age=timedelta(days=8))
        place.add(payload=b"new", age=timedelta(days=6))
        since = f"{datetime.now(UTC) - timedelta(days=7):%Y-%m-%dT}"
        code, out, _ = place.run()
        assert code == 0
        assert out.startswith(f"Dead letters of the last 7 days, since {since}")
        assert "1 of 1 selected" in out
        place.redrive()
        assert [message.data for message in place.arrived()] == [b"new"]

    def test_includes_each_dead_letter_once_for_all_times(self, place):
        place.add(payload=b"old", age=timedelta(days=4000))
        flags = ["--since=0001-01-01T00:00:00Z", "--until=9999-12-31T23:59:59Z"]
        assert place.redrive(*flags).startswith("Redrove 1 dead letters")
        assert place.redrive(*flags).startswith("Redrove 0 dead letters")
        assert [message.data for message in place.arrived()] == [b"old"]

    def test_flags_are_not_interpreted_as_sql(self, place):
        place.add()
        place.redrive("--error=' OR TRUE --")
        assert place.arrived() == []


class TestRedriveRows:
    def test_writes_each_row_once_to_the_output_table_and_not_to_the_topic(self, place):
        place.add("insert", "invalid", json.dumps(ROW).encode())
        assert place.redrive() == "Redrove 1 dead letters (0 to topic, 1 to table), 0 skipped, 0 failed."
        place.redrive()
        assert place.table("readings") == [{"Timestamp": datetime(2026, 11, 22, 13, tzinfo=UTC), "Temp": 21.5}]
        assert place.arrived() == []

    def test_writes_upserts_as_changes_that_newer_rows_override(self, place, monkeypatch):
        place.bq.delete_table(place.rows.reference)
        columns, key = tables.row_columns(("Temp",), by_device=False, revise=False), tables.row_key(by_device=False)
        tables.prepare(place.rows, columns, "Timestamp", None, key)
        for number, change, temp in [("f/1", "UPSERT", 2.0), ("f/0", "UPSERT", 1.0), ("1/0", "DELETE", None)]:
            row = {**ROW, "Temp": temp, "_CHANGE_TYPE": change, "_CHANGE_SEQUENCE_NUMBER": number}
            place.add("insert", "PERMISSION_DENIED", json.dumps(row).encode())
        bad = place.add("insert", "BadRow", json.dumps(ROW).encode())
        code, out, err = place.run("--execute")
        assert out.splitlines()[-1] == "Redrove 3 dead letters (0 to topic, 3 to table), 0 skipped, 1 failed."
        assert (code, bad["dead_letter_id"] in err) == (1, True)
        assert place.table("readings") == [{"Timestamp": datetime(2026, 11, 22, 13, tzinfo=UTC), "Temp": 2.0}]

    @pytest.mark.timeout(60)
    def test_ends_with_the_cause_when_the_write_api_is_unreachable(self, place, monkeypatch):
        place.bq.delete_table(place.rows.reference)
        columns, key = tables.row_columns(("Temp",), by_device=False, revise=False), tables.row_key(by_device=False)
        tables.prepare(place.rows, columns, "Timestamp", None, key)
        row = {**ROW, "_CHANGE_TYPE": "UPSERT", "_CHANGE_SEQUENCE_NUMBER": "f/1"}
        place.add("insert", "PERMISSION_DENIED", json.dumps(row).encode())
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setattr("redrive.targets.RETRY_SECONDS", 1.0)
        code, out, err = place.run("--execute")
        assert code == 1
        assert "error: stopped: UNAVAILABLE: " in err
        assert "1 unconfirmed: may have been sent" in out

    @pytest.mark.parametrize("keyed", [False, True])
    def test_rejects_only_payloads_that_are_not_json_objects(self, place, keyed):
        good = ROW
        if keyed:
            place.bq.delete_table(place.rows.reference)
            columns, key = tables.row_columns(("Temp",), by_device=False, revise=False), tables.row_key(by_device=False)
            tables.prepare(place.rows, columns, "Timestamp", None, key)
            good = {**ROW, "_CHANGE_TYPE": "UPSERT", "_CHANGE_SEQUENCE_NUMBER": "f/1"}
        payloads = [b"", b"{", b"[1]", NOT_UTF8, b"[" * 100_000, b'{"Temp": NaN}', b'{"Temp": Infinity}']
        bad = {place.add("insert", "invalid", payload)["dead_letter_id"] for payload in payloads}
        place.add("insert", "invalid", json.dumps(good).encode())
        code, out, err = place.run("--execute")
        assert out.splitlines()[-1] == "Redrove 1 dead letters (0 to topic, 1 to table), 0 skipped, 7 failed."
        assert (code, err.count("\n"), {line.split()[3] for line in err.splitlines()}) == (1, 7, bad)
        assert place.table("readings") == [{"Timestamp": datetime(2026, 11, 22, 13, tzinfo=UTC), "Temp": 21.5}]
        assert "unconfirmed" not in place.run()[1]

    @pytest.mark.parametrize("status", [400, 413])
    def test_rejects_only_the_row_that_has_a_request_rejected(self, place, monkeypatch, status):
        bad = place.add("insert", "invalid", json.dumps(ROW | {"Temp": 99}).encode())
        for temp in range(5):
            place.add("insert", "invalid", json.dumps(ROW | {"Temp": temp}).encode())
        insert = bigquery.Client.insert_rows_json

        def reject_bad(client: Any, table: Any, rows: list, **options: Any) -> Any:
            if any(row["Temp"] == 99 for row in rows):
                raise from_http_status(status, "too large")
            return insert(client, table, rows, **options)

        monkeypatch.setattr(bigquery.Client, "insert_rows_json", reject_bad)
        code, out, err = place.run("--execute")
        assert out.splitlines()[-1] == "Redrove 5 dead letters (0 to topic, 5 to table), 0 skipped, 1 failed."
        assert (code, err) == (1, f"error: dead letter {bad['dead_letter_id']} was rejected: 400 too large\n")
        assert sorted(row["Temp"] for row in place.table("readings")) == [0, 1, 2, 3, 4]

    def test_writes_the_other_rows_when_one_is_rejected_again(self, place, monkeypatch):
        good = place.add("insert", "invalid", json.dumps(ROW).encode())
        bad = place.add("insert", "invalid", json.dumps(ROW | {"Temp": 99}).encode())
        inserted = []

        def insert(_: Any, table: Any, rows: list, row_ids: list, skip_invalid_rows: bool, retry: Any) -> list[dict]:
            assert skip_invalid_rows
            inserted.extend(row_ids)
            return [
                {"index": index, "errors": [{"reason": "invalid", "message": "too hot"}]}
                for index, row in enumerate(rows)
                if row["Temp"] == 99
            ]

        monkeypatch.setattr(bigquery.Client, "insert_rows_json", insert)
        code, out, err = place.run("--execute")
        assert code == 1
        assert out.splitlines()[-1] == "Redrove 1 dead letters (0 to topic, 1 to table), 0 skipped, 1 failed."
        assert bad["dead_letter_id"] in err
        assert "too hot" in err
        place.run("--execute")
        assert sorted(inserted) == sorted([good["dead_letter_id"], bad["dead_letter_id"], bad["dead_letter_id"]])


class TestSendOnce:
    def test_second_run_sends_nothing(self, place):
        place.add()
        place.redrive()
        assert len(place.arrived()) == 1
        assert place.redrive() == "Redrove 0 dead letters (0 to topic, 0 to table), 1 skipped, 0 failed."
        assert place.arrived() == []
        assert "nowhere: redriven before" in place.run()[1]

    def test_sums_are_skipped(self, place):
        place.add("late", "Late", b"{}")
        assert place.redrive() == "Redrove 0 dead letters (0 to topic, 0 to table), 1 skipped, 0 failed."

    def test_limited_runs_send_one_after_the_other(self, place):
        for n in range(3):
            place.add(payload=str(n).encode(), age=timedelta(minutes=9 - n))
        assert [[m.data for m in place.arrived()] for _ in range(4) if place.redrive("--limit=1")] == [
            [b"0"],
            [b"1"],
            [b"2"],
            [],
        ]

    def test_dead_letter_sent_before_a_crash_is_reported_and_not_sent_again(self, place, monkeypatch):
        place.add()
        with monkeypatch.context() as patch:
            crash_at(patch, "done")
            with pytest.raises(Crash):
                place.run("--execute")
        assert len(place.arrived()) == 1
        place.capsys.readouterr()
        assert place.redrive() == "Redrove 0 dead letters (0 to topic, 0 to table), 1 skipped, 0 failed."
        assert place.arrived() == []
        assert "nowhere: unconfirmed, may have been sent; see --retry_unconfirmed" in place.run()[1]

    def test_retry_unconfirmed_sends_and_confirms_it(self, place, monkeypatch):
        place.add()
        with monkeypatch.context() as patch:
            crash_at(patch, "done")
            with pytest.raises(Crash):
                place.run("--execute")
        place.arrived()
        place.capsys.readouterr()
        assert place.redrive("--retry_unconfirmed").startswith("Redrove 1 dead letters (1 to topic")
        assert len(place.arrived()) == 1
        assert place.redrive("--retry_unconfirmed").startswith("Redrove 0 dead letters")

    def test_unknown_outcome_stops_the_run_and_stays_unconfirmed(self, place, monkeypatch):
        place.add()

        def lost(*_: Any, **__: Any) -> None:
            raise ServiceUnavailable("the answer was lost")

        with monkeypatch.context() as patch:
            patch.setattr(PublisherClient, "publish", lost)
            code, out, err = place.run("--execute")
        assert code == 1
        assert err == "error: stopped: 503 the answer was lost\n"
        assert out.splitlines()[-1].endswith("0 failed. 1 unconfirmed: may have been sent; see --retry_unconfirmed.")
        assert place.redrive().startswith("Redrove 0 dead letters")

    def test_unknown_outcome_names_the_cause_of_the_last_retry(self, place, monkeypatch):
        place.add()

        def lost(*_: Any, **__: Any) -> None:
            raise RetryError("Timeout of 60.0s exceeded", ServiceUnavailable("the topic is away"))

        monkeypatch.setattr(PublisherClient, "publish", lost)
        assert place.run("--execute")[2] == "error: stopped: 503 the topic is away\n"

    def test_only_the_first_claim_sends_when_two_runs_overlap(self, place):
        place.add()
        args = parse([f"--dead_letter_table={place.dead_letters}"])
        target = Target("topic", place.topic, lambda dead_letters: {})
        first, second = (Ledger(place.bq, args) for _ in range(2))
        first.create()
        one, other = (list(ledger.dead_letters(["decode"], ["waiting"], 9)) for ledger in (first, second))
        assert len(one) == 1
        assert first.claim(one, target) == one
        assert second.claim(other, target) == []
        assert [group.status for group in first.overview()] == ["unconfirmed"]
        first.record(one, target, "done")
        assert [group.status for group in first.overview()] == ["done"]

    def test_steps_are_recorded(self, place):
        dead_letter = place.add()
        place.redrive()
        records = place.table("readings_dead_letters_redriven")
        assert sorted(record["state"] for record in records) == ["claimed", "done"]
        assert {(record["dead_letter_id"], record["target"]) for record in records} == {
            (dead_letter["dead_letter_id"], place.topic)
        }


class TestRejection:
    def test_missing_topic_releases_dead_letters_for_the_next_run(self, place):
        place.add()
        place.publisher.delete_topic(topic=place.topic)
        code, out, err = place.run("--execute")
        assert code == 1
        assert err.startswith("error: stopped: 404")
        assert out.splitlines()[-1] == "Redrove 0 dead letters (0 to topic, 0 to table), 0 skipped, 1 failed."
        place.subscriber.delete_subscription(subscription=place.subscription)
        place.create_topic()
        assert place.redrive().startswith("Redrove 1 dead letters")
        assert len(place.arrived()) == 1

    def test_rejected_message_does_not_affect_its_batch(self, place, monkeypatch):
        bad = place.add(payload=b"bad")
        for n in range(6):
            place.add(payload=str(n).encode())
        publish = PublisherClient.publish

        def reject_bad(client: PublisherClient, topic: str, messages: list[dict], **options: Any) -> Any:
            if any(message["data"] == b"bad" for message in messages):
                raise InvalidArgument("a message is invalid")
            return publish(client, topic=topic, messages=messages, **options)

        monkeypatch.setattr(PublisherClient, "publish", reject_bad)
        code, out, err = place.run("--execute")
        assert code == 1
        assert out.splitlines()[-1] == "Redrove 6 dead letters (6 to topic, 0 to table), 0 skipped, 1 failed."
        assert err == f"error: dead letter {bad['dead_letter_id']} was rejected: 400 a message is invalid\n"
        assert sorted(message.data for message in place.arrived()) == [b"0", b"1", b"2", b"3", b"4", b"5"]


class TestFlags:
    TABLE = "--dead_letter_table=test-project:d.dead_letters"

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ([], "--dead_letter_table"),
            (["--dead_letter_table=dead_letters"], "expected project:dataset.table"),
            ([TABLE, "--topic=readings"], "expected projects/PROJECT/topics/NAME"),
            ([TABLE, "--output_table=rows"], "expected project:dataset.table"),
            ([TABLE, "--stage=encode"], "decode"),
            ([TABLE, "--since=yesterday"], "--since: yesterday"),
            ([TABLE, "--until=2026-11-22T13:00:00"], "offset"),
            ([TABLE, "--limit=0"], "--limit"),
            ([TABLE, "--limit=some"], "--limit"),
            ([TABLE, "--since=0001-01-01T00:00:00+14:00"], "expected a time of the years 1 to 9999 in UTC"),
            ([TABLE, "--until=9999-12-31T23:59:59-14:00"], "expected a time of the years 1 to 9999 in UTC"),
            ([TABLE, "--since=2026-11-22T13:00:00Z", "--until=2026-11-22T13:00:00Z"], "is not after --since"),
            ([TABLE, "--billing_project=Some"], "--billing_project: Some: expected a project id"),
            ([TABLE, "--maximum_bytes_billed=1GB"], "--maximum_bytes_billed: 1GB: expected a whole number above 0"),
            (["--dead_letter_table=a:b:sensors.readings"], "expected project:dataset.table"),
            ([TABLE, f"--topic=projects/p/topics/{'x' * 5000}"], "expected projects/PROJECT/topics/NAME"),
            ([TABLE, "--since=\x1b[31m\u202e"], r"--since: \x1b[31m\u202e: "),
            ([TABLE, "--exec\x07\x1b=" + "y" * 5000], r"--exec\x07\x1b=yyy"),
            ([TABLE, "--execute"], "--execute needs --topic, --output_table or both"),
            ([TABLE, "--exec"], "--exec"),
        ],
    )
    def test_wrong_flag_is_one_line_and_exit_code_2(self, capsys, flags, expected):
        with pytest.raises(SystemExit) as exit_:
            main(flags)
        assert exit_.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert (err.count("\n"), err[:-1].isprintable(), len(err) < 600) == (1, True, True)
        assert expected in err

    def test_billing_flags_apply_to_every_query(self, place, monkeypatch):
        place.add()
        place.redrive("--limit=1")
        ran = []
        query = bigquery.Client.query

        def recording(client: bigquery.Client, sql: str, job_config: bigquery.QueryJobConfig, **options: Any) -> Any:
            ran.append((client.project, job_config.maximum_bytes_billed))
            return query(client, sql, job_config=job_config, **options)

        monkeypatch.setattr(bigquery.Client, "query", recording)
        place.add()
        place.redrive("--billing_project=somebody-else", "--maximum_bytes_billed=12345")
        assert (len(ran) >= 4, set(ran)) == (True, {("somebody-else", 12345)})

    def test_query_that_scans_too_much_names_the_flags(self, place, monkeypatch):
        def refused(*_: Any, **__: Any) -> None:
            raise from_http_status(400, "Query exceeded limit for bytes billed: 10000000. 20971520 or higher required.")

        monkeypatch.setattr(bigquery.Client, "query", refused)
        code, _, err = place.run()
        assert code == 2
        assert err.endswith("; narrow the selection with --since and --until, or raise --maximum_bytes_billed\n")

    @pytest.mark.parametrize("missing", ["dead_letters", "rows"])
    def test_missing_table_is_one_line_and_exit_code_2(self, place, missing):
        place.add()
        place.bq.delete_table(str(getattr(place, missing)).replace(":", "."))
        code, out, err = place.run("--execute")
        assert (code, out) == (2, "")
        assert err.startswith("error: 404")
        assert err.count("\n") == 1
        assert place.arrived() == []
        assert "readings_dead_letters_redriven" not in {table.table_id for table in place.bq.list_tables(place.name)}


@pytest.mark.timeout(30)
def test_expired_credentials_end_the_run_with_the_cause_and_the_fix(expired_credentials, capsys):
    code = main(["--dead_letter_table=test-project:d.dead_letters", "--topic=projects/test-project/topics/readings"])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(
        "error: No usable Google Cloud credentials (invalid_grant: Token has been expired or revoked)"
    )
    assert err.endswith("run gcloud auth application-default login.\n")
