"""The queries of a refresh: bounded in time, so that BigQuery prunes partitions, in rows and in bytes billed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from dashboard.tables import DEVICE, REVISION, TIMESTAMP, WRITTEN_AT, Columns, TableName

MOST_ROWS = 10_000
MOST_READINGS = 2_000
MOST_KINDS = 50  # of dead letters
PATIENCE = 20.0  # seconds for one answer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS_FROM = 1e11  # a larger number counts milliseconds, as in the pipeline


@dataclass(frozen=True)
class Source:
    """What to show.

    Args:
      rows: the table of rows.
      dead_letters: the table of dead letters; it may be missing.
      readings: a table that a BigQuery subscription of the topic writes messages to, with metadata; or None.
      span: how far to look back.
      max_bytes: refuse a query that would be billed for more.
    """

    rows: TableName
    dead_letters: TableName
    readings: TableName | None
    span: timedelta
    max_bytes: int


@dataclass(frozen=True)
class Kind:
    """Dead letters of one stage and error: how many, and when the newest came."""

    stage: str
    error: str
    letters: int
    newest: datetime


@dataclass(frozen=True)
class Reading:
    """One reading of a message, as published: values by name."""

    time: datetime
    device: str | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Snapshot:
    """What one refresh found, at time `at`.

    `rows` are the newest, newest first, by column. `kinds` is None if there is no table of dead letters. `readings` is
    a sample of those in `messages` messages, None without a table of them. `scanned` is bytes, by table.
    """

    at: datetime
    columns: Columns
    rows: Sequence[Mapping[str, Any]]
    kinds: Sequence[Kind] | None
    readings: Sequence[Reading] | None
    messages: int
    scanned: Mapping[str, int]


def client(project: str) -> bigquery.Client:
    """Return a BigQuery client, of the emulator when BIGQUERY_EMULATOR_HOST is set (http://host:port)."""
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        # The emulator wants no credentials, and looking for some takes google-auth half a minute.
        return bigquery.Client(project, credentials=AnonymousCredentials())
    return bigquery.Client(project)


def refresh(bq: bigquery.Client, source: Source) -> Snapshot:
    """Read the tables.

    Raises:
      TableProblem: the table's columns are not those of rows.
      GoogleAPIError, GoogleAuthError, RequestException: BigQuery refuses, or cannot be reached.
    """
    now = datetime.now(UTC)
    since = now - source.span
    schema = bq.get_table(source.rows.reference, retry=_retry(), timeout=PATIENCE).schema
    columns = Columns.of(source.rows, schema)
    ask = _Asking(bq, since, source.max_bytes)
    rows = ask("rows", rows_sql(source.rows, columns))
    try:
        kinds = [Kind(**row) for row in ask("dead letters", kinds_sql(source.dead_letters))]
    except NotFound:
        kinds = None
    found = ask("readings", readings_sql(source.readings)) if source.readings else None
    readings = None if found is None else [one for row in found for one in unpack(row["data"], columns.sensors)]
    messages = found[0]["messages"] if found else 0
    return Snapshot(now, columns, rows, kinds, readings, messages, ask.scanned)


class _Asking:
    """Runs queries about what came since a moment, and adds up what they scan."""

    def __init__(self, bq: bigquery.Client, since: datetime, max_bytes: int):
        self._bq = bq
        self._config = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter("since", "TIMESTAMP", since)],
            maximum_bytes_billed=max_bytes,
        )
        self.scanned: dict[str, int] = {}

    def __call__(self, what: str, sql: str) -> list[dict[str, Any]]:
        job = self._bq.query(sql, job_config=self._config, retry=_retry(), timeout=PATIENCE, job_retry=None)
        rows = [dict(row) for row in job.result(retry=_retry(), timeout=PATIENCE, job_retry=None)]
        self.scanned[what] = job.total_bytes_processed or 0
        return rows


def rows_sql(table: TableName, columns: Columns) -> str:
    """Return the query for the newest rows; of a revised row its newest revision, less those taken back."""
    names = ", ".join(f"`{name}`" for name in columns.shown)
    query = f"SELECT {names} FROM {table.sql} WHERE {TIMESTAMP} >= @since"
    if columns.revised:
        key = f"{TIMESTAMP}, {DEVICE}" if columns.device else TIMESTAMP
        # The outer WHERE sees the newest revision only: a row without any mean takes back the one before it.
        query = (
            f"SELECT {names} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} "
            f"ORDER BY {REVISION} DESC, {WRITTEN_AT} DESC) AS Newest FROM {table.sql} WHERE {TIMESTAMP} >= @since) "
            f"WHERE Newest = 1 AND COALESCE({', '.join(f'`{name}`' for name in columns.sensors)}) IS NOT NULL"
        )
    order = f"{TIMESTAMP} DESC, {DEVICE}" if columns.device else f"{TIMESTAMP} DESC"
    return f"{query} ORDER BY {order} LIMIT {MOST_ROWS}"


def kinds_sql(table: TableName) -> str:
    """Return the query for dead letters by stage and error; a long one is in parts and counts once."""
    return (
        f"SELECT stage, error, COUNT(*) AS letters, MAX(received_at) AS newest FROM {table.sql} "
        f"WHERE received_at >= @since AND part = 1 GROUP BY stage, error ORDER BY letters DESC, stage, error "
        f"LIMIT {MOST_KINDS}"
    )


def readings_sql(table: TableName) -> str:
    """Return the query for an even sample of messages; by the hash of their id, so it stays the same sample."""
    return (
        f"SELECT data, COUNT(*) OVER () AS messages FROM {table.sql} WHERE publish_time >= @since "
        f"ORDER BY FARM_FINGERPRINT(message_id) LIMIT {MOST_READINGS}"
    )


def unpack(data: bytes | str | dict | list, sensors: Sequence[str]) -> list[Reading]:
    """Return the readings of a message; what cannot be read is left out, the pipeline having dead-lettered it."""
    try:
        content = json.loads(data) if isinstance(data, bytes | str) else data
    except ValueError:
        return []
    found = []
    for item in content if isinstance(content, list) else [content]:
        try:
            values = {name: float(item[name]) for name in sensors if name in item}
            reading = Reading(_time(item[TIMESTAMP]), item.get(DEVICE), values)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            continue
        if values:
            found.append(reading)
    return found


def _time(stamp: str | float) -> datetime:
    if isinstance(stamp, str):
        time = datetime.fromisoformat(stamp)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return _EPOCH + timedelta(seconds=stamp / 1000 if stamp > _MILLISECONDS_FROM else stamp)


def _retry() -> Any:
    # Short, because the next refresh tries again.
    return bigquery.DEFAULT_RETRY.with_timeout(5.0)
