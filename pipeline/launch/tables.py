"""BigQuery tables: their columns, and how they are checked or created before launch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.api_core.retry import Retry
from google.cloud import bigquery
from google.cloud.bigquery.table import PrimaryKey, TableConstraints
from requests.exceptions import RequestException

from pipeline.aggregate.statistics import MEANS, Statistics
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.errors import SensorStreamError
from pipeline.launch import one_line
from pipeline.rows import REVISION, WRITTEN_AT
from pipeline.silences import BACK_AT, NOTICED_AT, SILENT_SINCE
from pipeline.sinks.bigquery import TableId, client

DEAD_LETTER_COLUMNS = (
    bigquery.SchemaField("dead_letter_id", "STRING"),
    bigquery.SchemaField("part", "INTEGER"),
    bigquery.SchemaField("parts", "INTEGER"),
    bigquery.SchemaField("event_time", "TIMESTAMP"),
    bigquery.SchemaField("received_at", "TIMESTAMP"),
    bigquery.SchemaField("stage", "STRING"),
    bigquery.SchemaField("error", "STRING"),
    bigquery.SchemaField("message", "STRING"),
    bigquery.SchemaField("payload", "BYTES"),
    bigquery.SchemaField(
        "attributes",
        "RECORD",
        mode="REPEATED",
        fields=(bigquery.SchemaField("key", "STRING"), bigquery.SchemaField("value", "STRING")),
    ),
    bigquery.SchemaField("message_id", "STRING"),
    bigquery.SchemaField("device", "STRING"),
    bigquery.SchemaField("pipeline_version", "STRING"),
)

SILENCE_COLUMNS = (
    bigquery.SchemaField(DEVICE, "STRING"),
    bigquery.SchemaField(SILENT_SINCE, "TIMESTAMP"),
    bigquery.SchemaField(NOTICED_AT, "TIMESTAMP"),
    bigquery.SchemaField(BACK_AT, "TIMESTAMP"),
)
SILENCE_KEY = (DEVICE, SILENT_SINCE)

# https://cloud.google.com/bigquery/quotas#all_tables, https://cloud.google.com/bigquery/docs/change-data-capture#limitations
_MOST_COLUMNS, _MOST_COLUMNS_WITH_KEY = 10_000, 2_000

# Seconds for which calls before launch are retried; with the client's ten minutes the launch would seem to hang.
TIMEOUT_SECONDS = 30.0

# BigQuery returns the standard name of a type on some routes and the legacy name on others.
_LEGACY_TYPES = {"FLOAT64": "FLOAT", "INT64": "INTEGER", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_STANDARD_TYPES = {legacy: standard for standard, legacy in _LEGACY_TYPES.items()}

# Types that ALTER COLUMN SET DATA TYPE can change to FLOAT. BIGNUMERIC is refused, although SQL coerces it:
# https://github.com/SQLMesh/sqlmesh/pull/2848 and
# https://cloud.google.com/bigquery/docs/managing-table-schemas#change_a_columns_data_type
_WIDENED_TO = {"FLOAT": frozenset(["INTEGER", "NUMERIC"])}

# Types of columns that take values of another type, through every write method:
# https://cloud.google.com/bigquery/docs/supported-data-types#supported_protocol_buffer_data_types
_TAKEN_BY = {"INTEGER": frozenset(["NUMERIC", "BIGNUMERIC"])}


class TableError(SensorStreamError):
    """The job cannot use a table; the message is one line that says how to fix it."""


@dataclass(frozen=True)
class TableSpec:
    """A table that the job writes to.

    Attributes:
      table_id: the full name.
      columns: the columns of rows; the table may have more.
      partition_by: a new table is partitioned by the day of this TIMESTAMP column.
      cluster_by: the column by which a new table is clustered, if any.
      key: the primary key by which rows are upserted; empty if they are appended.
    """

    table_id: TableId
    columns: tuple[bigquery.SchemaField, ...]
    partition_by: str
    cluster_by: str | None = None
    key: tuple[str, ...] = ()


def row_columns(
    sensors: tuple[str, ...], by_device: bool, revise: bool, statistics: Statistics = MEANS
) -> tuple[bigquery.SchemaField, ...]:
    """Return the columns of the output table, all NULLABLE, in table order."""
    revision = (bigquery.SchemaField(REVISION, "INTEGER"), bigquery.SchemaField(WRITTEN_AT, "TIMESTAMP"))
    return (
        bigquery.SchemaField(TIMESTAMP, "TIMESTAMP"),
        *(bigquery.SchemaField(*column) for name in sensors for column in statistics.columns(name)),
        *([bigquery.SchemaField(DEVICE, "STRING")] if by_device else []),
        *(revision if revise else []),
    )


def row_key(by_device: bool) -> tuple[str, ...]:
    """Return the output table's primary key, by which rows are upserted."""
    return (TIMESTAMP, DEVICE) if by_device else (TIMESTAMP,)


