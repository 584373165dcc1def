"""The sinks of the Storage Write API: against a strict server in this process that fails on command."""

import base64
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.api_core.exceptions import RetryError
from google.cloud.bigquery import SchemaField

from local.stack.bigquery_server import append as server
from local.stack.bigquery_server.append import StorageWriteServer
from local.stack.bigquery_server.tables import MemoryTables
from pipeline.aggregate.statistics import STATISTICS, Statistics
from pipeline.dead_letters import dead_letter
from pipeline.launch import tables
from pipeline.sinks import append_stream, retry, storage_write
from pipeline.sinks.bigquery import TableId
from pipeline.sinks.rejected_rows import RejectedRowsToDeadLetters
from pipeline.sinks.retry import TransientError
from pipeline.sinks.storage_write import Encoder, to_change
from tests.pipeline.conftest import Stream, message, run_through

ROWS = TableId("test-project", "d", "readings")
DEAD_LETTERS = TableId("test-project", "d", "readings_dead_letters")
NOON = datetime(2024, 11, 22, 13, tzinfo=UTC)
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
COLUMNS = tables.row_columns(SENSORS, by_device=False, revise=False)
BY_DEVICE = tables.row_columns(SENSORS, by_device=True, revise=False)
JOB_START = 0x18F2EBB6480
SESSIONS = ("--window=session", "--session_gap=10s", "--on_late=revise", "--allowed_lateness=60s")


