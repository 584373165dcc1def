"""What the page shows, asked for once however many look at it, and not at all while nobody does."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from requests.exceptions import RequestException

from dashboard.queries import Snapshot, Source, client, refresh
from dashboard.tables import TableProblem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Balance:
    """Where all readings went, as somebody outside of BigQuery counts them; None is not known."""

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
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{one.name: None if (n := content.get(one.name)) is None else int(n) for one in fields(cls)})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise TableProblem(f"The balance in {path} cannot be read: {error}.") from None


class Feed:
    """The newest snapshot of the tables.

    `problem` is one sentence if the last look failed, else empty; `snapshot` is then the one before it, or None.
    `looks` counts the looks.

    Args:
      source: what to show.
      balance: a file with numbers that BigQuery does not know, or None.
      watched: whether anybody looks at the page.
    """

    def __init__(self, source: Source, balance: Path | None, watched: Callable[[], bool]):
        self.source = source
        self.snapshot: Snapshot | None = None
        self.balance = Balance()
        self.problem = ""
        self.looks = 0
        self._balance_file = balance
        self._watched = watched
        self._client: bigquery.Client | None = None
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        """Read the tables, unless nobody looks or a look is on its way."""
        if self._looking.locked() or not self._watched():
            return
        async with self._looking:
            try:
                self.snapshot = await asyncio.to_thread(self._read)
                self.problem = ""
            except TableProblem as problem:
                self.problem = str(problem)
            except Exception as error:
                self.problem = explain(error, self.source)
            self.looks += 1

    def _read(self) -> Snapshot:
        if self._balance_file:
            self.balance = Balance.read(self._balance_file)
        self._client = self._client or client(self.source.rows.project)
        return refresh(self._client, self.source)


def explain(error: Exception, source: Source) -> str:
    """Return one sentence: what went wrong, and the fix."""
    table = source.rows
    reason = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split()).rstrip(".")[:300]
    reason = re.sub(r"^[A-Z]+ https?://\S+: ", "", reason)
    if isinstance(error, NotFound):
        return f"There is no such table ({reason}): check the name, or wait until the pipeline has made it."
    if isinstance(error, GoogleAuthError):
        return f"No usable Google Cloud credentials ({reason}): run gcloud auth application-default login."
    # A quota that is used up is forbidden, too.
    if isinstance(error, Forbidden) and "quota" not in reason.lower():
        return (
            f"No permission to read table {table} ({reason}): this needs roles/bigquery.dataViewer on dataset "
            f"{table.dataset} and roles/bigquery.jobUser on project {table.project}."
        )
    if isinstance(error, GoogleAPIError) and "bytes billed" in reason.lower():
        return f"A refresh would scan too much ({reason}): shorten --span, or raise --max-bytes."
    if isinstance(error, GoogleAPIError | RequestException | OSError | TimeoutError):
        at = datetime.now(UTC)
        return f"BigQuery does not answer as it should, last tried at {at:%H:%M:%S} UTC ({reason})."
    log.error("A look at %s failed", table, exc_info=error)
    return f"The page has failed to read table {table} ({type(error).__name__}); its log tells more."
