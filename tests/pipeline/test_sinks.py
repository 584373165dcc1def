"""The shipped sinks: against a BigQuery that refuses, and on the terminal."""

import base64
import json

import pytest

from pipeline import sinks
from pipeline.tables import TableId
from tests.pipeline.conftest import Stream, message, run_through
from tests.pipeline.fake_bigquery import fake_bigquery

ROWS = TableId("test-project", "d", "readings")
LETTERS = TableId("test-project", "d", "readings_dead_letters")


@pytest.fixture
def bigquery_fake(monkeypatch):
    with fake_bigquery() as fake:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", fake.host)
        yield fake


def run_to_bigquery(stream: Stream) -> None:
    run_through(stream.end(), sinks.BigQueryRows(ROWS), sinks.BigQueryDeadLetters(LETTERS))


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

    def test_a_passing_failure_is_retried_and_loses_nothing(self, bigquery_fake):
        bigquery_fake.failures = [(503, "backendError")]
        run_to_bigquery(Stream().add(message(0, Temp=1)))
        assert [row["Temp"] for row in bigquery_fake.rows("readings")] == [1.0]
        assert bigquery_fake.rows("readings_dead_letters") == []


class TestBigQueryDeadLetters:
    def test_one_that_is_refused_goes_to_the_log_with_its_payload(self, bigquery_fake, caplog):
        bigquery_fake.refuse = lambda row: "no" if "stage" in row else None
        run_to_bigquery(Stream().add(b"unreadable"))
        (record,) = [record for record in caplog.records if record.name == "pipeline.sinks"]
        assert record.levelname == "ERROR"
        assert base64.b64encode(b"unreadable").decode() in record.getMessage()


class TestPrinting:
    def test_rows_go_to_stdout_and_dead_letters_to_stderr(self, capfd):
        run_through(Stream().add(message(0, Temp=1), b"unreadable").end(), sinks.PrintRows(), sinks.PrintDeadLetters())
        out, err = capfd.readouterr()
        assert [json.loads(line) for line in out.splitlines()] == [
            {"Timestamp": "2024-11-22T13:00:00.000000Z", "Airtight": None, "AtmP": None, "H2OC": None, "Temp": 1.0}
        ]
        (letter,) = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        assert letter["error"] == "NotJson"
