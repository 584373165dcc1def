"""The shipped sinks: against a BigQuery that refuses, and on the terminal."""

import base64
import json
import logging
import socket
from contextlib import ExitStack

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.dead_letters import dead_letter
from pipeline.launch.tables import SILENCE_KEY, TableId
from pipeline.sinks import streaming_inserts
from pipeline.sinks.storage_write import to_change
from tests.pipeline.conftest import Stream, message, run_through
from tests.pipeline.fake_bigquery import fake_bigquery

ROWS = TableId("test-project", "d", "readings")
LETTERS = TableId("test-project", "d", "readings_dead_letters")


@pytest.fixture
def bigquery_fake(monkeypatch):
    with fake_bigquery() as fake:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", fake.host)
        yield fake


def run_to_bigquery(stream: Stream, *flags: str) -> None:
    run_through(
        stream.end(), streaming_inserts.BigQueryRows(ROWS), streaming_inserts.BigQueryDeadLetters(LETTERS), *flags
    )


class TestBigQueryRows:
    def test_rows_of_many_windows_are_all_stored_once(self, bigquery_fake):
        stream = Stream()
        for minute in range(50):
            stream.add(*(message(minute * 60 + second, Temp=minute) for second in (0, 15, 30, 45)))
            stream.watermark(minute * 60 + 30)
        run_to_bigquery(stream)
        rows = bigquery_fake.rows("readings")
        assert len(rows) == 200
        assert len({row["Timestamp"] for row in rows}) == 200

    def test_a_refused_row_becomes_a_dead_letter_with_bigquerys_reason_and_the_others_are_stored(self, bigquery_fake):
        bigquery_fake.refuse = lambda row: "too hot" if row.get("Temp") == 99 else None
        run_to_bigquery(Stream().add(message(0, Temp=1), message(15, Temp=99), message(30, Temp=3)))
        assert sorted(row["Temp"] for row in bigquery_fake.rows("readings")) == [1.0, 3.0]
        (letter,) = bigquery_fake.rows("readings_dead_letters")
        assert (letter["stage"], letter["error"]) == ("insert", "invalid")
        assert "too hot" in letter["message"]
        refused = json.loads(base64.b64decode(letter["payload"]))
        assert (refused["Timestamp"], refused["Temp"]) == ("2024-11-22T13:00:15.000000Z", 99.0)

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            (500, "internalError"),
            (502, "badGateway"),
            (503, "backendError"),
            (429, "rateLimitExceeded"),
            (403, "rateLimitExceeded"),
            (403, "quotaExceeded"),
            (0, "hangs up"),
        ],
    )
    def test_a_passing_failure_of_requests_is_outwaited(self, bigquery_fake, status, reason):
        bigquery_fake.failures = [(status, reason)] * 3
        run_to_bigquery(Stream().add(message(0, Temp=1)))
        assert bigquery_fake.failures == []
        assert [row["Temp"] for row in bigquery_fake.rows("readings")] == [1.0]
        assert bigquery_fake.rows("readings_dead_letters") == []

    def test_a_passing_failure_of_a_row_is_outwaited_and_the_row_stored_once(self, bigquery_fake):
        bigquery_fake.row_failures = ["backendError", "timeout"]
        run_to_bigquery(Stream().add(message(0, Temp=1), message(15, Temp=2)))
        assert bigquery_fake.row_failures == []
        assert sorted(row["Temp"] for row in bigquery_fake.rows("readings")) == [1.0, 2.0]
        assert bigquery_fake.rows("readings_dead_letters") == []

    @pytest.mark.parametrize(("status", "reason"), [(404, "notFound"), (403, "accessDenied"), (400, "invalid")])
    def test_a_lasting_failure_dead_letters_the_rows_and_the_pipeline_goes_on(self, bigquery_fake, status, reason):
        bigquery_fake.failures = [(status, reason)]
        run_to_bigquery(Stream().add(message(0, Temp=1)).watermark(20).add(message(30, Temp=2)))
        assert [row["Temp"] for row in bigquery_fake.rows("readings")] == [2.0]
        (letter,) = bigquery_fake.rows("readings_dead_letters")
        assert (letter["stage"], letter["error"]) == ("insert", reason)
        assert json.loads(base64.b64decode(letter["payload"]))["Temp"] == 1.0

    def test_a_bigquery_that_is_not_there_yet_is_waited_for(self, monkeypatch, caplog):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        with ExitStack() as later:
            started: list = []

            def start_bigquery(record: logging.LogRecord) -> bool:
                if not started and "trying again" in record.getMessage():
                    started.append(later.enter_context(fake_bigquery(port)))
                return True

            monkeypatch.setattr(streaming_inserts._LOGGER, "filters", [start_bigquery])
            run_to_bigquery(Stream().add(message(0, Temp=1)))
            (fake,) = started
            assert [row["Temp"] for row in fake.rows("readings")] == [1.0]

    def test_a_row_beyond_the_size_of_a_request_is_dead_lettered(self, bigquery_fake):
        row = {"Timestamp": "2024-11-22T13:00:00.000000Z", "Temp": 1.0, "note": "n" * 9_500_000}
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            failed = pipeline | beam.Create([row]) | streaming_inserts.BigQueryRows(ROWS)
            _ = failed | streaming_inserts.BigQueryDeadLetters(LETTERS)
        assert bigquery_fake.rows("readings") == []
        check_parts(bigquery_fake.rows("readings_dead_letters"), "RowTooLarge", json.dumps(row).encode())


