"""Rows and dead letters through BigQuery's streaming inserts, `tabledata.insertAll`.

Beam's WriteToBigQuery is not used: it sees the HTTP phrase of a failed request rather than BigQuery's reason, retries a
bad row along with the good ones, and fails the bundle when an outage outlasts the client library's ten minutes.
"""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import TransportError
from google.cloud import bigquery
from requests.exceptions import RequestException

from pipeline.dead_letters import in_parts, new_id
from pipeline.decode import strict_json
from pipeline.sinks.batches import RowErrors, WriteInBatches
from pipeline.sinks.bigquery import TableId, client
from pipeline.sinks.rejected_rows import LogRejectedDeadLetters, RejectedRow
from pipeline.sinks.retry import RETRY_TRANSIENT, TransientError

# Bytes and rows of a request. BigQuery allows 10 MB and 50,000 rows, and recommends 500 rows:
# https://cloud.google.com/bigquery/quotas#streaming_inserts
MAX_REQUEST = 9_000_000
MAX_ROWS = 500

# Characters that a request needs for a row besides the row itself: {"json": , "insertId": 32 to 40 characters}.
_ROW_OVERHEAD = 70

_TIMEOUT_SECONDS = 60.0

# Buckets of the Reshuffle before the insert. Fewer give requests of more rows, more give more requests at a time.
_GROUPS = 500

# Errors of a streaming insert that a retry may resolve: https://cloud.google.com/bigquery/docs/error-messages
_TRANSIENT_STATUS = frozenset([408, 429, 500, 502, 503, 504])
_TRANSIENT_REASONS = frozenset(
    ["backendError", "internalError", "quotaExceeded", "rateLimitExceeded", "tableUnavailable", "timeout", "stopped"]
)


class InsertRows(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[RejectedRow]]):
    """Appends rows to an existing table; returns a `RejectedRow` for each that BigQuery rejects.

    After the Reshuffle a retried bundle has the same rows and insert ids, by which BigQuery recognises rows it has.
    """

    def __init__(self, table_id: TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return (
            rows
            | "AddInsertIds" >> beam.Map(lambda row: (new_id(), row)).with_output_types(tuple[str, Any])
            | "Reshuffle" >> beam.Reshuffle(num_buckets=_GROUPS)
            | "Insert" >> beam.ParDo(_Insert(self._table_id))
        )


class InsertDeadLetters(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[None]]):
    """Appends dead letters to an existing table; those that BigQuery rejects go to the log with their payload."""

    def __init__(self, table_id: TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, dead_letters: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return (
            dead_letters
            | "InParts" >> beam.FlatMap(in_parts).with_output_types(Any)
            | "AddInsertIds" >> beam.Map(lambda part: (_id_of_part(part), part)).with_output_types(tuple[str, Any])
            | "Insert" >> beam.ParDo(_Insert(self._table_id))
            | "Log" >> LogRejectedDeadLetters()
        )


def _id_of_part(part: dict[str, Any]) -> str:
    return f"{part['dead_letter_id']}-{part['part']}"


class _Insert(WriteInBatches):
    """Inserts (insert id, row)."""

    max_bytes = MAX_REQUEST

    def __init__(self, table_id: TableId):
        super().__init__(table_id, MAX_ROWS)

    def setup(self) -> None:
        # Here because clients do not pickle.
        self._table = TableInserts(client(self.table_id.project), self.table_id)

    def process(self, element: tuple[str, dict[str, Any]]) -> list[Any]:
        insert_id, row = element
        return self.add(row, insert_id, len(strict_json.dumps(row)) + _ROW_OVERHEAD)

    def store(self, rows: Sequence[dict[str, Any]], encoded: Sequence[str]) -> dict[int, RowErrors]:
        return self._table.store(rows, encoded)


class TableInserts:
    """Streaming inserts into a table."""

    def __init__(self, client: bigquery.Client, table_id: TableId):
        self._client = client
        self._table = table_id.reference

    def store(self, rows: Sequence[dict[str, Any]], insert_ids: Sequence[str]) -> dict[int, RowErrors]:
        """Insert rows, retrying transient failures, until each is stored or rejected.

        Args:
          rows: the rows.
          insert_ids: the id of each, the same in every attempt.

        Returns:
          BigQuery's errors by the index of each rejected row.
        """
        waiting = dict(enumerate(zip(insert_ids, rows, strict=True)))
        rejected: dict[int, RowErrors] = {}

        @RETRY_TRANSIENT
        def insert_waiting() -> None:
            errors = self._insert(waiting)
            transient = {index for index, row_errors in errors.items() if _is_transient(row_errors)}
            rejected.update({index: row_errors for index, row_errors in errors.items() if index not in transient})
            for index in waiting.keys() - transient:
                del waiting[index]
            if waiting:
                raise TransientError(f"{len(waiting)} rows: {errors[min(transient)]}")

        insert_waiting()
        return rejected

    def _insert(self, rows: dict[int, tuple[str, dict[str, Any]]]) -> dict[int, RowErrors]:
        """Insert rows once and return the errors of those not stored; raises TransientError if the request failed."""
        try:
            failures = self._client.insert_rows_json(
                self._table,
                [row for _, row in rows.values()],
                row_ids=[insert_id for insert_id, _ in rows.values()],
                skip_invalid_rows=True,
                retry=None,  # type: ignore[arg-type]  # optional, as documented
                timeout=_TIMEOUT_SECONDS,
            )
        except (RequestException, TransportError) as error:
            raise TransientError(str(error)) from None
        except GoogleAPICallError as error:
            errors = _errors_of_request(error)
            if error.code in _TRANSIENT_STATUS or _is_transient(errors):
                raise TransientError(str(error)) from None
            return dict.fromkeys(rows, errors)
        indexes = list(rows)
        return {indexes[failure["index"]]: failure["errors"] for failure in failures}


def _errors_of_request(error: GoogleAPICallError) -> RowErrors:
    reason = error.errors[0]["reason"] if error.errors else type(error).__name__
    return [{"reason": reason, "message": error.message}]


def _is_transient(errors: RowErrors) -> bool:
    return any(error["reason"] in _TRANSIENT_REASONS for error in errors)
