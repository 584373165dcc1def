"""The queries of a refresh: limited in time, so that BigQuery prunes partitions, in rows, and in bytes billed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from dashboard.tables import REVISION, WRITTEN_AT, Columns
from pipeline.decode.decoder import Decoder
from pipeline.decode.errors import Rejection
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.sinks.bigquery import TableId

MOST_ROWS = 10_000
MOST_CELLS = 250_000  # of these rows
MOST_MESSAGES = 2_000
MOST_MESSAGE_BYTES = 10_000  # a longer message is counted, but not drawn
MOST_READINGS = 5_000
MOST_KINDS = 50  # of dead letters
TIMEOUT_SECONDS = 20.0  # for one response

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE = 1000  # rows of one response, because a page is in memory both as JSON and as values


@dataclass(frozen=True)
class Source:
    """The tables to show, and the parameters of the job.

    Args:
      rows: the table of rows.
      dead_letters: the table of dead letters; it may be missing.
      readings: a table to which a BigQuery subscription of the topic writes messages with metadata, or None.
      span: the time to show, up to now.
      max_bytes: a query that would be billed for more is refused.
      billing_project: the project that runs the queries; by default that of the rows.
      sensors, statistics: the job's parameters; without sensors each FLOAT column is a sensor.
      max_future_skew: the job's parameter; readings further ahead of their publish time are not drawn.
    """

    rows: TableId
    dead_letters: TableId
    readings: TableId | None
    span: timedelta
    max_bytes: int
    billing_project: str | None = None
    sensors: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ("mean",)
    max_future_skew: timedelta = timedelta(minutes=10)

    @property
    def project(self) -> str:
        """The project that runs the queries and is billed for them."""
        return self.billing_project or self.rows.project


@dataclass(frozen=True)
class Kind:
    """The dead letters of one stage and error: their number, and when the newest was received."""

    stage: str
    error: str
    count: int
    newest: datetime


@dataclass(frozen=True)
class Reading:
    """A reading of a message: values by sensor."""

    time: datetime
    device: str | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Snapshot:
    """The result of one refresh at time `at`.

    `rows` are the newest rows, newest first; each is a mapping from column to value. `kinds` is None if there is no
    dead-letter table. `readings` is a sample of those in `messages` messages, or None without a table of messages.
    `scanned` is the number of bytes by query.
    """

    at: datetime
    columns: Columns
    rows: Sequence[Mapping[str, Any]]
    kinds: Sequence[Kind] | None
    readings: Sequence[Reading] | None
    messages: int
    scanned: Mapping[str, int]


def refresh(bq: bigquery.Client, source: Source) -> Snapshot:
    """Read the tables.

    Raises:
      TableProblem: the table does not have the columns of a table of rows.
      GoogleAPIError, GoogleAuthError, RequestException: BigQuery rejects a query, or cannot be reached.
    """
    now = datetime.now(UTC)
    schema = _schema(bq, source.rows)
    columns = Columns.from_schema(source.rows, schema, source.sensors, source.statistics)
    query = _Query(bq, now - source.span, source.max_bytes)
    records = query("rows", rows_sql(source.rows, columns))
    rows = [dict(zip(columns.shown, record.values(), strict=True)) for record in records]
    try:
        kinds = [Kind(*row.values()) for row in query("dead letters", kinds_sql(source.dead_letters))]
    except NotFound:
        kinds = None
    readings, messages = None, 0
    if source.readings:
        types = {field.name.lower(): field.field_type for field in _schema(bq, source.readings)}
        found = query("readings", readings_sql(source.readings, types.get("data", "")))
        readings = unpack([(row.data, row.publish_time) for row in found], columns, source.max_future_skew)
        messages = found[0].messages if found else 0
    return Snapshot(now, columns, rows, kinds, readings, messages, query.scanned)


class _Query:
    """Runs queries with the parameter `since`, and records the bytes that each scans by its name."""

    def __init__(self, bq: bigquery.Client, since: datetime, max_bytes: int):
        self._bq = bq
        self._config = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter("since", "TIMESTAMP", since)],
            maximum_bytes_billed=max_bytes,
        )
        self.scanned: dict[str, int] = {}

    def __call__(self, name: str, sql: str) -> list[bigquery.Row]:
        job = self._bq.query(sql, job_config=self._config, retry=_retry(), timeout=TIMEOUT_SECONDS, job_retry=None)
        rows = list(job.result(page_size=_PAGE, retry=_retry(), timeout=TIMEOUT_SECONDS, job_retry=None))
        self.scanned[name] = job.total_bytes_processed or 0
        return rows


def most_rows(columns: Columns) -> int:
    """Return how many rows are read at most: MOST_ROWS, or fewer if they have many columns."""
    return min(MOST_ROWS, MOST_CELLS // len(columns.shown))


def rows_sql(table: TableId, columns: Columns) -> str:
    """Return the query for the newest rows: the newest revision of each, without retracted rows."""
    names = ", ".join(f"`{name}`" for name in columns.shown)
    query = f"SELECT {names} FROM {_aliased(table)} WHERE {TIMESTAMP} >= @since"
    if columns.revised:
        key = f"{TIMESTAMP}, {DEVICE}" if columns.device else TIMESTAMP
        values = ", ".join(f"`{name}`" for name in columns.values)
        # The outer WHERE applies to the newest revisions. A revision without values is a retraction.
        query = (
            f"SELECT {names} FROM (SELECT * FROM {_aliased(table)} WHERE {TIMESTAMP} >= @since QUALIFY ROW_NUMBER() "
            f"OVER (PARTITION BY {key} ORDER BY {REVISION} DESC, {WRITTEN_AT} DESC) = 1) "
            f"WHERE COALESCE({values}) IS NOT NULL"
        )
    order = f"{TIMESTAMP} DESC, {DEVICE}" if columns.device else f"{TIMESTAMP} DESC"
    return f"{query} ORDER BY {order} LIMIT {most_rows(columns)}"


def kinds_sql(table: TableId) -> str:
    """Return the query for dead letters by stage and error; one that is stored in parts counts once."""
    return (
        f"SELECT stage, error, COUNT(*) AS dead_letters, MAX(received_at) AS newest FROM {_aliased(table)} "
        f"WHERE received_at >= @since AND part = 1 GROUP BY stage, error ORDER BY dead_letters DESC, stage, error "
        f"LIMIT {MOST_KINDS}"
    )


def readings_sql(table: TableId, data_type: str) -> str:
    """Return the query for an even sample of messages, the same at each refresh because their ids are hashed."""
    data = "TO_JSON_STRING(data)" if data_type == "JSON" else "data"
    return (
        f"SELECT IF(BYTE_LENGTH({data}) <= {MOST_MESSAGE_BYTES}, {data}, NULL) AS data, publish_time, "
        f"COUNT(*) OVER () AS messages FROM {_aliased(table)} WHERE publish_time >= @since "
        f"ORDER BY FARM_FINGERPRINT(message_id) LIMIT {MOST_MESSAGES}"
    )


def unpack(
    messages: Sequence[tuple[bytes | str | None, datetime]], columns: Columns, max_future_skew: timedelta
) -> list[Reading]:
    """Decode messages, each (data, publish time), as the pipeline does; returns up to MOST_READINGS readings."""
    decoder = Decoder([sensor.name for sensor in columns.sensors])
    found: list[Reading] = []
    rejections: list[Rejection] = []
    for data, published in messages:
        payload = data.encode() if isinstance(data, str) else data or b""
        latest = (published + max_future_skew - _EPOCH) // timedelta(microseconds=1)
        for event_time, device, values in decoder.decode([payload], latest, rejections) if payload else ():
            found.append(Reading(_EPOCH + timedelta(microseconds=event_time), device or None, values))
        rejections.clear()
        if len(found) >= MOST_READINGS:
            break
    return found[:MOST_READINGS]


def _schema(bq: bigquery.Client, table: TableId) -> list[bigquery.SchemaField]:
    return list(bq.get_table(table.reference, retry=_retry(), timeout=TIMEOUT_SECONDS).schema)


def _aliased(table: TableId) -> str:
    # By default a table's alias is its name, which may also be a sensor's name; a name with a blank cannot be.
    return f"{table.sql} AS `the table`"


def _retry() -> Any:
    # Short, because the next refresh queries again.
    return bigquery.DEFAULT_RETRY.with_timeout(5.0)