def prepare(
    table_id: TableId,
    columns: tuple[bigquery.SchemaField, ...],
    partition_by: str,
    cluster_by: str | None,
    key: tuple[str, ...] = (),
) -> None:
    """Create a table, or check that an existing one takes rows; see `TableSpec`, `check_table` and `create_table`."""
    spec = TableSpec(table_id, columns, partition_by, cluster_by, key)
    if not check_table(spec):
        create_table(spec)


def check_table(spec: TableSpec) -> bool:
    """Check that the table can take rows, or can be created; return whether it exists. Changes nothing.

    Whether the caller may create tables is not checked, because BigQuery can be asked about existing tables only.

    Raises:
      TableError: the table takes no rows or could not be created, the dataset does not exist, or BigQuery refuses or
        cannot be reached.
    """
    table_id = spec.table_id
    with _explained(table_id, "look up"):
        bq = client(table_id.project)
        try:
            existing = bq.get_table(table_id.reference, retry=retry())
        except NotFound:
            bq.get_dataset(bigquery.DatasetReference(table_id.project, table_id.dataset), retry=retry())
            _check_size(spec, len(spec.columns))
            return False
        _check_existing(spec, existing)
        check_permission(bq, table_id, "bigquery.tables.updateData")
    return True


def create_table(spec: TableSpec) -> None:
    """Create the table, or check the one that another job has created meanwhile.

    Raises:
      TableError: BigQuery refuses or cannot be reached.
    """
    table_id = spec.table_id
    wanted = bigquery.Table(table_id.reference, schema=spec.columns)
    wanted.time_partitioning = bigquery.TimePartitioning(field=spec.partition_by)
    wanted.clustering_fields = [spec.cluster_by] if spec.cluster_by else None
    if spec.key:
        wanted.table_constraints = TableConstraints(PrimaryKey(list(spec.key)), None)
    with _explained(table_id, "create"):
        bq = client(table_id.project)
        _check_existing(spec, bq.create_table(wanted, exists_ok=True, retry=retry()))
        check_permission(bq, table_id, "bigquery.tables.updateData")


@contextmanager
def _explained(table_id: TableId, action: str) -> Iterator[None]:
    dataset = f"{table_id.project}:{table_id.dataset}"
    try:
        yield
    except Forbidden as error:
        raise TableError(
            f"no permission to {action} table {table_id} ({one_line.reason(error.message)}); {grant(table_id)}"
        ) from None
    except NotFound:
        raise TableError(f"dataset {dataset} does not exist; create it with: bq mk --dataset {dataset}") from None
    except (GoogleAPIError, RequestException) as error:
        raise TableError(f"cannot {action} table {table_id}: {one_line.reason(error)}") from None


def retry() -> Retry:
    """Return the retry for calls before launch, of at most TIMEOUT_SECONDS."""
    return bigquery.DEFAULT_RETRY.with_timeout(TIMEOUT_SECONDS)


def grant(table_id: TableId) -> str:
    """Return the advice, with the command, to grant the job the role that it needs on the dataset of a table."""
    return (
        "grant it with: bq query --use_legacy_sql=false "
        f'"GRANT \\`roles/bigquery.dataEditor\\` ON SCHEMA \\`{table_id.project}.{table_id.dataset}\\` '
        "TO 'serviceAccount:THE_JOBS_SERVICE_ACCOUNT'\""
    )


def check_permission(bq: bigquery.Client, table_id: TableId, permission: str) -> None:
    """Check that the caller has a permission on an existing table or view; raises TableError."""
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        return  # the emulator has no permissions
    granted = bq.test_iam_permissions(table_id.reference, [permission], retry=retry()).get("permissions", [])
    if permission not in granted:
        raise TableError(f"the job lacks {permission} on {table_id}; {grant(table_id)}")


