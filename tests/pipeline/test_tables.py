"""Tables before launch, on the BigQuery emulator."""

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.cloud import bigquery
from google.cloud.bigquery.table import PrimaryKey, TableConstraints

from pipeline import tables, views
from pipeline.dead_letters import dead_letter
from pipeline.statistics import Statistics
from pipeline.tables import TableError, TableId

ROOT = Path(__file__).parents[2]
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
            views.create_latest_view(table_id, ("Temp", "AtmP"), by_device=True)
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

    @pytest.mark.parametrize(
        ("names", "values"),
        [
            # stddev is NULL for one reading, which is no retraction.
            (("stddev", "count"), {"Temp_stddev": None, "Temp_count": 1}),
            (("count",), {"Temp_count": 2}),
            (("mean", "min", "count"), {"Temp": 1.5, "Temp_min": 1.0, "Temp_count": 2}),
        ],
    )
    def test_tells_a_retraction_by_whatever_statistics_there_are(self, table_id, bq, names, values):
        chosen = Statistics(names)
        tables.prepare(table_id, tables.row_columns(SHORT, False, True, chosen), "Timestamp", None)
        views.create_latest_view(table_id, SHORT, False, chosen)
        written = {"WrittenAt": at("14:00:00")}
        rows = [
            {"Timestamp": at("13:00:00"), "Revision": 0, **values, **written},
            {"Timestamp": at("13:00:15"), "Revision": 0, **values, **written},
            {"Timestamp": at("13:00:15"), "Revision": 1, **written},
        ]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_latest`"
        [row] = bq.query_and_wait(f"SELECT {', '.join(values)}, Timestamp FROM {view}")
        assert dict(row) == {**values, "Timestamp": datetime.fromisoformat(at("13:00:00"))}


def at(clock: str) -> str:
    return f"{TODAY}T{clock}Z"


TODAY = datetime.now(UTC).date() - timedelta(days=2)
SHORT = ("Temp", "AtmP")


class TestFilledView:
    def view(self, table_id: TableId, bq: bigquery.Client, rows: list[tuple], revise: bool = False) -> list[tuple]:
        """Store rows (clock, Device, Temp, AtmP[, Revision]) and return those of the view, as (clock, ..., Filled)."""
        columns = tables.row_columns(SHORT, True, revise)
        tables.prepare(table_id, columns, "Timestamp", "Device")
        if revise:
            views.create_latest_view(table_id, SHORT, by_device=True)
        for _ in range(2):  # the second launch finds the view
            views.create_filled_view(table_id, columns, 15)
        names = ["Timestamp", "Device", "Temp", "AtmP", "Revision"]
        records = [dict(zip(names, (at(row[0]), *row[1:]), strict=False)) for row in rows]
        if revise:
            records = [{**record, "WrittenAt": at("14:00:00")} for record in records]
        assert bq.insert_rows_json(stored(bq, table_id), records) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        found = list(bq.query_and_wait(f"SELECT * FROM {view} ORDER BY Device, Timestamp"))
        assert list(found[0].keys()) == ["Timestamp", "Temp", "AtmP", "Device", "Filled"]
        return [
            (f"{row['Timestamp']:%H:%M:%S}", row["Device"], row["Temp"], row["AtmP"], row["Filled"]) for row in found
        ]

    def test_has_a_row_of_each_interval_and_device_from_first_to_last(self, table_id, bq):
        rows = [
            ("13:00:00", "a", 1.0, 10.0),
            ("13:00:45", "a", 2.0, None),
            ("13:00:15", "b", 5.0, 50.0),
            ("13:00:45", "b", 6.0, 60.0),
            ("13:00:00", None, 8.0, None),
            ("13:00:30", None, None, 9.0),
        ]
        assert self.view(table_id, bq, rows) == [
            ("13:00:00", None, 8.0, None, False),
            ("13:00:15", None, 8.0, None, True),
            ("13:00:30", None, 8.0, 9.0, True),
            ("13:00:00", "a", 1.0, 10.0, False),
            ("13:00:15", "a", 1.0, 10.0, True),
            ("13:00:30", "a", 1.0, 10.0, True),
            ("13:00:45", "a", 2.0, 10.0, True),
            ("13:00:15", "b", 5.0, 50.0, False),
            ("13:00:30", "b", 5.0, 50.0, True),
            ("13:00:45", "b", 6.0, 60.0, False),
        ]

    def test_carries_a_value_for_twenty_intervals(self, table_id, bq):
        found = self.view(table_id, bq, [("13:00:00", "a", 1.0, 3.0), ("13:10:00", "a", 2.0, 4.0)])
        assert len(found) == 41
        assert [row[2:] for row in found] == [
            (1.0, 3.0, False),
            *[(1.0, 3.0, True)] * 20,
            *[(None, None, True)] * 19,
            (2.0, 4.0, False),
        ]

    def test_shows_both_rows_of_an_interval_that_has_two(self, table_id, bq):
        rows = [("13:00:00", "a", 1.0, None), ("13:00:00", "a", 2.0, None), ("13:00:30", "a", 3.0, None)]
        found = self.view(table_id, bq, rows)
        assert sorted(row[2] for row in found if row[0] == "13:00:00") == [1.0, 2.0]
        assert [(row[0], row[4]) for row in found] == [
            ("13:00:00", False),
            ("13:00:00", False),
            ("13:00:15", True),
            ("13:00:30", False),
        ]

    def test_shows_an_interval_as_it_was_last_revised(self, table_id, bq):
        rows = [("13:00:00", "a", 1.0, None, 0), ("13:00:00", "a", 4.0, None, 1), ("13:00:30", "a", 3.0, None, 0)]
        assert self.view(table_id, bq, rows, revise=True) == [
            ("13:00:00", "a", 4.0, None, False),
            ("13:00:15", "a", 4.0, None, True),
            ("13:00:30", "a", 3.0, None, False),
        ]

    def test_carries_no_count(self, table_id, bq):
        columns = (*tables.row_columns(("Temp",), False, False), bigquery.SchemaField("Temp_count", "INTEGER"))
        tables.prepare(table_id, columns, "Timestamp", None)
        views.create_filled_view(table_id, columns, 15)
        rows = [{"Timestamp": at(clock), "Temp": 1.0, "Temp_count": 7} for clock in ("13:00:00", "13:00:30")]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        found = bq.query_and_wait(f"SELECT Temp, Temp_count, Filled FROM {view} ORDER BY Timestamp")
        assert [tuple(row.values()) for row in found] == [(1.0, 7, False), (1.0, None, True), (1.0, 7, False)]

    def test_without_devices_has_a_row_of_each_interval(self, table_id, bq):
        prepare(table_id)
        views.create_filled_view(table_id, tables.row_columns(SENSORS, False, False), 15)
        rows = [{"Timestamp": at(clock), "Temp": value} for clock, value in [("13:00:00", 1.0), ("13:00:30", 2.0)]]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        found = bq.query_and_wait(f"SELECT Temp, Filled FROM {view} ORDER BY Timestamp")
        assert [tuple(row.values()) for row in found] == [(1.0, False), (1.0, True), (2.0, False)]

    def test_leaves_out_what_is_older_than_a_month_so_that_a_look_does_not_read_everything(self, table_id, bq):
        prepare(table_id)
        views.create_filled_view(table_id, tables.row_columns(SENSORS, False, False), 15)
        old = datetime.now(UTC) - timedelta(days=31)
        rows = [{"Timestamp": old.isoformat(), "Temp": 1.0}, {"Timestamp": at("13:00:00"), "Temp": 2.0}]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        assert [row["Temp"] for row in bq.query_and_wait(f"SELECT Temp FROM {view}")] == [2.0]


class TestSilences:
    def test_the_documented_query_shows_each_silence_once_as_it_ended(self, table_id, bq):
        page = (ROOT / "docs/tables.md").read_text()
        query = re.search(r"```sql\n(SELECT Device, SilentSince.*?)```", page, re.DOTALL)[1]
        silences = replace(table_id, table="readings_silences")
        tables.prepare(silences, tables.SILENCE_COLUMNS, "SilentSince", "Device")
        rows = [
            ("a", "13:00:00", "13:01:00", None),
            ("a", "13:00:00", "13:01:00", "13:09:00"),
            ("a", "13:00:00", "13:01:00", "13:08:00"),
            ("a", "13:20:00", "13:21:00", None),
            (None, "13:00:00", "13:01:00", None),
        ]
        names = [column.name for column in tables.SILENCE_COLUMNS]
        records = [
            dict(zip(names, (device, *(clock and at(clock) for clock in clocks)), strict=True))
            for device, *clocks in rows
        ]
        assert bq.insert_rows_json(stored(bq, silences), records) == []
        found = bq.query_and_wait(query.replace("`my-project.sensors.readings_silences`", silences.sql))
        assert sorted(
            ((row[0], *(one and f"{one:%H:%M}" for one in row[1:])) for row in map(tuple, found)), key=str
        ) == [
            ("a", "13:00", "13:01", "13:08"),
            ("a", "13:20", "13:21", None),
            (None, "13:00", "13:01", None),
        ]


class TestNoBigQuery:
    def test_says_so_instead_of_trying_for_ever(self, table_id, monkeypatch):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
        monkeypatch.setattr(tables, "PATIENCE", 0.5)
        with pytest.raises(TableError, match="cannot look up or create table"):
            prepare(table_id)
