"""Tables before launch, on the BigQuery emulator."""

import uuid

import pytest
from google.cloud import bigquery
from google.cloud.bigquery.table import PrimaryKey, TableConstraints

from pipeline import tables
from pipeline.dead_letters import dead_letter
from pipeline.tables import TableError, TableId

SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")


@pytest.fixture
def table_id(bigquery_emulator, project, monkeypatch) -> TableId:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator)
    dataset = f"d{uuid.uuid4().hex}"
    tables.client(project).create_dataset(dataset)
    return TableId(project, dataset, "readings")


@pytest.fixture
def bq(table_id) -> bigquery.Client:
    return tables.client(table_id.project)


def stored(bq: bigquery.Client, table_id: TableId) -> bigquery.Table:
    return bq.get_table(f"{table_id.project}.{table_id.dataset}.{table_id.table}")


def prepare(
    table_id: TableId, by_device: bool = False, sensors: tuple[str, ...] = SENSORS, upsert: bool = False
) -> None:
    cluster_by = "Device" if by_device else None
    key = tables.row_key(by_device) if upsert else ()
    tables.prepare(table_id, tables.row_columns(sensors, by_device, revise=False), "Timestamp", cluster_by, key)


class TestMissingTable:
    def test_is_created_partitioned_by_day(self, table_id, bq):
        prepare(table_id)
        table = stored(bq, table_id)
        assert [(field.name, tables._type(field), field.mode) for field in table.schema] == [
            ("Timestamp", "TIMESTAMP", "NULLABLE"),
            ("Airtight", "FLOAT", "NULLABLE"),
            ("AtmP", "FLOAT", "NULLABLE"),
            ("H2OC", "FLOAT", "NULLABLE"),
            ("Temp", "FLOAT", "NULLABLE"),
        ]
        assert (table.time_partitioning.type_, table.time_partitioning.field) == ("DAY", "Timestamp")
        assert table.clustering_fields is None

    def test_with_devices_has_the_column_and_is_clustered_by_it(self, table_id, bq):
        prepare(table_id, by_device=True)
        table = stored(bq, table_id)
        assert [field.name for field in table.schema] == ["Timestamp", *SENSORS, "Device"]
        assert table.clustering_fields == ["Device"]

    def test_of_dead_letters_takes_a_dead_letter(self, table_id, bq):
        tables.prepare(table_id, tables.DEAD_LETTER_COLUMNS, "received_at", None)
        letter = dead_letter("decode", "NotJson", "bad", b"\xff\x00", attributes={"site": "north"})
        assert list(letter) == [column.name for column in tables.DEAD_LETTER_COLUMNS]
        assert bq.insert_rows_json(stored(bq, table_id), [letter]) == []
        (row,) = bq.list_rows(stored(bq, table_id))
        assert (row["payload"], row["attributes"]) == (b"\xff\x00", [{"key": "site", "value": "north"}])

    def test_in_a_missing_dataset_names_the_command_that_makes_it(self, table_id):
        lost = TableId(table_id.project, "nowhere", "readings")
        with pytest.raises(TableError, match=rf"create it with: bq mk --dataset {table_id.project}:nowhere"):
            prepare(lost)


class TestExistingTable:
    def test_of_the_same_columns_is_left_alone(self, table_id, bq):
        prepare(table_id)
        made = stored(bq, table_id).created
        prepare(table_id)
        assert stored(bq, table_id).created == made

    def test_with_further_nullable_columns_is_accepted(self, table_id):
        prepare(table_id)
        prepare(table_id, sensors=("Temp", "AtmP"))

    def test_lacking_columns_names_the_statement_that_adds_them(self, table_id):
        prepare(table_id, sensors=("Temp",))
        with pytest.raises(TableError) as caught:
            prepare(table_id, by_device=True, sensors=("Temp", "CO2"))
        statement = str(caught.value).partition("add them with: ")[2]
        assert statement == f"ALTER TABLE {table_id.sql} ADD COLUMN `CO2` FLOAT64, ADD COLUMN `Device` STRING"

    def test_with_a_column_of_another_type_is_refused(self, table_id, bq):
        columns = [bigquery.SchemaField("Timestamp", "TIMESTAMP"), bigquery.SchemaField("Temp", "STRING")]
        bq.create_table(bigquery.Table(f"{table_id.project}.{table_id.dataset}.{table_id.table}", columns))
        with pytest.raises(
            TableError, match=r"column Temp of table .* is NULLABLE STRING, but NULLABLE FLOAT is needed"
        ):
            prepare(table_id, sensors=("Temp",))

    def test_with_a_required_sensor_names_the_statement_that_relaxes_it(self, table_id, bq):
        columns = [
            bigquery.SchemaField("Timestamp", "TIMESTAMP", mode="REQUIRED"),
            bigquery.SchemaField("Temp", "FLOAT", mode="REQUIRED"),
        ]
        bq.create_table(bigquery.Table(f"{table_id.project}.{table_id.dataset}.{table_id.table}", columns))
        with pytest.raises(TableError) as caught:
            prepare(table_id, sensors=("Temp",))
        statement = str(caught.value).partition("relax them with: ")[2]
        assert statement == f"ALTER TABLE {table_id.sql} ALTER COLUMN `Temp` DROP NOT NULL"


