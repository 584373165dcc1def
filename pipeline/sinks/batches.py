"""Rows of a bundle, collected into requests."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from pipeline.sinks.bigquery import TableId
from pipeline.sinks.rejected_rows import RejectedRow

# BigQuery's errors of a row, each with `reason` and `message`.
RowErrors = list[dict[str, Any]]


class WriteInBatches(beam.DoFn, ABC):
    """Stores the rows of a bundle in as few requests as possible; yields a `RejectedRow` for each that is not stored.

    A bundle ends when each of its rows is stored or rejected. Subclasses call `add` for each row, and implement
    `store`.

    Args:
      table_id: the table.
      max_rows: the most rows of a request; None for no limit.
    """

    # Bytes that the rows of a request may have. A subclass sets it, in `setup` at the latest.
    max_bytes: int

    def __init__(self, table_id: TableId, max_rows: int | None = None):
        self.table_id = table_id
        self._max_rows = max_rows

    @abstractmethod
    def store(self, rows: Sequence[dict[str, Any]], encoded: Sequence[Any]) -> dict[int, RowErrors]:
        """Store rows, retrying transient failures, until each is stored or rejected.

        Args:
          rows: the rows of a request.
          encoded: the argument `encoded` of `add` for each row.

        Returns:
          The errors of the rows that BigQuery rejects, by their index.
        """

    def start_bundle(self) -> None:
        """Begin an empty batch; that of an earlier bundle still has rows if the bundle failed."""
        self._begin_batch()

    def add(self, row: dict[str, Any], encoded: Any, size: int) -> list[RejectedRow]:
        """Add a row of `size` bytes, after storing the batch if the row does not fit into it; return rejected rows."""
        if size > self.max_bytes:
            return [self.rejected(row, "RowTooLarge", f"{size} bytes; a request holds {self.max_bytes}")]
        full = len(self._rows) == self._max_rows or self._size + size > self.max_bytes
        rejected = self._store_batch() if full else []
        self._rows.append(row)
        self._encoded.append(encoded)
        self._size += size
        return rejected

    def finish_bundle(self) -> Iterator[Any]:
        """Store the rows that are left."""
        for rejected in self._store_batch():
            yield GlobalWindows.windowed_value(rejected, Timestamp.now())

    def rejected(self, row: dict[str, Any], reason: str, message: str) -> RejectedRow:
        """Return the `RejectedRow` of a row that is not sent."""
        return RejectedRow(str(self.table_id), row, [{"reason": reason, "message": message}])

    def _begin_batch(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._encoded: list[Any] = []
        self._size = 0

    def _store_batch(self) -> list[RejectedRow]:
        rows, encoded = self._rows, self._encoded
        self._begin_batch()
        if not rows:
            return []
        errors = self.store(rows, encoded)
        return [RejectedRow(str(self.table_id), rows[index], errors[index]) for index in sorted(errors)]
