"""What the columns of a table of rows mean."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from google.cloud import bigquery

from pipeline.decode.decoder import DEVICE, TIMESTAMP
from pipeline.errors import SensorStreamError
from pipeline.sinks.bigquery import TableId

REVISION, WRITTEN_AT = "Revision", "WrittenAt"

MEAN, MIN, MAX = "mean", "min", "max"
# Those that a job can be asked for.
STATISTICS = (MEAN, "count", MIN, MAX, "sum", "stddev", "first", "last")

# Each has a chart; a table may have thousands of columns.
MOST_SENSORS = 50

# BigQuery answers with the standard type's name on some routes and the legacy one on others.
_TYPES = {"FLOAT64": "FLOAT", "INT64": "INTEGER"}


class TableProblem(SensorStreamError):
    """A table cannot be shown; the text is one sentence for whoever looks at the page."""


@dataclass(frozen=True)
class Sensor:
    """A sensor, its unit if the column of it has a description, and the statistics that the table has of it."""

    name: str
    unit: str = ""
    statistics: tuple[str, ...] = (MEAN,)

    def column(self, statistic: str) -> str:
        """Return the column of a statistic, named as `pipeline.aggregate.statistics` names it."""
        return self.name if statistic == MEAN else f"{self.name}_{statistic}"

    @property
    def line(self) -> str:
        """The column that the chart draws as a line: the mean, or else the first statistic."""
        return self.column(MEAN if MEAN in self.statistics else self.statistics[0])

    @property
    def has_range(self) -> bool:
        """Whether the table has the least and the greatest value."""
        return {MIN, MAX} <= set(self.statistics)


@dataclass(frozen=True)
class Columns:
    """What a table of rows holds; `more` is how many sensors it has beyond the first MOST_SENSORS, which are shown."""

    sensors: tuple[Sensor, ...]
    device: bool = False
    revised: bool = False
    more: int = 0

    @classmethod
    def of(
        cls,
        table: TableId,
        schema: Iterable[bigquery.SchemaField],
        sensors: Sequence[str] = (),
        statistics: Sequence[str] = (MEAN,),
    ) -> Self:
        """Read a schema with the job's parameters `sensors` and `statistics`.

        Which columns are statistics is never concluded from their names, since a sensor may be named Pulse_count: by
        default each FLOAT column is a sensor.

        Raises:
          TableProblem: it is not one of the pipeline's tables of rows, or lacks a column.
        """
        # BigQuery takes names that differ only by case for the same.
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
        """Every column a row is shown with, in the order of the page."""
        return (TIMESTAMP, *([DEVICE] if self.device else []), *self.values)