class BigQuery:
    """Tables in memory behind a StorageWriteServer."""

    def __init__(self, port: int = 0) -> None:
        self.tables = MemoryTables()
        self.server = StorageWriteServer(self.tables, port)
        self.faults = self.server.faults
        self.create(DEAD_LETTERS, tables.DEAD_LETTER_COLUMNS)

    def create(self, table_id: TableId, columns: tuple[SchemaField, ...], *key: str) -> None:
        self.tables.create(f"{table_id.project}.{table_id.dataset}.{table_id.table}", columns, primary_key=key)

    def rows(self, table_id: TableId) -> list[dict]:
        return self.tables.rows[f"{table_id.project}.{table_id.dataset}.{table_id.table}"]

    @property
    def temps(self) -> list[tuple[int, float | None]]:
        """(seconds after NOON, Temp) of each row, in order."""
        return sorted(((row["Timestamp"] - NOON) // timedelta(seconds=1), row.get("Temp")) for row in self.rows(ROWS))

    @property
    def dead_letters(self) -> list[dict]:
        return self.rows(DEAD_LETTERS)

    def calls(self, table_id: TableId) -> set[int]:
        return {one.call for one in self.server.requests if one.table.endswith(f".{table_id.table}")}


class Cable:
    """A connection to a server at 127.0.0.1:PORT; clients connect to `host`. After `cut` it swallows all data."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._cut = threading.Event()  # of the connections so far
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop all further data of the present connections, without closing them."""
        self._cut.set()
        self._cut = threading.Event()

    def _accept(self) -> None:
        address, _, port = self._server.partition(":")
        while True:
            one, _ = self._listener.accept()
            other = socket.create_connection((address, int(port)))
            for source, target in ((one, other), (other, one)):
                threading.Thread(target=self._carry, args=(source, target, self._cut), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not cut.is_set():
                    target.sendall(data)


@pytest.fixture
def bigquery(monkeypatch) -> Iterator[BigQuery]:
    bigquery = BigQuery()
    with bigquery.server:
        monkeypatch.setenv(append_stream.EMULATOR, bigquery.server.host)
        yield bigquery


def append(stream: Stream, *flags: str) -> None:
    dead_letters = storage_write.AppendDeadLetters(DEAD_LETTERS, tables.DEAD_LETTER_COLUMNS)
    run_through(stream.end(), storage_write.AppendRows(ROWS, COLUMNS), dead_letters, *flags)


def upsert(stream: Stream, *flags: str, job_start: int = JOB_START, by_device: bool = False) -> None:
    columns, key = (BY_DEVICE if by_device else COLUMNS), tables.row_key(by_device)
    rows = storage_write.UpsertRows(ROWS, columns, key, job_start)
    dead_letters = storage_write.AppendDeadLetters(DEAD_LETTERS, tables.DEAD_LETTER_COLUMNS)
    grouping = ["--group_by_device=true"] if by_device else []
    run_through(stream.end(), rows, dead_letters, "--write_method=upsert", *grouping, *flags)


def write(rows: list[dict], columns: tuple[SchemaField, ...] = COLUMNS) -> None:
    """Append rows as one bundle."""
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        rejected = pipeline | beam.Create([rows]) | beam.FlatMap(list) | storage_write.AppendRows(ROWS, columns)
        dead_letters = rejected | RejectedRowsToDeadLetters("insert", "Timestamp")
        _ = dead_letters | storage_write.AppendDeadLetters(DEAD_LETTERS, tables.DEAD_LETTER_COLUMNS)


def row(seconds: int, temp: float, **more: object) -> dict:
    return {"Timestamp": f"2024-11-22T13:00:{seconds:02}.000000Z", "Temp": temp, **more}


def payload(dead_letter: dict) -> dict:
    return json.loads(dead_letter["payload"])


class TestAppendRows:
    @pytest.fixture(autouse=True)
    def table(self, bigquery):
        bigquery.create(ROWS, COLUMNS)

    def test_stores_rows_of_many_windows_once_through_one_connection(self, bigquery):
        stream = Stream()
        for minute in range(8):
            stream.add(*(message(minute * 60 + second, Temp=minute) for second in (0, 15, 30, 45)))
            stream.watermark(minute * 60 + 30)
        append(stream)
        assert bigquery.temps == [(quarter * 15, quarter // 4) for quarter in range(32)]
        assert len(bigquery.calls(ROWS)) == 1

    def test_returns_rejected_row_and_stores_the_others(self, bigquery):
        bigquery.faults.refuse_rows(lambda table, row: "too hot" if row.get("Temp", 0) > 90 else None)
        write([row(0, 1), row(15, 99), row(30, 3), row(45, 98)])
        assert bigquery.temps == [(0, 1.0), (30, 3.0)]
        assert sorted(payload(found)["Temp"] for found in bigquery.dead_letters) == [98, 99]
        for found in bigquery.dead_letters:
            assert (found["stage"], found["error"]) == ("insert", "FIELDS_ERROR")
            assert "too hot" in found["message"]
            assert found["event_time"] == NOON + timedelta(seconds=15 if payload(found)["Temp"] == 99 else 45)

    def test_returns_rejected_row_when_its_error_code_is_unknown(self, bigquery, monkeypatch):
        monkeypatch.setattr(server, "FIELDS_ERROR", 99)
        bigquery.faults.refuse_rows(lambda table, row: "too new" if "Temp" in row else None)
        write([row(0, 1)])
        (found,) = bigquery.dead_letters
        assert (found["error"], "too new" in found["message"]) == ("ROW_ERROR_CODE_UNSPECIFIED", True)

    @pytest.mark.parametrize(
        ("code", "in_answer"),
        [
            (grpc.StatusCode.UNAVAILABLE, False),
            (grpc.StatusCode.ABORTED, False),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, True),
            (grpc.StatusCode.DEADLINE_EXCEEDED, False),
            (grpc.StatusCode.INTERNAL, False),
            (grpc.StatusCode.INTERNAL, True),
            (grpc.StatusCode.CANCELLED, False),
        ],
    )
    def test_retries_request_when_failure_is_transient(self, bigquery, code, in_answer):
        bigquery.faults.fail(code, times=2, table="readings", in_answer=in_answer)
        write([row(0, 1)])
        assert bigquery.temps == [(0, 1.0)]
        assert bigquery.dead_letters == []

    def test_opens_connection_again_when_it_ends_without_response(self, bigquery):
        bigquery.faults.fail(None, times=2, table="readings")
        write([row(0, 1)])
        assert bigquery.temps == [(0, 1.0)]
        assert len(bigquery.calls(ROWS)) == 3

    def test_stores_row_twice_when_response_is_lost(self, bigquery):
        bigquery.faults.fail(grpc.StatusCode.UNAVAILABLE, table="readings", stored=True)
        write([row(0, 1)])
        assert bigquery.temps == [(0, 1.0), (0, 1.0)]

    def test_reconnects_when_server_goes_away(self, bigquery):
        write([row(0, 1)])
        bigquery.server.go_away()
        write([row(15, 2)])
        assert bigquery.temps == [(0, 1.0), (15, 2.0)]

    @pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT])
    @pytest.mark.parametrize("in_answer", [False, True])
    def test_returns_all_rows_when_request_is_rejected(self, bigquery, code, in_answer):
        bigquery.faults.fail(code, table="readings", in_answer=in_answer)
        append(Stream().add(message(0, Temp=1)).watermark(20).add(message(30, Temp=2)))
        assert bigquery.temps == [(30, 2.0)]
        (found,) = bigquery.dead_letters
        assert (found["stage"], found["error"], payload(found)["Temp"]) == ("insert", code.name, 1.0)

    def test_returns_row_that_exceeds_request(self, bigquery):
        columns = (*COLUMNS, SchemaField("note", "STRING"))
        bigquery.create(ROWS, columns)
        write(
            [row(0, 1, note="n" * 9_999_950), row(15, 2, note="n" * 9_000_000), row(30, 3, note="n" * 9_000_000)],
            columns,
        )
        assert bigquery.temps == [(15, 2.0), (30, 3.0)]
        assert {found["error"] for found in bigquery.dead_letters} == {"RowTooLarge"}

    def test_fills_request_up_to_its_size(self, bigquery):
        columns = (*COLUMNS, SchemaField("note", "STRING"))
        bigquery.create(ROWS, columns)
        write([row(n, n, note="n" * 3_300_000) for n in range(7)], columns)
        assert sorted(one.rows for one in bigquery.server.requests) == [1, 3, 3]
        assert len(bigquery.temps) == 7

    def test_returns_row_that_does_not_fit_the_columns(self, bigquery):
        write([row(0, 1, Humidity=3.0), row(15, "hot"), row(30, 3)])
        assert bigquery.temps == [(30, 3.0)]
        assert {found["error"] for found in bigquery.dead_letters} == {"BadRow"}


class TestAppendRowsToWrongTable:
    def test_returns_rows_when_table_is_missing(self, bigquery):
        write([row(0, 1)])
        (found,) = bigquery.dead_letters
        assert found["error"] == "NOT_FOUND"
        assert "Requested entity was not found" in found["message"]

    def test_returns_rows_when_column_is_missing(self, bigquery):
        bigquery.create(ROWS, COLUMNS[:-1])
        write([row(0, 1)])
        (found,) = bigquery.dead_letters
        assert found["error"] == "INVALID_ARGUMENT"
        assert "extra fields: 'Temp'" in found["message"]


class TestUpsertRows:
    @pytest.fixture(autouse=True)
    def table(self, bigquery):
        bigquery.create(ROWS, COLUMNS, "Timestamp")

    def test_stores_row_once_when_response_is_lost(self, bigquery):
        bigquery.faults.fail(grpc.StatusCode.UNAVAILABLE, table="readings", stored=True, times=3)
        upsert(Stream().add(message(0, Temp=1), message(15, Temp=2)))
        assert bigquery.temps == [(0, 1.0), (15, 2.0)]

    def test_replaces_row_when_it_is_revised(self, bigquery):
        stream = Stream().add(message(1, Temp=1)).watermark(20).add(message(2, Temp=3)).add(message(3, Temp=8))
        upsert(stream, "--on_late=revise")
        assert bigquery.temps == [(0, 4.0)]
        assert set(bigquery.rows(ROWS)[0]) == {"Timestamp", "Temp"}

    def test_keeps_row_of_the_job_that_started_last(self, bigquery):
        revised = Stream().add(message(1, Temp=1)).watermark(20).add(message(2, Temp=3))
        upsert(revised, "--on_late=revise")
        upsert(Stream().add(message(1, Temp=10)), job_start=JOB_START + 1)
        assert bigquery.temps == [(0, 10.0)]
        upsert(Stream().add(message(1, Temp=20)), job_start=JOB_START - 1)
        assert bigquery.temps == [(0, 10.0)]

    def test_deletes_row_when_its_session_was_joined(self, bigquery):
        stream = Stream().add(message(0, Temp=1), message(16, Temp=3)).watermark(40).add(message(8, Temp=5))
        upsert(stream, *SESSIONS)
        assert bigquery.temps == [(26, 3.0)]

    def test_leaves_one_row_when_sessions_are_revised_repeatedly(self, bigquery):
        stream = Stream().add(message(0, Temp=1)).watermark(16).add(message(24, Temp=3)).watermark(41)
        stream.add(message(8, Temp=5)).watermark(42).add(message(16, Temp=7)).watermark(43).add(message(30, Temp=9))
        upsert(stream, *SESSIONS)
        assert bigquery.temps == [(40, 5.0)]

    def test_writes_empty_device_when_reading_has_none(self, bigquery):
        bigquery.create(ROWS, BY_DEVICE, "Timestamp", "Device")
        for job_start in (JOB_START, JOB_START + 1):
            stream = Stream().add(message(0, Temp=1, Device="a"), message(1, Temp=2), message(2, Temp=4))
            upsert(stream, job_start=job_start, by_device=True)
        assert sorted((row["Device"], row["Temp"]) for row in bigquery.rows(ROWS)) == [("", 3.0), ("a", 1.0)]

    def test_keeps_row_when_replay_begins_inside_its_interval(self, bigquery):
        messages = [message(second, Temp=second) for second in range(60)]
        upsert(Stream().add(*messages))
        assert bigquery.temps == [(0, 7.0), (15, 22.0), (30, 37.0), (45, 52.0)]
        upsert(Stream().add(*messages[20:]), "--rows_since=2024-11-22T13:00:30Z", job_start=JOB_START + 1)
        assert bigquery.temps == [(0, 7.0), (15, 22.0), (30, 37.0), (45, 52.0)]
        upsert(Stream().add(*messages[20:]), job_start=JOB_START + 2)
        assert (15, 24.5) in bigquery.temps  # what rows_since is for

    def test_returns_change_when_table_has_no_key(self, bigquery):
        bigquery.create(ROWS, COLUMNS)
        upsert(Stream().add(message(0, Temp=1)))
        (found,) = bigquery.dead_letters
        assert "primary keys of the table" in found["message"]
        assert payload(found)["_CHANGE_SEQUENCE_NUMBER"].startswith("18f2ebb6480/0/")


class TestToChange:
    KEY = ("Timestamp", "Device")

    def row(self, **values: object) -> dict:
        written_at = "1970-01-01T00:00:00.000171Z"
        return {"Timestamp": "t", "Temp": 1.0, "Device": "a", "Revision": 26, "WrittenAt": written_at, **values}

    def test_numbers_changes_by_job_start_then_revision_then_time_of_writing(self):
        change = to_change(self.row(), self.KEY, 0xFF)
        assert change == {
            "Timestamp": "t",
            "Temp": 1.0,
            "Device": "a",
            "_CHANGE_TYPE": "UPSERT",
            "_CHANGE_SEQUENCE_NUMBER": "ff/1a/ab",
        }

    def test_lets_later_attempt_win_in_any_order_of_arrival(self, bigquery):
        bigquery.create(ROWS, (*COLUMNS,), "Timestamp")
        first = {**row(0, 1.0), "Revision": 0, "WrittenAt": "2024-11-22T13:00:20.000001Z"}
        retried = {**row(0, 2.0), "Revision": 0, "WrittenAt": "2024-11-22T13:00:20.000002Z"}
        for attempts in ([first, retried], [retried, first]):
            with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
                rows = pipeline | beam.Create([attempts]) | beam.FlatMap(list)
                _ = rows | storage_write.UpsertRows(ROWS, COLUMNS, ("Timestamp",), JOB_START)
            assert bigquery.temps == [(0, 2.0)]

    def test_has_valid_sequence_number_until_the_year_9999(self):
        latest = self.row(Revision=2**63 - 1, WrittenAt="9999-12-31T23:59:59.999999Z")
        number = to_change(latest, self.KEY, job_start=253_402_300_799_999)["_CHANGE_SEQUENCE_NUMBER"]
        # https://cloud.google.com/bigquery/docs/change-data-capture: up to four sections of up to 16 digits.
        assert re.fullmatch("[0-9a-f]{1,16}(/[0-9a-f]{1,16}){0,3}", number)

    def test_deletes_when_row_has_no_values(self):
        change = to_change(self.row(Temp=None, Device=None), self.KEY, 1)
        assert (change["_CHANGE_TYPE"], change["Device"]) == ("DELETE", "")


class TestEncoder:
    def test_accepts_columns_that_have_the_same_json_name(self, bigquery):
        columns = tables.row_columns(("temp_max", "tempMax"), by_device=False, revise=False)
        bigquery.create(ROWS, columns)
        write([{"Timestamp": "2024-11-22T13:00:00Z", "temp_max": 1.0, "tempMax": 2.0}], columns)
        assert bigquery.rows(ROWS) == [{"Timestamp": NOON, "temp_max": 1.0, "tempMax": 2.0}]

    def test_encodes_every_statistic(self, bigquery):
        columns = tables.row_columns(("Temp",), by_device=False, revise=False, statistics=Statistics(list(STATISTICS)))
        bigquery.create(ROWS, columns)
        values = {"Temp": 2, "Temp_count": 3, "Temp_min": 1.0, "Temp_max": 3.0, "Temp_sum": 6, "Temp_stddev": None}
        write([{"Timestamp": "2024-11-22T13:00:00Z", **values, "Temp_first": 1.0, "Temp_last": -0.0}], columns)
        del values["Temp_stddev"]
        assert bigquery.rows(ROWS) == [{"Timestamp": NOON, **values, "Temp_first": 1.0, "Temp_last": 0.0}]


class TestAppendDeadLetters:
    def test_stores_all_columns(self, bigquery):
        known = {
            "attributes": {"k": "v"},
            "message_id": "id",
            "event_time": "2024-11-22T13:00:00.000001Z",
            "device": "d",
        }
        written = dead_letter("decode", "NotJson", "m", b"\x00bad", **known)
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            sink = storage_write.AppendDeadLetters(DEAD_LETTERS, tables.DEAD_LETTER_COLUMNS)
            _ = pipeline | beam.Create([written]) | sink
        (stored,) = bigquery.dead_letters
        assert stored["payload"] == b"\x00bad"
        assert stored["attributes"] == [{"key": "k", "value": "v"}]
        assert stored["event_time"] == NOON + timedelta(microseconds=1)
        same = stored.keys() - {"payload", "attributes", "event_time", "received_at"}
        assert {name: stored[name] for name in same} == {name: written[name] for name in same}

    def test_logs_rejected_dead_letter_with_payload(self, bigquery, caplog):
        bigquery.create(ROWS, COLUMNS)
        bigquery.faults.refuse_rows(lambda table, row: "no" if "stage" in row else None)
        append(Stream().add(b"unreadable", message(0, Temp=1)))
        (record,) = [record for record in caplog.records if record.name == "pipeline.sinks.rejected_rows"]
        assert record.levelname == "ERROR"
        assert base64.b64encode(b"unreadable").decode() in record.getMessage()
        assert bigquery.temps == [(0, 1.0)]

    def test_stores_parts_when_payload_exceeds_request(self, bigquery):
        bigquery.create(ROWS, COLUMNS)
        message_of_10_mb = bytes(range(256)) * 39_062
        append(Stream().add(message_of_10_mb))
        parts = sorted(bigquery.dead_letters, key=lambda found: found["part"])
        assert [(found["part"], found["parts"]) for found in parts] == [(1, 3), (2, 3), (3, 3)]
        same = b"".join(found["payload"] for found in parts) == message_of_10_mb
        assert same


class TestAppendStream:
    @pytest.fixture
    def encoder(self, bigquery) -> Encoder:
        bigquery.create(ROWS, COLUMNS)
        return Encoder(COLUMNS)

    def test_returns_own_response_to_each_thread_of_a_connection(self, bigquery, encoder):
        bigquery.faults.refuse_rows(lambda table, row: f"bad {row['Temp']:.0f}" if row["Temp"] % 2 else None)
        stream = append_stream.AppendStream(ROWS, encoder.schema)
        responses: dict[int, dict] = {}

        def append_some(thread: int) -> None:
            for n in range(thread * 20, thread * 20 + 20):
                responses[n] = stream.append([encoder.encode(row(0, n))])

        threads = [threading.Thread(target=append_some, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {n: [why for _, why in response.values()] for n, response in responses.items()} == {
            n: [f"bad {n}"] if n % 2 else [] for n in range(160)
        }
        assert len(bigquery.calls(ROWS)) == 1

    def test_reports_error_of_a_call_for_the_request_that_ended_it_only(self, bigquery, encoder):
        stream = append_stream.AppendStream(ROWS, encoder.schema)
        stream.append([encoder.encode(row(0, 1))])
        released = bigquery.faults.stall()
        bigquery.faults.fail(grpc.StatusCode.INVALID_ARGUMENT)
        outcomes: list[Exception] = []

        def append_one() -> None:
            try:
                stream.append([encoder.encode(row(0, 2))])
            except (TransientError, append_stream.WriteRejected) as error:
                outcomes.append(error)

        threads = [threading.Thread(target=append_one) for _ in range(5)]
        for thread in threads:
            thread.start()
        while len(stream._call._pending) < 5:
            pass
        released.set()
        for thread in threads:
            thread.join()
        assert sorted(type(error).__name__ for error in outcomes) == ["TransientError"] * 4 + ["WriteRejected"]

    def test_opens_connection_again_when_response_times_out(self, bigquery, encoder, monkeypatch):
        monkeypatch.setattr(append_stream, "_TIMEOUT_SECONDS", 0.1)
        stream = append_stream.AppendStream(ROWS, encoder.schema)
        released = bigquery.faults.stall()
        with pytest.raises(TransientError, match="no response"):
            stream.append([encoder.encode(row(0, 1))])
        released.set()
        monkeypatch.setattr(append_stream, "_TIMEOUT_SECONDS", 30)
        while True:
            try:
                assert stream.append([encoder.encode(row(0, 2))]) == {}
                break
            except TransientError:
                pass
        assert (0, 2.0) in bigquery.temps

    def test_ends_call_when_response_has_no_request(self):
        cancelled = threading.Event()

        class Responses(list):
            cancel = cancelled.set

        transport = SimpleNamespace(append_rows=lambda requests, metadata: Responses(["a response"]))
        call = append_stream._Call(SimpleNamespace(transport=transport), ())
        cancelled.wait()
        with pytest.raises(TransientError):
            call.send("a request").result(timeout=10)

    def test_replaces_connection_that_was_dropped_silently(self, bigquery, encoder, monkeypatch):
        monkeypatch.setattr(append_stream, "_PING_AFTER", 200)
        monkeypatch.setattr(append_stream, "_PING_TIMEOUT", 200)
        cable = Cable(bigquery.server.host)
        monkeypatch.setenv(append_stream.EMULATOR, cable.host)
        stream = append_stream.AppendStream(ROWS, encoder.schema)
        stream.append([encoder.encode(row(0, 1))])
        cable.cut()
        stream.store([encoder.encode(row(15, 2))])
        assert bigquery.temps == [(0, 1.0), (15, 2.0)]

    def test_store_raises_cause_when_timeout_passes_without_service(self, monkeypatch):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv(append_stream.EMULATOR, f"127.0.0.1:{unused.getsockname()[1]}")
        encoder = Encoder(COLUMNS)
        with pytest.raises(RetryError) as ended:
            append_stream.AppendStream(ROWS, encoder.schema).store([encoder.encode(row(0, 1))], timeout=1.0)
        assert isinstance(ended.value.cause, TransientError)
        assert str(ended.value.cause).startswith("UNAVAILABLE: ")

    def test_waits_for_bigquery_when_it_is_not_reachable(self, monkeypatch, caplog):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        monkeypatch.setenv(append_stream.EMULATOR, f"127.0.0.1:{port}")
        with ExitStack() as later:
            started: list[BigQuery] = []

            def start(record: logging.LogRecord) -> bool:
                if not started and "retrying" in record.getMessage():
                    started.append(BigQuery(port))
                    started[0].create(ROWS, COLUMNS)
                    later.enter_context(started[0].server)
                return True

            monkeypatch.setattr(retry._LOGGER, "filters", [start])
            write([row(0, 1)])
            assert started[0].temps == [(0, 1.0)]
