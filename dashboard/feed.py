"""What the page shows, asked for once however many look at it, and not at all while nobody does."""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import msgspec
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from requests.exceptions import RequestException

from dashboard import charts
from dashboard.queries import Snapshot, Source, refresh
from dashboard.tables import TableProblem
from pipeline.launch import one_line
from pipeline.launch.credentials import credentials_problem, root_cause
from pipeline.sinks.bigquery import client

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Balance:
    """Where all readings went, as counted outside of BigQuery; None is not known."""

    published: int | None = None
    averaged: int | None = None
    dead_lettered: int | None = None
    duplicates: int | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON object of these numbers.

        Raises:
          TableProblem: the file cannot be read, or is something else.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TableProblem(
                f"The balance in {one_line.value(str(path))} cannot be read: {one_line.reason(error)}."
            ) from None


class Feed:
    """The newest snapshot of the tables.

    `problem` is one sentence if the last look failed, else empty; `snapshot` is then the one before it, or None.
    `charts` are its charts, as the browser fetches them. `looks` counts the looks.

    Args:
      source: what to show.
      refresh: from the end of a look to the next one.
      balance: a file with numbers that BigQuery does not know, or None.
      watched: whether anybody looks at the page.
    """

    def __init__(self, source: Source, refresh: timedelta, balance: Path | None, watched: Callable[[], bool]):
        self.source = source
        self.snapshot: Snapshot | None = None
        self.charts = b""
        self.balance = Balance() if balance else None
        self.problem = ""
        self.looks = 0
        self._refresh = refresh
        self._balance_file = balance
        self._watched = watched
        self._client: bigquery.Client | None = None
        self._arrived = asyncio.Event()

    def arrive(self) -> None:
        """Say that somebody has come to look; may be said any number of times."""
        self._arrived.set()

    async def run(self) -> None:
        """Look every `refresh` for as long as anybody watches; never ends."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._watched():
                await self.look()
                await asyncio.sleep(self._refresh.total_seconds())

    async def look(self) -> None:
        """Read the tables."""
        try:
            self.snapshot, self.charts = await asyncio.to_thread(self._read)
            self.problem = ""
        except TableProblem as problem:
            self.problem = str(problem)
        except Exception as error:
            self.problem = explain(error, self.source)
        self.looks += 1

    def _read(self) -> tuple[Snapshot, bytes]:
        if self._balance_file:
            self.balance = Balance.read(self._balance_file)
        self._client = self._client or client(self.source.project)
        snapshot = refresh(self._client, self.source)
        return snapshot, charts.encoded(snapshot)


def explain(error: Exception, source: Source) -> str:
    """Return one sentence: what went wrong, and the fix."""
    table = source.rows
    cause = root_cause(error)
    reason = one_line.reason(getattr(cause, "message", "") or cause or type(cause).__name__).rstrip(".")
    reason = re.sub(r"^[A-Z]+ https?://\S+: ", "", reason)
    if problem := credentials_problem(cause):
        return problem
    if isinstance(cause, NotFound):
        return f"There is no such table ({reason}): check the name, or wait until the pipeline has made it."
    # A quota that is used up is forbidden, too.
    if isinstance(cause, Forbidden) and "quota" not in reason.lower():
        return (
            f"No permission to read table {table} ({reason}): this needs roles/bigquery.dataViewer on dataset "
            f"{table.dataset} and roles/bigquery.jobUser on project {source.project}."
        )
    if isinstance(cause, GoogleAPIError) and "bytes billed" in reason.lower():
        return f"A refresh would scan too much ({reason}): shorten --span, or raise --max-bytes."
    if isinstance(cause, GoogleAPIError | GoogleAuthError | RequestException | OSError | TimeoutError):
        at = datetime.now(UTC)
        return f"BigQuery does not answer as it should, last tried at {at:%H:%M:%S} UTC ({reason})."
    log.error("A look at %s failed", table, exc_info=cause)
    return f"The page has failed to read table {table} ({type(cause).__name__}); its log has more."