class TestBigQueryDeadLetters:
    def test_one_that_is_refused_goes_to_the_log_with_its_payload(self, bigquery_fake, caplog):
        bigquery_fake.refuse = lambda row: "no" if "stage" in row else None
        run_to_bigquery(Stream().add(b"unreadable"))
        (record,) = [record for record in caplog.records if record.name == "pipeline.sinks.streaming_inserts"]
        assert record.levelname == "ERROR"
        assert base64.b64encode(b"unreadable").decode() in record.getMessage()

    def test_one_beyond_the_size_of_a_request_is_stored_in_parts(self, bigquery_fake):
        message_of_10_mb = bytes(range(256)) * 39_062
        run_to_bigquery(Stream().add(message_of_10_mb))
        check_parts(bigquery_fake.rows("readings_dead_letters"), "NotJson", message_of_10_mb)


class TestSilences:
    SILENCES = TableId("test-project", "d", "readings_silences")

    def test_are_stored_and_one_that_is_refused_becomes_a_dead_letter_of_its_own_stage(self, bigquery_fake):
        bigquery_fake.refuse = lambda row: "no" if row.get("SilentSince") and row["Device"] == "a" else None
        stream = Stream().add(message(0, Temp=1, Device="a")).add(message(60, Temp=1, Device="a"))
        run_through(
            stream.watermark(120).end(),
            streaming_inserts.BigQueryRows(ROWS),
            streaming_inserts.BigQueryDeadLetters(LETTERS),
            "--silence_after=30s",
            write_silences=streaming_inserts.Silences(streaming_inserts.BigQueryRows(self.SILENCES), None),
        )
        (stored,) = bigquery_fake.rows("readings_silences")
        assert (stored["Device"], stored["BackAt"]) == (None, "2024-11-22T13:01:00.000000Z")
        (letter,) = bigquery_fake.rows("readings_dead_letters")
        assert (letter["stage"], letter["error"], letter["device"]) == ("silence", "invalid", "a")
        assert letter["event_time"] == "2024-11-22T13:00:00.000000Z"
        refused = json.loads(base64.b64decode(letter["payload"]))
        assert refused == {**stored, "Device": "a", "NoticedAt": refused["NoticedAt"]}

    def test_are_messages_that_say_what_happened_to_whom(self):
        silence = {"Device": "a", "SilentSince": "2024-11-22T13:00:00.000000Z", "NoticedAt": "x", "BackAt": None}
        message = streaming_inserts.silence_message(silence)
        assert (json.loads(message.data), message.attributes) == (silence, {"event": "silent", "device": "a"})
        over = streaming_inserts.silence_message({**silence, "Device": None, "BackAt": "x"})
        assert over.attributes == {"event": "back"}
        long = streaming_inserts.silence_message({**silence, "Device": "é" * 1024})
        long._to_proto_str(for_publish=True)  # Beam's own check of sizes

    def test_when_upserted_the_earliest_end_stays_whatever_comes_last(self):
        noticed_at = "1970-01-01T00:00:00.000005Z"
        silence = {"Device": None, "SilentSince": "2024-11-22T13:00:00.000000Z", "NoticedAt": noticed_at}
        ends = [None, "2024-11-22T14:00:00.000000Z", "2024-11-22T13:30:00.000001Z", "2024-11-22T13:30:00.000000Z"]
        changes = [
            to_change(streaming_inserts.revision_of_silence({**silence, "BackAt": end}), SILENCE_KEY, job_start=16)
            for end in ends
        ]
        assert {(change["Device"], change["_CHANGE_TYPE"]) for change in changes} == {("", "UPSERT")}
        numbers = [tuple(int(part, 16) for part in change["_CHANGE_SEQUENCE_NUMBER"].split("/")) for change in changes]
        assert numbers == sorted(set(numbers))
        assert numbers[0] == (16, 0, 5)


class TestDeadLetterMessages:
    def test_keep_within_the_limits_of_pubsub(self):
        own = {f"a{n:03}": "v" for n in range(98)} | {"stage": "mine", "googclient": "x", "long": "é" * 1000}
        letter = dead_letter("decode", "NotJson", "m" * 2000, b"bad", attributes=own)
        (message,) = streaming_inserts.to_messages(letter)
        message._to_proto_str(for_publish=True)  # Beam's own check of sizes and counts
        assert (message.data, message.attributes["stage"], len(message.attributes)) == (b"bad", "decode", 100)
        assert len(message.attributes["message"]) == 1024
        assert "googclient" not in message.attributes

    def test_are_not_made_of_what_is_too_large_for_one(self):
        assert streaming_inserts.to_messages(dead_letter("decode", "NotJson", "m", b"x" * 9_000_001)) == []


def check_parts(letters: list[dict], error: str, payload: bytes) -> None:
    letters = sorted(letters, key=lambda letter: letter["part"])
    assert [(letter["error"], letter["part"], letter["parts"]) for letter in letters] == [
        (error, n, 3) for n in (1, 2, 3)
    ]
    assert len({letter["dead_letter_id"] for letter in letters}) == 1
    # Compared apart, so that a difference does not print ten megabytes.
    same = b"".join(base64.b64decode(letter["payload"]) for letter in letters) == payload
    assert same


class TestPrinting:
    def test_rows_go_to_stdout_and_dead_letters_to_stderr(self, capfd):
        run_through(
            Stream().add(message(0, Temp=1), b"unreadable").end(),
            streaming_inserts.PrintRows(),
            streaming_inserts.PrintDeadLetters(),
        )
        out, err = capfd.readouterr()
        assert [json.loads(line) for line in out.splitlines()] == [
            {"Timestamp": "2024-11-22T13:00:00.000000Z", "Airtight": None, "AtmP": None, "H2OC": None, "Temp": 1.0}
        ]
        (letter,) = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        assert (letter["part"], letter["parts"]) == (1, 1)
        assert letter["error"] == "NotJson"
