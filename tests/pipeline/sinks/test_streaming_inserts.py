"""The sinks of streaming inserts, against a BigQuery that fails on command."""

import base64
import json
import logging
import socket
from contextlib import ExitStack

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.dead_letters import dead_letter
from pipeline.launch.tables import TableId
from pipeline.sinks import retry, streaming_inserts
from pipeline.sinks.pubsub import WriteDeadLetters
from pipeline.sinks.rejected_rows import RejectedRowsToDeadLetters
from pipeline.sinks.streaming_inserts import InsertDeadLetters, InsertRows
from tests.pipeline.conftest import Stream, message, run_through
from tests.pipeline.fake_bigquery import NO_ANSWER, fake_bigquery

ROWS = TableId("test-project", "d", "readings")
DEAD_LETTERS = TableId("test-project", "d", "readings_dead_letters")


def run_to_bigquery(stream: Stream, *flags: str) -> None:
    run_through(stream.end(), InsertRows(ROWS), InsertDeadLetters(DEAD_LETTERS), *flags)


def insert(rows: list[dict], *flags: str) -> None:
    """Insert rows as one bundle."""
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner", *flags])) as pipeline:
        rejected = pipeline | beam.Create([rows]) | beam.FlatMap(list) | InsertRows(ROWS)
        dead_letters = rejected | RejectedRowsToDeadLetters("insert", "Timestamp")
        _ = dead_letters | InsertDeadLetters(DEAD_LETTERS)


def row(temp: float, **values: object) -> dict:
    return {"Timestamp": "2024-11-22T13:00:00.000000Z", "Temp": temp, **values}


def check_parts(parts: list[dict], error: str, payload: bytes) -> None:
    """Assert that the parts are three, of one dead letter, and hold the payload."""
    parts = sorted(parts, key=lambda part: part["part"])
    assert [(part["error"], part["part"], part["parts"]) for part in parts] == [(error, n, 3) for n in (1, 2, 3)]
    assert len({part["dead_letter_id"] for part in parts}) == 1
    # Compared first, so that a difference does not print ten megabytes.
    equal = b"".join(base64.b64decode(part["payload"]) for part in parts) == payload
    assert equal


