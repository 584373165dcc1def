"""Views on the output table: its newest revisions, and its rows without gaps."""

from dataclasses import replace

from google.api_core.exceptions import Conflict, GoogleAPIError
from google.cloud import bigquery
from requests.exceptions import RequestException

from pipeline.bigquery import TableId, client
from pipeline.readings import DEVICE, TIMESTAMP
from pipeline.rows import REVISION, WRITTEN_AT
from pipeline.statistics import MEANS, Statistics
from pipeline.tables import PATIENCE, TableError

# What the view without gaps reaches back, so that looking at it reads no more of the table.
FILLED_DAYS = 30

# Intervals for which a value is carried forward.
CARRIED = 20


def create_latest_view(
    table_id: TableId, sensors: tuple[str, ...], by_device: bool, statistics: Statistics = MEANS
) -> None:
    """Create or replace the view `<table>_latest`: of each Timestamp and device the newest revision, less retractions.

    Raises:
      TableError: BigQuery refuses or cannot be reached.
    """
    view_id = replace(table_id, table=f"{table_id.table}_latest")
    key = ", ".join([TIMESTAMP, DEVICE] if by_device else [TIMESTAMP])
    values = ", ".join(f"`{column}`" for name in sensors for column, _ in statistics.columns(name))
    query = (
        f"SELECT * EXCEPT (Newest) FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} "
        f"ORDER BY {REVISION} DESC, {WRITTEN_AT} DESC) AS Newest FROM {table_id.sql}) "
        f"WHERE Newest = 1 AND COALESCE({values}) IS NOT NULL"
    )
    _create_view(view_id, query)


def create_filled_view(table_id: TableId, columns: tuple[bigquery.SchemaField, ...], step: int) -> None:
    """Create or replace the view `<table>_filled`: of each device a row every `step` seconds, from first to last.

    It covers the last FILLED_DAYS. A FLOAT without a value has its last one, for up to CARRIED rows; an INTEGER is
    never carried. `Filled` says that the row has such a value, or is not in the table.

    Args:
      table_id: the output table.
      columns: its columns, as `row_columns` returns them.
      step: seconds from row to row.

    Raises:
      TableError: BigQuery refuses or cannot be reached.
    """
    revised = any(column.name == REVISION for column in columns)
    rows = replace(table_id, table=f"{table_id.table}_latest") if revised else table_id
    _create_view(replace(table_id, table=f"{table_id.table}_filled"), filled_query(rows, columns, step))


def filled_query(rows: TableId, columns: tuple[bigquery.SchemaField, ...], step: int) -> str:
    """Return the SQL of the view without gaps. Each row is spread over the steps up to the next one."""
    floats = [f"`{column.name}`" for column in columns if column.field_type == "FLOAT"]
    ours = [column.name for column in columns]
    values = [f"`{name}`" for name in ours if name not in (TIMESTAMP, DEVICE, REVISION, WRITTEN_AT)]
    device, of_device = (f", {DEVICE}", f"PARTITION BY {DEVICE} ") if DEVICE in ours else ("", "")
    last = {name: f"LAST_VALUE({name} IGNORE NULLS) OVER Carried" for name in floats}
    return (
        f"WITH Own AS (SELECT {TIMESTAMP}{device}, {', '.join(values)}, "
        f"LEAD({TIMESTAMP}) OVER ({of_device}ORDER BY {TIMESTAMP}) AS Next FROM {rows.sql} "
        f"WHERE {TIMESTAMP} >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL {FILLED_DAYS} DAY)), "
        f"Spread AS (SELECT Slot{device}, {', '.join(f'IF(Slot = {TIMESTAMP}, {v}, NULL) AS {v}' for v in values)}, "
        f"Slot > {TIMESTAMP} AS Missing FROM Own, UNNEST(GENERATE_TIMESTAMP_ARRAY({TIMESTAMP}, GREATEST({TIMESTAMP}, "
        f"COALESCE(TIMESTAMP_SUB(Next, INTERVAL 1 MICROSECOND), {TIMESTAMP})), INTERVAL {step} SECOND)) AS Slot) "
        f"SELECT Slot AS {TIMESTAMP}, {', '.join(f'{last.get(v, v)} AS {v}' for v in values)}{device}, "
        f"{' OR '.join(['Missing', *(f'({v} IS NULL AND {last[v]} IS NOT NULL)' for v in floats)])} AS Filled "
        f"FROM Spread WINDOW Carried AS ({of_device}ORDER BY Slot ROWS BETWEEN {CARRIED} PRECEDING AND CURRENT ROW)"
    )


def _create_view(view_id: TableId, query: str) -> None:
    view = bigquery.Table(view_id.reference)
    view.view_query = query
    bq = client(view_id.project)
    retry = bigquery.DEFAULT_RETRY.with_timeout(PATIENCE)
    try:
        try:
            bq.create_table(view, retry=retry)
        except Conflict:
            bq.update_table(view, ["view_query"], retry=retry)
    except (GoogleAPIError, RequestException) as error:
        raise TableError(f"cannot create view {view_id}: {error}") from None
