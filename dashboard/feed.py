"""The data of the page: read once per refresh for all viewers, and not at all while there are none."""

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
    """The number of readings in each place, as counted outside of BigQuery; None if it is not known."""

    published: int | None = None
    averaged: int | None = None
    dead_lettered: int | None = None
    duplicates: int | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON object of these numbers.

        Raises:
          TableProblem: the file cannot be read, or is not such an object.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TableProblem(
                f"The balance in {one_line.value(str(path))} cannot be read: {one_line.reason(error)}."
            ) from None


class Feed:
    """The newest snapshot of the tables.

    Attributes:
      snapshot: the result of the last successful refresh, or None.
      charts: its charts as the browser fetches them: JSON, compressed with gzip.
      problem: one sentence if the last refresh failed, else empty.
      refreshes: the number of refreshes so far.

    Args:
      source: the tables and the job's parameters.
      refresh: the time from the end of a refresh to the next one.
      balance: a file with numbers that are not in BigQuery, or None.
      watched: returns whether the page has viewers.
    """

    def __init__(self, source: Source, refresh: timedelta, balance: Path | None, watched: Callable[[], bool]):
        self.source = source
        self.snapshot: Snapshot | None = None
        self.charts = b""
        self.balance = Balance() if balance else None
        self.problem = ""
        self.refreshes = 0
        self._interval = refresh
        self._balance_file = balance
        self._watched = watched
        self._client: bigquery.Client | None = None
        self._has_viewers = asyncio.Event()

    def wake(self) -> None:
        """Start refreshing if that has paused; called when a viewer connects."""
        self._has_viewers.set()

    async def run(self) -> None:
        """Refresh at intervals while there are viewers, and pause while there are none; never returns."""
        while True:
            await self._has_viewers.wait()
            self._has_viewers.clear()
            while self._watched():
                await self.refresh()
                await asyncio.sleep(self._interval.total_seconds())

    async def refresh(self) -> None:
        """Read the tables once."""
        try:
            self.snapshot, self.charts = await asyncio.to_thread(self._read)
            self.problem = ""
        except TableProblem as problem:
            self.problem = str(problem)
        except Exception as error:
            self.problem = explain(error, self.source)
        self.refreshes += 1

    def _read(self) -> tuple[Snapshot, bytes]:
        if self._balance_file:
            self.balance = Balance.read(self._balance_file)
        self._client = self._client or client(self.source.project)
        snapshot = refresh(self._client, self.source)
        return snapshot, charts.encoded(snapshot)


def explain(error: Exception, source: Source) -> str:
    """Return one sentence: the problem, and the fix."""
    table = source.rows
    cause = root_cause(error)
    reason = one_line.reason(getattr(cause, "message", "") or cause or type(cause).__name__).rstrip(".")
    reason = re.sub(r"^[A-Z]+ https?://\S+: ", "", reason)
    if problem := credentials_problem(cause):
        return problem
    if isinstance(cause, NotFound):
        return f"There is no such table ({reason}): check the name, or wait until the pipeline has created it."
    # An exhausted quota has the same status.
    if isinstance(cause, Forbidden) and "quota" not in reason.lower():
        return (
            f"No permission to read table {table} ({reason}): this needs roles/bigquery.dataViewer on dataset "
            f"{table.dataset} and roles/bigquery.jobUser on project {source.project}."
        )
    if isinstance(cause, GoogleAPIError) and "bytes billed" in reason.lower():
        return f"A refresh would scan too much ({reason}): shorten --span, or raise --max-bytes."
    if isinstance(cause, GoogleAPIError | GoogleAuthError | RequestException | OSError | TimeoutError):
        at = datetime.now(UTC)
        return f"BigQuery cannot be reached or failed, last tried at {at:%H:%M:%S} UTC ({reason})."
    log.error("Reading table %s failed", table, exc_info=cause)
    return f"The page failed to read table {table} ({type(cause).__name__}); its log has the details."
