"""The emulator with its Storage Write API: rows appended by gRPC are visible by REST, and keys are stored."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField

from local.stack import emulators
from tests.local.stack.bigquery_server.sending import (
    COLUMNS,
    MICROS,
    T0,
    append,
    append_changes,
    delete,
    request,
    upsert,
    write_client,
)

KEY = ("Timestamp", "Device")


@pytest.fixture
def bq(bigquery_server: emulators.Emulator, project: str) -> bigquery.Client:
    return emulators.bigquery_client(bigquery_server.host, project)


@pytest.fixture
def dataset(bq: bigquery.Client, project: str) -> Iterator[str]:
    name = f"{project}.t{uuid.uuid4().hex}"
    bq.create_dataset(name)
    yield name
    bq.delete_dataset(name, delete_contents=True)


def keyed(name: str, key: tuple[str, ...] = KEY, columns: tuple[SchemaField, ...] = COLUMNS) -> bigquery.Table:
    table = bigquery.Table(name, columns)
    table.table_constraints = bigquery.table.TableConstraints(bigquery.table.PrimaryKey(list(key)), [])
    return table


def of_device(change: dict, device: str) -> dict:
    return {**change, "Device": device}


def temps(bq: bigquery.Client, table: str) -> list[tuple[int, str, float]]:
    """Return minute after T0, device and Temp of each row."""
    rows = emulators.all_rows(bq, table)
    return sorted(((row["Timestamp"] - T0) // timedelta(minutes=1), row["Device"], row["Temp"]) for row in rows)


def test_server_applies_changes_by_key_and_number(bq, dataset, bigquery_storage) -> None:
    table = f"{dataset}.readings"
    bq.create_table(keyed(table))
    client = write_client(bigquery_storage)
    both = [of_device(upsert(minute, 1.0, "1"), device) for minute in (0, 1) for device in "ab"]
    append_changes(client, table, *both, of_device(upsert(0, 2.0, "2"), "a"))
    assert temps(bq, table) == [(0, "a", 2.0), (0, "b", 1.0), (1, "a", 1.0), (1, "b", 1.0)]
    append_changes(client, table, of_device(upsert(0, 9.0, "1"), "a"), of_device(delete(1, "3"), "b"))
    assert temps(bq, table) == [(0, "a", 2.0), (0, "b", 1.0), (1, "a", 1.0)]
    append_changes(client, table, of_device(upsert(1, 9.0, "2"), "b"), of_device(upsert(1, 7.0, "4/0"), "a"))
    assert temps(bq, table) == [(0, "a", 2.0), (0, "b", 1.0), (1, "a", 7.0)]
    assert bq.get_table(table).num_rows == 3


def test_server_returns_every_type_as_sent(bq, dataset, bigquery_storage) -> None:
    table = f"{dataset}.types"
    pair = (SchemaField("key", "STRING"), SchemaField("value", "STRING"))
    columns = {
        "at": ("TIMESTAMP", "INT64", MICROS, T0),
        "text": ("STRING", "STRING", "ä", "ä"),
        "number": ("INTEGER", "INT64", -3, -3),
        "data": ("BYTES", "BYTES", b"\0\xff", b"\0\xff"),
        "flag": ("BOOLEAN", "BOOL", False, False),
        "mean": ("FLOAT", "DOUBLE", 0.1, 0.1),
        "none": ("FLOAT", "DOUBLE", None, None),
    }
    schema = [SchemaField(name, kind) for name, (kind, *_) in columns.items()]
    bq.create_table(bigquery.Table(table, [*schema, SchemaField("pairs", "RECORD", "REPEATED", fields=pair)]))
    sent = {name: value for name, (_, _, value, _) in columns.items() if value is not None}
    append(
        write_client(bigquery_storage), request(table, [sent], {name: kind for name, (_, kind, *_) in columns.items()})
    )
    (row,) = emulators.all_rows(bq, table)
    assert dict(row) == {**{name: value for name, (*_, value) in columns.items()}, "pairs": []}


def test_primary_key_is_stored_until_its_table_is_deleted(bq, dataset) -> None:
    table = f"{dataset}.readings"
    assert bq.create_table(keyed(table)).table_constraints.primary_key.columns == list(KEY)
    assert bq.get_table(table).table_constraints.primary_key.columns == list(KEY)
    bq.delete_table(table)
    bq.create_table(bigquery.Table(table, COLUMNS))
    assert bq.get_table(table).table_constraints is None


def test_primary_key_is_added_and_dropped_by_sql(bq, dataset, bigquery_storage) -> None:
    table = f"{dataset}.readings"
    bq.create_table(bigquery.Table(table, COLUMNS))
    client = write_client(bigquery_storage)
    with pytest.raises(exceptions.InvalidArgument, match="primary keys"):
        append_changes(client, table, upsert(0, 1.0, "1"))
    bq.query_and_wait(f"ALTER TABLE `{table}` ADD PRIMARY KEY (Timestamp) NOT ENFORCED")
    assert bq.get_table(table).table_constraints.primary_key.columns == ["Timestamp"]
    append_changes(client, table, upsert(0, 1.0, "1"))
    bq.query_and_wait(f"ALTER TABLE `{table}` DROP PRIMARY KEY")
    assert bq.get_table(table).table_constraints is None


def test_primary_key_is_added_by_an_update(bq, dataset) -> None:
    table = bq.create_table(bigquery.Table(f"{dataset}.readings", COLUMNS))
    table.table_constraints = keyed(f"{dataset}.readings").table_constraints
    assert bq.update_table(table, ["table_constraints"]).table_constraints.primary_key.columns == list(KEY)


def test_primary_key_of_an_unknown_column_is_refused(bq, dataset) -> None:
    with pytest.raises(exceptions.BadRequest, match="Wind"):
        bq.create_table(keyed(f"{dataset}.readings", ("Wind",)))


def test_deleted_dataset_loses_keys_and_numbers(bq, project, bigquery_storage) -> None:
    dataset = f"{project}.t{uuid.uuid4().hex}"
    table = f"{dataset}.readings"
    client = write_client(bigquery_storage)
    for number in ("2", "1"):
        bq.create_dataset(dataset)
        bq.create_table(keyed(table, ("Timestamp",)))
        append_changes(client, table, upsert(0, 1.0, number))
        assert temps(bq, table) == [(0, None, 1.0)]
        bq.delete_dataset(dataset, delete_contents=True)


def test_rows_keys_and_numbers_persist_when_the_server_is_killed(project, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("BQEMU_PERSISTENCE_MODE", "persistent")
    monkeypatch.setenv("BQEMU_DATA_DIR", str(tmp_path / "data"))
    table = f"{project}.kept.readings"
    with emulators.bigquery_emulator(project, log_dir=tmp_path) as first:
        emulators.create_dataset(first.host, project, "kept")
        emulators.bigquery_client(first.host, project).create_table(keyed(table, ("Timestamp",)))
        client = write_client(first.env[emulators.BIGQUERY_STORAGE])
        append_changes(client, table, upsert(0, 2.0, "2"), delete(1, "2"))
        assert first.child
        first.child.process.kill()
    with emulators.bigquery_emulator(project, log_dir=tmp_path) as second:
        bq = emulators.bigquery_client(second.host, project)
        assert bq.get_table(table).table_constraints.primary_key.columns == ["Timestamp"]
        append_changes(
            write_client(second.env[emulators.BIGQUERY_STORAGE]), table, upsert(0, 1.0, "1"), upsert(1, 1.0, "1")
        )
        assert temps(bq, table) == [(0, None, 2.0)]