class TestPrimaryKey:
    def test_is_declared_when_the_table_is_created_and_found_again(self, table_id, bq):
        for _ in range(2):
            prepare(table_id, by_device=True, upsert=True)
        table = stored(bq, table_id)
        assert table.table_constraints.primary_key.columns == ["Timestamp", "Device"]
        assert (table.time_partitioning.field, table.clustering_fields) == ("Timestamp", ["Device"])

    @pytest.mark.parametrize(("by_device", "columns"), [(False, "`Timestamp`"), (True, "`Timestamp`, `Device`")])
    def test_that_is_missing_names_the_statement_that_adds_it_and_which_bigquery_takes(
        self, table_id, bq, by_device, columns
    ):
        prepare(table_id, by_device)
        with pytest.raises(TableError, match="has no primary key, which write_method=upsert needs") as caught:
            prepare(table_id, by_device, upsert=True)
        statement = str(caught.value).partition("add it with: ")[2]
        assert statement == f"ALTER TABLE {table_id.sql} ADD PRIMARY KEY ({columns}) NOT ENFORCED"
        bq.query_and_wait(statement)
        prepare(table_id, by_device, upsert=True)

    def test_of_other_columns_is_refused(self, table_id):
        prepare(table_id, by_device=True, upsert=True)
        with pytest.raises(TableError, match=r"has the primary key \(Timestamp, Device\).* DROP PRIMARY KEY; ALTER"):
            prepare(table_id, upsert=True)

    def test_takes_no_more_columns_than_bigquery_upserts_into(self, table_id):
        sensors = tuple(f"s{n}" for n in range(2_000))
        with pytest.raises(TableError, match="has 2,001 columns, and BigQuery upserts into at most 2,000"):
            prepare(table_id, sensors=sensors, upsert=True)

    def test_may_be_required(self, table_id, bq):
        columns = [
            bigquery.SchemaField("Timestamp", "TIMESTAMP", mode="REQUIRED"),
            bigquery.SchemaField("Device", "STRING", mode="REQUIRED"),
            bigquery.SchemaField("Temp", "FLOAT"),
        ]
        table = bigquery.Table(table_id.reference, columns)
        table.table_constraints = TableConstraints(PrimaryKey(["Timestamp", "Device"]), None)
        bq.create_table(table)
        prepare(table_id, by_device=True, sensors=("Temp",), upsert=True)


class TestLatestView:
    ROWS = (
        # Timestamp, Temp, AtmP, Device, Revision
        ("13:00:00", 1.0, None, "a", 0),
        ("13:00:00", 2.0, None, "a", 1),
        ("13:00:00", None, 7.0, "b", 0),
        ("13:00:15", 3.0, None, "a", 0),
        ("13:00:15", None, None, "a", 1),  # a retraction
    )

    @pytest.mark.parametrize("times", [1, 2])
    def test_shows_the_newest_revision_and_no_retracted_row(self, table_id, bq, times):
        columns = tables.row_columns(("Temp", "AtmP"), by_device=True, revise=True)
        tables.prepare(table_id, columns, "Timestamp", "Device")
        for _ in range(times):  # the second launch finds the view
            tables.create_latest_view(table_id, ("Temp", "AtmP"), by_device=True)
        rows = [
            {
                "Timestamp": f"2026-11-22T{clock}Z",
                "Temp": temp,
                "AtmP": pressure,
                "Device": device,
                "Revision": revision,
                "WrittenAt": "2026-11-22T14:00:00Z",
            }
            for clock, temp, pressure, device, revision in self.ROWS
        ]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_latest`"
        latest = bq.query_and_wait(f"SELECT * FROM {view} ORDER BY Device")
        assert [list(row.keys()) for row in bq.query_and_wait(f"SELECT * FROM {view} LIMIT 1")] == [
            ["Timestamp", "Temp", "AtmP", "Device", "Revision", "WrittenAt"]
        ]
        assert [(row["Temp"], row["AtmP"], row["Device"], row["Revision"]) for row in latest] == [
            (2.0, None, "a", 1),
            (None, 7.0, "b", 0),
        ]


class TestNoBigQuery:
    def test_says_so_instead_of_trying_for_ever(self, table_id, monkeypatch):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
        monkeypatch.setattr(tables, "_PATIENCE", 0.5)
        with pytest.raises(TableError, match="cannot look up or create table"):
            prepare(table_id)