def _check_existing(spec: TableSpec, existing: bigquery.Table) -> None:
    table_id = spec.table_id
    if existing.table_type != "TABLE":
        raise TableError(f"{table_id} is a {existing.table_type}, which takes no rows; name a table")
    have = {field.name.lower(): field for field in existing.schema}
    missing = [field for field in spec.columns if field.name.lower() not in have]
    _check_size(spec, len(existing.schema) + len(missing))
    if missing:
        clauses = ", ".join(f"ADD COLUMN {_ddl(field)}" for field in missing)
        raise TableError(f"table {table_id} lacks columns; add them with: ALTER TABLE {table_id.sql} {clauses}")
    for field in spec.columns:
        _check_column(table_id, field, have[field.name.lower()])
    never_null = spec.key or (spec.partition_by,)
    required = [field.name for field in existing.schema if field.mode == "REQUIRED" and field.name not in never_null]
    if required:
        relax = "; ".join(f"ALTER TABLE {table_id.sql} ALTER COLUMN `{name}` DROP NOT NULL" for name in required)
        raise TableError(f"table {table_id} has REQUIRED columns that a row may lack; relax them with: {relax}")
    if spec.key:
        _check_key(table_id, spec.key, existing)


def _check_column(table_id: TableId, field: bigquery.SchemaField, found: bigquery.SchemaField) -> None:
    if found.name != field.name:
        raise TableError(
            f"table {table_id} has the column {found.name}, and rows have {field.name}; BigQuery ignores case in "
            "column names; spell the sensor as the column, or name another table"
        )
    alter = f"ALTER TABLE {table_id.sql} ALTER COLUMN `{found.name}` SET DATA TYPE"
    found_type, needed_type = _type(found), _type(field)
    same_shape = (found.mode == "REPEATED") == (field.mode == "REPEATED")
    if same_shape and not found.precision and found_type in _TAKEN_BY.get(needed_type, ()):
        return
    if not same_shape or found_type != needed_type:
        wanted = f"column {found.name} of table {table_id} is {found.mode} {found_type}, but {field.mode} {needed_type}"
        if same_shape and found_type in _WIDENED_TO.get(needed_type, ()):
            raise TableError(f"{wanted} is needed; change it with: {alter} {_STANDARD_TYPES[needed_type]}")
        raise TableError(f"{wanted} is needed, and no ALTER TABLE can change it; name another table")
    if found.max_length:
        raise TableError(
            f"column {found.name} of table {table_id} takes at most {found.max_length} characters or bytes, and rows "
            f"may have more; change it with: {alter} {needed_type}"
        )
    if [(each.name, _type(each), each.mode) for each in found.fields] != [
        (each.name, _type(each), each.mode) for each in field.fields
    ]:
        raise TableError(
            f"column {found.name} of table {table_id} has fields other than those of {_ddl(field)}; name another table"
        )


def _check_size(spec: TableSpec, columns: int) -> None:
    most = _MOST_COLUMNS_WITH_KEY if spec.key else _MOST_COLUMNS
    if columns > most:
        takes = "upserts into" if spec.key else "takes"
        method = ", or use write_method=storage_write" if columns <= _MOST_COLUMNS else ""
        raise TableError(
            f"table {spec.table_id} would have {columns:,} columns, and BigQuery {takes} at most {most:,}; name fewer "
            f"sensors or statistics{method}"
        )


def _check_key(table_id: TableId, key: tuple[str, ...], existing: bigquery.Table) -> None:
    constraints = existing.table_constraints
    found = constraints.primary_key.columns if constraints and constraints.primary_key else []
    if {name.lower() for name in found} != {name.lower() for name in key}:
        add = f"ALTER TABLE {table_id.sql} ADD PRIMARY KEY ({', '.join(f'`{name}`' for name in key)}) NOT ENFORCED"
        if found:
            raise TableError(
                f"table {table_id} has the primary key ({', '.join(found)}); write_method=upsert needs another; change "
                f"it with: ALTER TABLE {table_id.sql} DROP PRIMARY KEY; {add}"
            )
        raise TableError(f"table {table_id} has no primary key, which write_method=upsert needs; add it with: {add}")


def _type(field: bigquery.SchemaField) -> str:
    return _LEGACY_TYPES.get(field.field_type.upper(), field.field_type.upper())


def _ddl(field: bigquery.SchemaField) -> str:
    fields = ", ".join(_ddl(each) for each in field.fields)
    column = f"STRUCT<{fields}>" if fields else _STANDARD_TYPES.get(field.field_type, field.field_type)
    return f"`{field.name}` ARRAY<{column}>" if field.mode == "REPEATED" else f"`{field.name}` {column}"
