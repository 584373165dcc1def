"""From partial sums to rows of means."""

import json
import math
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import PaneInfoTiming

from pipeline.dead_letters import DEAD_LETTERS, METRICS, dead_letter, rfc3339, to_dead_letters
from pipeline.readings import DEVICE, TIMESTAMP
from pipeline.sums import CombineSums, Sums
from pipeline.windows import FixedIntervals, SessionIntervals


class AverageRows(beam.PTransform):
    """Combines partial sums and makes one row of means per window and device.

    Input: (device, Sums), windowed by `FoldReadings`.
    Output `rows`: {"Timestamp": RFC 3339, sensor: mean or None, ...[, "Device": name or None]}.
    Output `dead_letters`: one for sums that came after their window was emitted, or whose mean overflows.

    Args:
      sensors: the sensor columns, in table order.
      intervals: how event time was cut into windows.
      by_device: add the column Device.
    """

    def __init__(self, sensors: tuple[str, ...], intervals: FixedIntervals | SessionIntervals, by_device: bool):
        super().__init__()
        self._make_rows = _MakeRows(sensors, intervals, by_device)

    def expand(self, sums: beam.PCollection) -> Any:
        """Apply the combine and the averaging."""
        make_rows = beam.ParDo(self._make_rows).with_output_types(Any, **{DEAD_LETTERS: Any})
        return (
            sums
            | "CombineSums" >> beam.CombinePerKey(CombineSums())
            | "MakeRows" >> make_rows.with_outputs(DEAD_LETTERS, main="rows")
        )


class _MakeRows(beam.DoFn):
    def __init__(self, sensors: tuple[str, ...], intervals: FixedIntervals | SessionIntervals, by_device: bool):
        self._sensors = sensors
        self._intervals = intervals
        self._by_device = by_device
        self._rows = Metrics.counter(METRICS, "rows")
        self._late = Metrics.counter(METRICS, "late_panes")

    def process(
        self, element: tuple[str, Sums], window: Any = beam.DoFn.WindowParam, pane: Any = beam.DoFn.PaneInfoParam
    ) -> list[Any]:
        device, sums = element
        row_time = rfc3339(self._intervals.row_time(window).micros)
        if pane.timing == PaneInfoTiming.LATE:
            self._late.inc()
            message = "these readings came after the row of their interval was emitted"
            return [_sums_letter("late", "Late", message, row_time, device, sums)]
        means = {name: total / count for name, (total, count) in sums.items()}
        if not all(map(math.isfinite, means.values())):
            message = "the sum of these readings exceeds a 64-bit float"
            return [_sums_letter("average", "Overflow", message, row_time, device, sums)]
        self._rows.inc()
        row = {TIMESTAMP: row_time, **{name: means.get(name) for name in self._sensors}}
        return [{**row, DEVICE: device or None} if self._by_device else row]


def _sums_letter(
    stage: str, error: str, message: str, row_time: str, device: str, sums: Sums
) -> beam.pvalue.TaggedOutput:
    readings = {name: {"sum": total, "count": count} for name, (total, count) in sums.items()}
    payload = json.dumps({TIMESTAMP: row_time, DEVICE: device or None, "readings": readings}).encode()
    return to_dead_letters(dead_letter(stage, error, message, payload, event_time=row_time, device=device))
