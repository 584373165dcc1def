"""Rows that BigQuery rejected: they become dead letters, and rejected dead letters go to the log."""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics

from pipeline.dead_letters import dead_letter, derived_id, new_id
from pipeline.decode import strict_json
from pipeline.decode.reading import DEVICE
from pipeline.metrics import METRICS
from pipeline.rows import CHANGE_SEQUENCE_NUMBER, WRITTEN_AT

_LOGGER = logging.getLogger(__name__)


class RejectedRow(NamedTuple):
    """A row that BigQuery rejected and would reject again.

    Attributes:
      table: project:dataset.table.
      row: the row that was sent.
      errors: at least one, each with `reason` and `message`.
    """

    table: str
    row: dict[str, Any]
    errors: list[dict[str, Any]]


class RejectedRowsToDeadLetters(beam.PTransform[beam.PCollection[RejectedRow], beam.PCollection[dict[str, Any]]]):
    """Creates a dead letter for each `RejectedRow`, with the row as its payload.

    Args:
      stage: the stage of the dead letters.
      time_column: the column of the row that is the event time.
    """

    def __init__(self, stage: str, time_column: str):
        super().__init__()
        self._stage = stage
        self._time_column = time_column

    def expand(self, rejected: beam.PCollection[Any]) -> beam.PCollection[Any]:
        to_dead_letters = beam.Map(_to_dead_letter, self._stage, self._time_column, job=new_id())
        return rejected | "ToDeadLetters" >> to_dead_letters.with_output_types(Any)


class LogRejectedDeadLetters(beam.PTransform[beam.PCollection[RejectedRow], beam.PCollection[None]]):
    """Writes each `RejectedRow`, which is a dead letter, to the log, with its payload; returns nothing."""

    def expand(self, rejected: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return rejected | "ToLog" >> beam.FlatMap(_log_dead_letter)


def _to_dead_letter(rejected: RejectedRow, stage: str, time_column: str, job: str) -> dict[str, Any]:
    """Return the dead letter of a row. Its id is the same after a retry, and differs from those of other jobs."""
    Metrics.counter(METRICS, "insert_failures").inc()
    table, row, errors = rejected
    return dead_letter(
        stage,
        errors[0]["reason"],
        strict_json.dumps(errors),
        strict_json.dumps(row).encode(),
        dead_letter_id=derived_id(job, table, _without_attempt(row)),
        event_time=row[time_column],
        device=row.get(DEVICE),
    )


def _without_attempt(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without the time at which it was created, which differs when its bundle is retried."""
    same = {name: value for name, value in row.items() if name != WRITTEN_AT}
    if CHANGE_SEQUENCE_NUMBER in same:
        same[CHANGE_SEQUENCE_NUMBER] = same[CHANGE_SEQUENCE_NUMBER].rpartition("/")[0]
    return same


def _log_dead_letter(rejected: RejectedRow) -> Iterator[None]:
    Metrics.counter(METRICS, "dead_letter_failures").inc()
    errors, rejected_dead_letter = strict_json.dumps(rejected.errors), strict_json.dumps(rejected.row)
    _LOGGER.error("dead letter not written (%s): %s", errors, rejected_dead_letter)
    yield from ()
