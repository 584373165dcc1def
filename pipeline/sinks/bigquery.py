"""Names of BigQuery tables, and the client. `launch.tables` checks and creates tables before launch."""

import os
import re
from dataclasses import dataclass, replace

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

# A project id; in old organisations it follows a domain: example.com:my-project. The lengths are those that Beam's
# ReadFromPubSub accepts; emulators accept names longer than Google Cloud's thirty characters.
PROJECT = "([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]"

_TABLE = re.compile(
    f"(?P<project>{PROJECT})[:.](?P<dataset>[A-Za-z0-9_]{{1,1024}})[.](?P<table>[-A-Za-z0-9_]{{1,1024}})"
).fullmatch


@dataclass(frozen=True)
class TableId:
    """The full name of a table."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, text: str) -> "TableId":
        """Read `project:dataset.table` or `project.dataset.table`.

        Raises:
          ValueError: the text has another form.
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
        """The name in SQL, quoted."""
        return f"`{self.project}.{self.dataset}.{self.table}`"

    @property
    def reference(self) -> bigquery.TableReference:
        """The name as an object of BigQuery's client."""
        return bigquery.DatasetReference(self.project, self.dataset).table(self.table)


def client(project: str) -> bigquery.Client:
    """Return a client of BigQuery, or of an emulator if BIGQUERY_EMULATOR_HOST (http://host:port) is set."""
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        # An emulator needs no credentials, and google-auth takes half a minute to find that there are none.
        return bigquery.Client(project, credentials=AnonymousCredentials())
    return bigquery.Client(project)
