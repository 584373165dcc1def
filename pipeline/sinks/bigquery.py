"""BigQuery as a worker needs it: a table's name, and the client. What is done before launch is in `tables`."""

import os
import re
from dataclasses import dataclass, replace

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.errors import SensorStreamError

# A project id, in an old organisation with its domain before it: example.com:my-project. The lengths are those that
# Beam's ReadFromPubSub accepts; an emulator takes names longer than Google Cloud's thirty characters.
PROJECT = "([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]"

_TABLE = re.compile(
    f"(?P<project>{PROJECT})[:.](?P<dataset>[A-Za-z0-9_]{{1,1024}})[.](?P<table>[-A-Za-z0-9_]{{1,1024}})"
).fullmatch


class TransientError(SensorStreamError):
    """A write failed in a way that may pass by itself; what it wrote may be stored or not."""


@dataclass(frozen=True)
class TableId:
    """A table's full name."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, text: str) -> "TableId":
        """Read `project:dataset.table` or `project.dataset.table`.

        Raises:
          ValueError: it is neither.
        """
        match = _TABLE(text)
        if not match:
            raise ValueError("expected project:dataset.table, for example my-project:sensors.readings")
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    def with_suffix(self, suffix: str) -> "TableId":
        """Return the table of the same dataset whose name has the suffix appended."""
        return replace(self, table=f"{self.table}{suffix}")

    @property
    def sql(self) -> str:
        """The name as SQL writes it, quoted."""
        return f"`{self.project}.{self.dataset}.{self.table}`"

    @property
    def reference(self) -> bigquery.TableReference:
        """The name as BigQuery's client takes it."""
        return bigquery.DatasetReference(self.project, self.dataset).table(self.table)


def client(project: str) -> bigquery.Client:
    """Return a BigQuery client, of the emulator when BIGQUERY_EMULATOR_HOST is set (http://host:port)."""
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        # The emulator wants no credentials, and looking for some takes google-auth half a minute.
        return bigquery.Client(project, credentials=AnonymousCredentials())
    return bigquery.Client(project)
