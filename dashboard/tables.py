"""Names of tables, and what the columns of a table of rows mean."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from google.cloud import bigquery

TIMESTAMP, DEVICE, REVISION, WRITTEN_AT = "Timestamp", "Device", "Revision", "WrittenAt"

# What a column <Sensor>_<statistic> may hold beside the mean, which has the sensor's own name.
STATISTICS = ("count", "min", "max", "sum", "stddev", "first", "last")

# A domain-scoped project (example.com:project) has a colon of its own.
_TABLE = re.compile(r"([a-z][-a-z0-9:.]{4,61}[a-z0-9])[:.](\w{1,1024})\.([\w-]{1,1024})", re.ASCII).fullmatch

# BigQuery answers with the standard type's name on some routes and the legacy one on others.
_TYPES = {"FLOAT64": "FLOAT", "INT64": "INTEGER"}


class TableProblem(Exception):
    """A table cannot be shown; the text is one sentence for whoever looks at the page."""


@dataclass(frozen=True)
class TableName:
    """A table's full name."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `project:dataset.table` or `project.dataset.table`.

        Raises:
          ValueError: it is neither.
        """
        match = _TABLE(text)
        if not match:
            raise ValueError(f"{text!r} is not project:dataset.table, for example my-project:sensors.readings")
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    @property
    def sql(self) -> str:
        """The name as SQL writes it, quoted."""
        return f"`{self.project}.{self.dataset}.{self.table}`"

    @property
    def reference(self) -> bigquery.TableReference:
        """The name as BigQuery's client takes it."""
        return bigquery.DatasetReference(self.project, self.dataset).table(self.table)


@dataclass(frozen=True)
class Columns:
    """What a table of rows holds.

    `sensors` and `statistics` are in table order; `units` is a sensor's column description, where it has one.
    """

    sensors: tuple[str, ...]
    statistics: tuple[str, ...] = ()
    device: bool = False
    revised: bool = False
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: TableName, schema: Iterable[bigquery.SchemaField]) -> Self:
        """Read a schema: FLOAT columns are sensors, but for the statistics of one.

        Raises:
          TableProblem: it is not one of the pipeline's tables of rows.
        """
        types = {column.name: _TYPES.get(column.field_type, column.field_type) for column in schema}
        if types.get(TIMESTAMP) != "TIMESTAMP":
            raise TableProblem(f"Table {table} has no column {TIMESTAMP} of type TIMESTAMP: is it a table of rows?")
        floats = [name for name, kind in types.items() if kind == "FLOAT"]
        owner = {f"{sensor}_{statistic}": sensor for sensor in floats for statistic in STATISTICS}
        sensors = tuple(name for name in floats if name not in owner)
        if not sensors:
            raise TableProblem(f"Table {table} has no FLOAT column, so there is no sensor to show.")
        return cls(
            sensors,
            tuple(name for name, kind in types.items() if name in owner and kind in ("FLOAT", "INTEGER")),
            types.get(DEVICE) == "STRING",
            {REVISION, WRITTEN_AT} <= types.keys(),
            {column.name: column.description for column in schema if column.name in sensors and column.description},
        )

    @property
    def counts(self) -> tuple[str, ...]:
        """The columns that say how many readings a mean is made of."""
        return tuple(name for name in self.statistics if name.endswith("_count"))

    @property
    def shown(self) -> tuple[str, ...]:
        """Every column a row is shown with, in the order of the page."""
        return (TIMESTAMP, *([DEVICE] if self.device else []), *self.sensors, *self.statistics)
