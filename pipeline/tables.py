"""BigQuery tables: their columns, and creating or checking them before launch."""

import os
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound
from google.cloud import bigquery
from google.cloud.bigquery.table import PrimaryKey, TableConstraints
from requests.exceptions import RequestException

from pipeline.bigquery import TableId, client
from pipeline.readings import DEVICE, TIMESTAMP
from pipeline.rows import REVISION, WRITTEN_AT
from pipeline.silences import BACK_AT, NOTICED_AT, SILENT_SINCE
from pipeline.statistics import MEANS, Statistics

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

# https://cloud.google.com/bigquery/docs/change-data-capture#limitations
_MOST_COLUMNS_WITH_KEY = 2_000

# Seconds to go on trying before launch; the client's own ten minutes would look like a hang.
PATIENCE = 30.0

# BigQuery answers with the standard type's name on some routes and the legacy one on others.
_STANDARD_TYPES = {"FLOAT64": "FLOAT", "INT64": "INTEGER", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}


class TableError(Exception):
    """A table cannot be used as it is; the message says how to mend it."""


def row_columns(
    sensors: tuple[str, ...], by_device: bool, revise: bool, statistics: Statistics = MEANS
) -> tuple[bigquery.SchemaField, ...]:
    """Return the output table's columns, all NULLABLE: Timestamp, the sensors', and what grouping and revising add."""
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
    """Create the table, partitioned by day on `partition_by`, or check that an existing one takes our rows.

    With a `key` rows are upserted, so the table must have that primary key.

    Raises:
      TableError: its dataset is missing, its columns do not fit, or BigQuery refuses or cannot be reached.
    """
    reference = table_id.reference
    wanted = bigquery.Table(reference, schema=columns)
    wanted.time_partitioning = bigquery.TimePartitioning(field=partition_by)
    wanted.clustering_fields = [cluster_by] if cluster_by else None
    if key:
        wanted.table_constraints = TableConstraints(PrimaryKey(list(key)), None)
    bq = client(table_id.project)
    retry = bigquery.DEFAULT_RETRY.with_timeout(PATIENCE)
    try:
        try:
            existing = bq.get_table(reference, retry=retry)
        except NotFound:
            bq.get_dataset(bigquery.DatasetReference(table_id.project, table_id.dataset), retry=retry)
            existing = bq.create_table(wanted, exists_ok=True, retry=retry)
        if not _may_insert(bq, reference, retry):
            raise TableError(f"the job may not insert into table {table_id}; {grant(table_id)}")
    except Forbidden as error:
        raise TableError(
            f"no permission to look up or create table {table_id} ({error.message}); {grant(table_id)}"
        ) from None
    except NotFound:
        raise TableError(
            f"dataset {table_id.project}:{table_id.dataset} does not exist; create it with: "
            f"bq mk --dataset {table_id.project}:{table_id.dataset}"
        ) from None
    except (GoogleAPIError, RequestException) as error:
        raise TableError(f"cannot look up or create table {table_id}: {error}") from None
    _check(table_id, columns, key or (partition_by,), existing)
    if key:
        _check_key(table_id, key, existing)


def grant(table_id: TableId) -> str:
    """Return the advice that lets the job use the tables of a dataset."""
    return (
        "grant it with: bq query --use_legacy_sql=false "
        f'"GRANT \\`roles/bigquery.dataEditor\\` ON SCHEMA \\`{table_id.project}.{table_id.dataset}\\` '
        "TO 'serviceAccount:THE_JOBS_SERVICE_ACCOUNT'\""
    )


def _may_insert(bq: bigquery.Client, table: bigquery.TableReference, retry: Any) -> bool:
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        return True  # it knows no permissions
    needed = "bigquery.tables.updateData"
    return needed in bq.test_iam_permissions(table, [needed], retry=retry).get("permissions", [])


def _check(
    table_id: TableId, columns: tuple[bigquery.SchemaField, ...], never_null: tuple[str, ...], existing: bigquery.Table
) -> None:
    have = {field.name.lower(): field for field in existing.schema}
    missing = [field for field in columns if field.name.lower() not in have]
    if missing:
        clauses = ", ".join(f"ADD COLUMN {_ddl(field)}" for field in missing)
        raise TableError(f"table {table_id} lacks columns; add them with: ALTER TABLE {table_id.sql} {clauses}")
    for field in columns:
        found = have[field.name.lower()]
        if _type(found) != _type(field) or (found.mode == "REPEATED") != (field.mode == "REPEATED"):
            raise TableError(
                f"column {found.name} of table {table_id} is {found.mode} {_type(found)}, but {field.mode} "
                f"{_type(field)} is needed and BigQuery cannot alter that; name another table"
            )
    required = [field.name for field in existing.schema if field.mode == "REQUIRED" and field.name not in never_null]
    if required:
        relax = "; ".join(f"ALTER TABLE {table_id.sql} ALTER COLUMN `{name}` DROP NOT NULL" for name in required)
        raise TableError(f"table {table_id} has REQUIRED columns that a row may lack; relax them with: {relax}")


def _check_key(table_id: TableId, key: tuple[str, ...], existing: bigquery.Table) -> None:
    constraints = existing.table_constraints
    found = constraints.primary_key.columns if constraints and constraints.primary_key else []
    if {name.lower() for name in found} != {name.lower() for name in key}:
        add = f"ALTER TABLE {table_id.sql} ADD PRIMARY KEY ({', '.join(f'`{name}`' for name in key)}) NOT ENFORCED"
        if found:
            raise TableError(
                f"table {table_id} has the primary key ({', '.join(found)}); write_method=upsert needs another, change "
                f"it with: ALTER TABLE {table_id.sql} DROP PRIMARY KEY; {add}"
            )
        raise TableError(f"table {table_id} has no primary key, which write_method=upsert needs; add it with: {add}")
    if len(existing.schema) > _MOST_COLUMNS_WITH_KEY:
        raise TableError(
            f"table {table_id} has {len(existing.schema):,} columns, and BigQuery upserts into at most "
            f"{_MOST_COLUMNS_WITH_KEY:,}; name fewer sensors, or use write_method=storage_write"
        )


def _type(field: bigquery.SchemaField) -> str:
    return _STANDARD_TYPES.get(field.field_type.upper(), field.field_type.upper())


def _ddl(field: bigquery.SchemaField) -> str:
    ddl_types = {"FLOAT": "FLOAT64", "RECORD": "STRUCT<key STRING, value STRING>"}
    column = ddl_types.get(field.field_type, field.field_type)
    return f"`{field.name}` ARRAY<{column}>" if field.mode == "REPEATED" else f"`{field.name}` {column}"
