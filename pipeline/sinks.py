"""Where rows and dead letters end up: BigQuery tables, or the terminal when no table is named.

A sink of rows returns the dead letters of the rows it could not write; a sink of dead letters returns nothing.
"""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.bigquery import BigQueryDisposition, RetryStrategy, WriteToBigQuery
from google.cloud import bigquery

from pipeline import tables
from pipeline.dead_letters import dead_letter
from pipeline.readings import DEVICE, TIMESTAMP

_LOGGER = logging.getLogger(__name__)


class BigQueryRows(beam.PTransform):
    """Appends rows to an existing table; returns a dead letter for each row that BigQuery refuses for good."""

    def __init__(self, table_id: tables.TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return rows | "Insert" >> _Insert(self._table_id) | "ToDeadLetters" >> beam.Map(_insert_letter)


class BigQueryDeadLetters(beam.PTransform):
    """Appends dead letters to an existing table; those BigQuery refuses for good go to the log, payload included."""

    def __init__(self, table_id: tables.TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return letters | "Insert" >> _Insert(self._table_id) | "Log" >> beam.FlatMap(_log_letter)


class PrintRows(beam.PTransform):
    """Prints each row to stdout as a line of JSON; never fails a row."""

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply the printing."""
        return rows | "Print" >> beam.FlatMap(_print_row)


class PrintDeadLetters(beam.PTransform):
    """Prints each dead letter to stderr as a line of JSON."""

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Apply the printing."""
        return letters | "Print" >> beam.FlatMap(_print_letter)


class _Insert(beam.PTransform):
    """Streams dicts into a table; returns (destination, dict, errors) for those that failed for good."""

    def __init__(self, table_id: tables.TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return (
            rows
            | "Stream"
            >> WriteToBigQuery(
                str(self._table_id),
                method=WriteToBigQuery.Method.STREAMING_INSERTS,
                create_disposition=BigQueryDisposition.CREATE_NEVER,
                write_disposition=BigQueryDisposition.WRITE_APPEND,
                # The default retries a bad row for ever, and with it everything behind it.
                insert_retry_strategy=RetryStrategy.RETRY_ON_TRANSIENT_ERROR,
                test_client=_Client(self._table_id.project),
            )
        ).failed_rows_with_errors


class _Client:
    """The one call that streaming inserts need, on a client made where it runs: clients do not pickle.

    Handing it to Beam also keeps Beam from making its older apitools client, which the write never uses.
    """

    def __init__(self, project: str):
        self._project = project
        self._client: bigquery.Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_project": self._project, "_client": None}

    def insert_rows_json(self, *args: Any, **kwargs: Any) -> list[dict]:
        self._client = self._client or tables.client(self._project)
        return self._client.insert_rows_json(*args, **kwargs)


def _insert_letter(failed: tuple[str, dict[str, Any], Any]) -> dict[str, Any]:
    _, row, errors = failed
    reason = errors[0].get("reason", "unknown") if isinstance(errors, list) else "rowTooLarge"
    return dead_letter(
        "insert",
        str(reason),
        json.dumps(errors),
        json.dumps(row).encode(),
        event_time=row[TIMESTAMP],
        device=row.get(DEVICE),
    )


def _log_letter(failed: tuple[str, dict[str, Any], Any]) -> Iterator[None]:
    _, letter, errors = failed
    _LOGGER.error("dead letter not written (%s): %s", json.dumps(errors), json.dumps(letter))
    yield from ()


def _print_row(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    print(json.dumps(row), flush=True)
    yield from ()


def _print_letter(letter: dict[str, Any]) -> Iterator[None]:
    print(json.dumps(letter), file=sys.stderr, flush=True)
    yield from ()
