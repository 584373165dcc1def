"""Rows of statistics from the sums of intervals."""

import math
import time
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from pipeline.aggregate.statistics import MEANS, Statistics
from pipeline.aggregate.sums import SECOND, Interval, Sums
from pipeline.dead_letters import DEAD_LETTERS, dead_letter, derived_id, new_id
from pipeline.decode import strict_json
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.metrics import METRICS
from pipeline.timestamps import rfc3339
from pipeline.windows import lateness

REVISION, WRITTEN_AT = "Revision", "WrittenAt"

# Pseudo-columns of a row that is upserted: see `storage_write.to_change`.
CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER = "_CHANGE_TYPE", "_CHANGE_SEQUENCE_NUMBER"

_OVERFLOW = "the sum of these readings, or of their squares, exceeds a 64-bit float"


class MakeRows(beam.PTransform[beam.PCollection[Interval], Any]):
    """Creates a row of statistics, by default means, for each device of an `Interval`.

    Output `rows`: {"Timestamp": RFC 3339, sensor: mean or None, ...[, "Device": name or None]}. With `numbered` they
    also have "Revision": int and "WrittenAt": RFC 3339, and a row without values retracts the previous one.
    Output `dead_letters`: one for each device of a late interval, and for sums that exceed a 64-bit float.

    Args:
      sensors: the sensor columns, in table order.
      by_device: add the column Device.
      numbered: add Revision and WrittenAt.
      since: microseconds since the epoch; intervals that begin before it are only counted.
      statistics: the columns of each sensor.
    """

    def __init__(
        self,
        sensors: tuple[str, ...],
        by_device: bool,
        numbered: bool,
        since: int | None = None,
        statistics: Statistics = MEANS,
    ):
        super().__init__()
        self._make_row = _MakeRow(sensors, by_device, numbered, since, statistics)

    def expand(self, intervals: beam.PCollection[Any]) -> Any:
        make_row = beam.ParDo(self._make_row).with_output_types(Any, **{DEAD_LETTERS: Any})
        return intervals | "MakeRow" >> make_row.with_outputs(DEAD_LETTERS, main="rows")


class _MakeRow(beam.DoFn):
    def __init__(
        self, sensors: tuple[str, ...], by_device: bool, numbered: bool, since: int | None, statistics: Statistics
    ):
        # Part of the ids of dead letters, so that they differ from those of other jobs.
        self._job = new_id()
        self._statistics = statistics
        self._columns = {name: [column for column, _ in statistics.columns(name)] for name in sensors}
        self._no_values = dict.fromkeys(column for columns in self._columns.values() for column in columns)
        self._by_device = by_device
        self._numbered = numbered
        self._since = since
        self._rows = Metrics.counter(METRICS, "rows")
        self._late = Metrics.counter(METRICS, "late_intervals")
        self._expired = Metrics.counter(METRICS, "expired_intervals")
        self._revised = Metrics.counter(METRICS, "revised_rows")
        self._overflows = Metrics.counter(METRICS, "overflows")
        self._before_start = Metrics.counter(METRICS, "intervals_before_start")
        self._delay = Metrics.distribution(METRICS, "seconds_to_row")

    def process(self, interval: Interval) -> list[Any]:
        devices = len(interval.sums_of)
        if self._since is not None and interval.begin < self._since:
            self._before_start.inc(devices)
            return []
        row_time = rfc3339(interval.row_time)
        if interval.late:
            (self._late if interval.late == lateness.LATE else self._expired).inc(devices)
            details = interval.revision, "late", interval.late, lateness.MEANINGS[interval.late]
            return [self._dead_letter(row_time, device, sums, *details) for device, sums in interval.sums_of.items()]
        now = int(time.time() * SECOND)
        outputs = [
            self._make(row_time, device, sums, interval.revision, now) for device, sums in interval.sums_of.items()
        ]
        rows = sum(type(output) is dict for output in outputs)
        if rows:
            self._rows.inc(rows)
            self._delay.update((now - interval.end) // SECOND)
            if interval.revision:
                self._revised.inc(rows)
        return outputs

    def _make(self, row_time: str, device: str, sums: Sums, revision: int, now: int) -> Any:
        row: dict[str, Any] = {TIMESTAMP: row_time, **self._no_values}
        for name, columns in self._columns.items():
            if name not in sums:
                continue
            for column, value in zip(columns, self._statistics.values(sums[name]), strict=True):
                if value is not None and not math.isfinite(value):
                    self._overflows.inc()
                    return self._dead_letter(row_time, device, sums, revision, "average", "Overflow", _OVERFLOW)
                row[column] = value
        if self._by_device:
            row[DEVICE] = device or None
        if self._numbered:
            row[REVISION] = revision
            row[WRITTEN_AT] = rfc3339(now)
        return row

    def _dead_letter(
        self, row_time: str, device: str, sums: Sums, revision: int, stage: str, error: str, message: str
    ) -> beam.pvalue.TaggedOutput[str, Any]:
        readings = {name: self._statistics.to_payload(accumulator) for name, accumulator in sums.items()}
        payload = strict_json.dumps({TIMESTAMP: row_time, DEVICE: device or None, "readings": readings}).encode()
        # The sums are not part of the id: a retried bundle may add in another order and round differently.
        identity = derived_id(self._job, stage, error, row_time, device, revision)
        rejected = dead_letter(
            stage, error, message, payload, dead_letter_id=identity, event_time=row_time, device=device
        )
        return beam.pvalue.TaggedOutput(DEAD_LETTERS, rejected)