class TestInsertRows:
    def test_stores_rows_of_many_windows_once(self, inserts):
        stream = Stream()
        for minute in range(50):
            stream.add(*(message(minute * 60 + second, Temp=minute) for second in (0, 15, 30, 45)))
            stream.watermark(minute * 60 + 30)
        run_to_bigquery(stream)
        rows = inserts.rows("readings")
        assert len(rows) == 200
        assert len({row["Timestamp"] for row in rows}) == 200

    def test_returns_rejected_row_and_stores_the_others(self, inserts):
        inserts.reject = lambda row: "too hot" if row.get("Temp") == 99 else None
        run_to_bigquery(Stream().add(message(0, Temp=1), message(15, Temp=99), message(30, Temp=3)))
        assert sorted(row["Temp"] for row in inserts.rows("readings")) == [1.0, 3.0]
        (found,) = inserts.rows("readings_dead_letters")
        assert (found["stage"], found["error"]) == ("insert", "invalid")
        assert json.loads(found["message"]) == [{"reason": "invalid", "message": "too hot"}]
        assert found["event_time"] == "2024-11-22T13:00:15.000000Z"
        rejected = json.loads(base64.b64decode(found["payload"]))
        assert (rejected["Timestamp"], rejected["Temp"]) == ("2024-11-22T13:00:15.000000Z", 99.0)

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            (408, "by its status"),
            (429, "by its status"),
            (500, "by its status"),
            (502, "by its status"),
            (503, "by its status"),
            (504, "by its status"),
            (429, "rateLimitExceeded"),
            (403, "rateLimitExceeded"),
            (403, "quotaExceeded"),
            (NO_ANSWER, "closed"),
        ],
    )
    def test_retries_request_when_failure_is_transient(self, inserts, status, reason):
        inserts.failures = [(status, reason)] * 3
        run_to_bigquery(Stream().add(message(0, Temp=1)))
        assert inserts.failures == []
        assert [row["Temp"] for row in inserts.rows("readings")] == [1.0]
        assert inserts.rows("readings_dead_letters") == []

    def test_retries_row_alone_when_its_failure_is_transient(self, inserts):
        inserts.row_failures = ["backendError", "timeout"]
        inserts.reject = lambda row: "too hot" if row.get("Temp") == 99 else None
        insert([row(1), row(99), row(3)])
        assert inserts.row_failures == []
        assert inserts.requests[:3] == [("readings", 3), ("readings", 1), ("readings", 1)]
        assert sorted(row["Temp"] for row in inserts.rows("readings")) == [1.0, 3.0]
        assert [found["error"] for found in inserts.rows("readings_dead_letters")] == ["invalid"]

    def test_stores_row_once_when_answer_is_lost(self, inserts):
        inserts.lost_answers = 2
        insert([row(1), row(2)])
        assert inserts.requests == [("readings", 2)] * 3
        assert sorted(row["Temp"] for row in inserts.rows("readings")) == [1.0, 2.0]

    def test_stores_row_once_when_bundle_is_retried(self, inserts):
        insert([row(1), row(2)], "--direct_runner_bundle_repeat=2")
        assert len(inserts.requests) == 3
        assert sorted(row["Temp"] for row in inserts.rows("readings")) == [1.0, 2.0]

    @pytest.mark.parametrize(("status", "reason"), [(404, "notFound"), (403, "accessDenied"), (400, "invalid")])
    def test_returns_all_rows_when_request_is_rejected(self, inserts, status, reason):
        inserts.failures = [(status, reason)]
        run_to_bigquery(Stream().add(message(0, Temp=1)).watermark(20).add(message(30, Temp=2)))
        assert [row["Temp"] for row in inserts.rows("readings")] == [2.0]
        (found,) = inserts.rows("readings_dead_letters")
        assert (found["stage"], found["error"]) == ("insert", reason)
        assert json.loads(base64.b64decode(found["payload"]))["Temp"] == 1.0

    def test_waits_for_bigquery_when_it_is_not_reachable(self, monkeypatch):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        with ExitStack() as later:
            started: list = []

            def start_bigquery(record: logging.LogRecord) -> bool:
                if not started and "retrying" in record.getMessage():
                    started.append(later.enter_context(fake_bigquery(port)))
                return True

            monkeypatch.setattr(retry._LOGGER, "filters", [start_bigquery])
            run_to_bigquery(Stream().add(message(0, Temp=1)))
            (fake,) = started
            assert [row["Temp"] for row in fake.rows("readings")] == [1.0]

    def test_fills_request_up_to_its_number_of_rows(self, inserts, monkeypatch):
        monkeypatch.setattr(streaming_inserts, "MAX_ROWS", 3)
        insert([row(number) for number in range(7)])
        assert [rows for _, rows in inserts.requests] == [3, 3, 1]
        assert sorted(row["Temp"] for row in inserts.rows("readings")) == list(range(7))

    def test_fills_request_up_to_its_size(self, inserts):
        # In a request "é" is \u00e9, so that each row takes 3 MB of 9.
        insert([row(number, note="é" * 490_000) for number in range(7)])
        assert [rows for _, rows in inserts.requests] == [3, 3, 1]

    def test_returns_row_that_exceeds_request(self, inserts):
        large = row(1.0, note="n" * 9_500_000)
        insert([large])
        assert inserts.rows("readings") == []
        check_parts(inserts.rows("readings_dead_letters"), "RowTooLarge", json.dumps(large).encode())


class TestInsertDeadLetters:
    def test_logs_rejected_dead_letter_with_payload(self, inserts, caplog):
        inserts.reject = lambda row: "no" if "stage" in row else None
        run_to_bigquery(Stream().add(b"unreadable"))
        (record,) = [record for record in caplog.records if record.name == "pipeline.sinks.rejected_rows"]
        assert record.levelname == "ERROR"
        assert base64.b64encode(b"unreadable").decode() in record.getMessage()

    def test_stores_parts_when_payload_exceeds_request(self, inserts):
        message_of_10_mb = bytes(range(256)) * 39_062
        run_to_bigquery(Stream().add(message_of_10_mb))
        check_parts(inserts.rows("readings_dead_letters"), "NotJson", message_of_10_mb)

    def test_stores_dead_letter_once_when_bundle_is_retried(self, inserts):
        rejected = [dead_letter("decode", "NotJson", "m", payload) for payload in (b"one", b"two")]
        options = PipelineOptions(["--runner=FnApiRunner", "--direct_runner_bundle_repeat=2"])
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create(rejected) | WriteDeadLetters(InsertDeadLetters(DEAD_LETTERS), None)
        assert sum(rows for _, rows in inserts.requests) == 6
        assert len(inserts.rows("readings_dead_letters")) == 2
