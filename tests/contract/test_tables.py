"""Columns, partitions, clusters and keys of the tables: a new version writes to the tables that exist."""

from collections.abc import Iterable
from typing import Any

import pytest
from google.cloud.bigquery import SchemaField

from pipeline import main
from pipeline.aggregate.statistics import STATISTICS
from pipeline.launch import options
from tests.contract.golden import ACCEPT, golden

FLAGS = {
    "default": [],
    "every column": ["--group_by_device=true", "--on_late=revise", f"--statistics={','.join(STATISTICS)}"],
    "upsert": ["--group_by_device=true", "--write_method=upsert"],
}


def described(fields: Iterable[SchemaField]) -> dict[str, Any]:
    """Return type and mode of each column, in order, or the columns of a record."""
    return {
        field.name: {f"RECORD {field.mode}": described(field.fields)}
        if field.fields
        else f"{field.field_type} {field.mode}"
        for field in fields
    }


def tables_of(*flags: str) -> dict[str, Any]:
    """Return the tables that a job with these flags writes to."""
    names = ["--input_topic=projects/my-project/topics/t-1", "--output_table=my-project:d.rows"]
    job, _ = options.parse([*names, "--silence_after=5m", *flags])
    return {
        spec.table_id.table: {
            "columns": described(spec.columns),
            "partitioned by": spec.partition_by,
            "clustered by": spec.cluster_by,
            "primary key": list(spec.key),
        }
        for spec in main._table_specs(job)
    }


@pytest.mark.parametrize("kind", FLAGS)
def test_tables_keep_columns_partitions_and_keys(kind):
    now = tables_of(*FLAGS[kind])
    assert now == golden(f"tables_{kind.replace(' ', '_')}", now), (
        "\nExisting tables differ from this. A column may be added if it is NULLABLE: the launch prints the command. "
        f"Every other change needs a new table, and CHANGELOG.md must say so. To accept the change, run\n  {ACCEPT}\n"
    )
