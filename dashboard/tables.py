"""The meaning of the columns of a table of rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from google.cloud import bigquery

from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.errors import SensorStreamError
from pipeline.sinks.bigquery import TableId

# As in pipeline.rows, which imports Beam; the page runs without Beam.
REVISION, WRITTEN_AT = "Revision", "WrittenAt"

MEAN, MIN, MAX = "mean", "min", "max"
# The statistics that a job can compute, as in pipeline.aggregate.statistics, which imports Beam.
STATISTICS = (MEAN, "count", MIN, MAX, "sum", "stddev", "first", "last")

# The most sensors that are shown. Each has a chart, and a table may have thousands of columns.
MOST_SENSORS = 50

# BigQuery returns a type's standard name from some methods and its legacy name from others.
_TYPES = {"FLOAT64": "FLOAT", "INT64": "INTEGER"}


class TableProblem(SensorStreamError):
    """A table cannot be shown; the message is one sentence for the viewers of the page."""


@dataclass(frozen=True)
class Sensor:
    """A sensor, its unit (the description of its column), and its statistics in the table."""

    name: str
    unit: str = ""
    statistics: tuple[str, ...] = (MEAN,)

    def column(self, statistic: str) -> str:
        """Return the name of a statistic's column, as in `pipeline.aggregate.statistics`."""
        return self.name if statistic == MEAN else f"{self.name}_{statistic}"

    @property
    def line(self) -> str:
        """The column that the chart draws as a line: that of the mean, or without it that of the first statistic."""
        return self.column(MEAN if MEAN in self.statistics else self.statistics[0])

    @property
    def has_range(self) -> bool:
        """Whether the table has the columns of the least and the greatest value."""
        return {MIN, MAX} <= set(self.statistics)


@dataclass(frozen=True)
class Columns:
    """The columns of a table of rows; `more` is the number of sensors beyond the MOST_SENSORS that are shown."""

    sensors: tuple[Sensor, ...]
    device: bool = False
    revised: bool = False
    more: int = 0

    @classmethod
    def from_schema(
        cls,
        table: TableId,
        schema: Iterable[bigquery.SchemaField],
        sensors: Sequence[str] = (),
        statistics: Sequence[str] = (MEAN,),
    ) -> Self:
        """Interpret a schema by the job's parameters `sensors` and `statistics`.

        Without `sensors` each FLOAT column is a sensor. Statistics are not recognized by the names of columns, because
        a sensor may be named Pulse_count.

        Raises:
          TableProblem: this is not one of the pipeline's tables of rows, or a column is missing.
        """
        # Names of columns are not case-sensitive in BigQuery.
        fields = {field.name.lower(): field for field in schema}
        types = {name: _TYPES.get(field.field_type, field.field_type) for name, field in fields.items()}
        if types.get(TIMESTAMP.lower()) != "TIMESTAMP":
            raise TableProblem(f"Table {table} has no column {TIMESTAMP} of type TIMESTAMP: is it a table of rows?")
        names = sensors or [fields[name].name for name, kind in types.items() if kind == "FLOAT"]
        if not names:
            raise TableProblem(f"Table {table} has no FLOAT column, so there is no sensor to show.")
        chosen = [Sensor(name, "", tuple(statistics) if sensors else (MEAN,)) for name in names[:MOST_SENSORS]]
        for column in (sensor.column(statistic) for sensor in chosen for statistic in sensor.statistics):
            if types.get(column.lower()) not in ("FLOAT", "INTEGER"):
                raise TableProblem(
                    f"Table {table} has no column {column} of numbers: check --sensors and --statistics."
                )
        return cls(
            tuple(Sensor(one.name, fields[one.line.lower()].description or "", one.statistics) for one in chosen),
            types.get(DEVICE.lower()) == "STRING",
            types.get(REVISION.lower()) == "INTEGER" and types.get(WRITTEN_AT.lower()) == "TIMESTAMP",
            max(0, len(names) - MOST_SENSORS),
        )

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The columns of numbers: the line of each sensor, then the other statistics."""
        lines = [sensor.line for sensor in self.sensors]
        every = (sensor.column(statistic) for sensor in self.sensors for statistic in sensor.statistics)
        return tuple(dict.fromkeys([*lines, *every]))

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """All columns that the page shows, in its order."""
        return (TIMESTAMP, *([DEVICE] if self.device else []), *self.values)
