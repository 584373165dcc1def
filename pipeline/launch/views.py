"""Views on the output table: its newest revisions, and its rows without gaps.

A sensor may have any name that a BigQuery column can have. Every column is therefore quoted, and the aliases of a query
differ from all columns (see `_Unused`).
"""

from collections.abc import Iterable

from google.api_core.exceptions import Conflict, GoogleAPIError, NotFound
from google.cloud import bigquery
from requests.exceptions import RequestException

from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.launch import one_line
from pipeline.launch.tables import TableError, check_permission, retry
from pipeline.rows import REVISION, WRITTEN_AT
from pipeline.sinks.bigquery import TableId, client

# How many days the view without gaps goes back, which bounds what a query of it reads.
FILLED_DAYS = 30

# The number of intervals for which a value is carried forward.
CARRIED = 20

# Column of the view without gaps: true if a value was carried forward, or if the row is not in the table.
FILLED = "Filled"

# Characters of a query: https://cloud.google.com/bigquery/quotas#query_jobs
_LONGEST_QUERY = 1_000_000

Columns = tuple[bigquery.SchemaField, ...]


def latest_query(rows: TableId, columns: Columns) -> str:
    """Return the SQL of the newest revision of each Timestamp and device, without retracted rows.

    Args:
      rows: the output table.
      columns: its columns, as `row_columns` returns them.
    """
    table = _Unused(columns)("stored")
    key = ", ".join(f"`{name}`" for name in _names(columns) if name in (TIMESTAMP, DEVICE))
    values = ", ".join(f"`{name}`" for name in _value_names(columns))
    return (
        f"SELECT * FROM {rows.sql} AS {table} WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY {key} "
        f"ORDER BY `{REVISION}` DESC, `{WRITTEN_AT}` DESC) = 1 AND COALESCE({values}) IS NOT NULL"
    )


def filled_query(rows: TableId, columns: Columns, step: int) -> str:
    """Return the SQL of a row of each device every `step` seconds, from its first row to its last.

    It covers the last FILLED_DAYS. A FLOAT without a value has its last one, for up to CARRIED rows; an INTEGER is
    never carried forward. FILLED is true for a row that has such a value, or that is not in the table.

    Args:
      rows: the output table, or the view of its newest revisions.
      columns: the table's columns, as `row_columns` returns them.
      step: seconds from row to row.
    """
    unused = _Unused(columns)
    recent, by_slot, table = unused("recent"), unused("by_slot"), unused("stored")
    next_row, slot, missing, carried = unused("next_row"), unused("slot"), unused("missing"), unused("carried")
    time, values = f"`{TIMESTAMP}`", [f"`{name}`" for name in _value_names(columns)]
    device, partition = (f", `{DEVICE}`", f"PARTITION BY `{DEVICE}` ") if DEVICE in _names(columns) else ("", "")

    recent_rows = (
        f"SELECT {time}{device}, {', '.join(values)}, LEAD({time}) OVER ({partition}ORDER BY {time}) AS {next_row} "
        f"FROM {rows.sql} AS {table} "
        f"WHERE {time} >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL {FILLED_DAYS} DAY)"
    )

    # A row takes the slots up to the next row of its device, and has its values in the first of them only.
    before_next = f"COALESCE(TIMESTAMP_SUB({next_row}, INTERVAL 1 MICROSECOND), {time})"
    slots = f"GENERATE_TIMESTAMP_ARRAY({time}, GREATEST({time}, {before_next}), INTERVAL {step} SECOND)"
    values_in_slot = ", ".join(f"IF({slot} = {time}, {value}, NULL) AS {value}" for value in values)
    rows_by_slot = (
        f"SELECT {slot}{device}, {values_in_slot}, {slot} > {time} AS {missing} "
        f"FROM {recent}, UNNEST({slots}) AS {slot}"
    )

    floats = [f"`{column.name}`" for column in columns if column.field_type == "FLOAT"]
    last = {value: f"LAST_VALUE({value} IGNORE NULLS) OVER {carried}" for value in floats}
    values_or_last = ", ".join(f"{last.get(value, value)} AS {value}" for value in values)
    has_carried_value = [f"({value} IS NULL AND {last[value]} IS NOT NULL)" for value in floats]
    return (
        f"WITH {recent} AS ({recent_rows}), {by_slot} AS ({rows_by_slot}) "
        f"SELECT {slot} AS {time}, {values_or_last}{device}, {' OR '.join([missing, *has_carried_value])} AS {FILLED} "
        f"FROM {by_slot} "
        f"WINDOW {carried} AS ({partition}ORDER BY {slot} ROWS BETWEEN {CARRIED} PRECEDING AND CURRENT ROW)"
    )


def check_view(view_id: TableId, query: str) -> None:
    """Check that the view can be created or replaced.

    Raises:
      TableError: a table has the name of the view, the query is too long, or BigQuery refuses or cannot be reached.
    """
    if len(query) > _LONGEST_QUERY:
        raise TableError(
            f"the query of view {view_id} would have {len(query):,} characters, and BigQuery accepts at most "
            f"{_LONGEST_QUERY:,}; name fewer sensors or statistics"
        )
    bq = client(view_id.project)
    try:
        existing = bq.get_table(view_id.reference, retry=retry())
        if existing.table_type == "VIEW":
            check_permission(bq, view_id, "bigquery.tables.update")
    except NotFound:
        return
    except (GoogleAPIError, RequestException) as error:
        raise TableError(f"cannot look up view {view_id}: {one_line.reason(error)}") from None
    if existing.table_type != "VIEW":
        raise TableError(
            f"{view_id} is a {existing.table_type}, and the job needs a view of this name; rename it, or name another "
            "--output_table"
        )


def create_view(view_id: TableId, query: str) -> None:
    """Create the view, or replace it.

    Raises:
      TableError: BigQuery refuses or cannot be reached.
    """
    view = bigquery.Table(view_id.reference)
    view.view_query = query
    bq = client(view_id.project)
    try:
        try:
            bq.create_table(view, retry=retry())
        except Conflict:
            bq.update_table(view, ["view_query"], retry=retry())
    except (GoogleAPIError, RequestException) as error:
        raise TableError(f"cannot create view {view_id}: {one_line.reason(error)}") from None


def _names(columns: Columns) -> list[str]:
    return [column.name for column in columns]


def _value_names(columns: Columns) -> list[str]:
    return [name for name in _names(columns) if name not in (TIMESTAMP, DEVICE, REVISION, WRITTEN_AT)]


class _Unused:
    """Returns aliases that differ from every column and each other: `slot`, or `slot_` if a column is named slot."""

    def __init__(self, columns: Iterable[bigquery.SchemaField]):
        self._used = {column.name.lower() for column in columns} | {FILLED.lower()}

    def __call__(self, name: str) -> str:
        while name in self._used:
            name += "_"
        self._used.add(name)
        return name
