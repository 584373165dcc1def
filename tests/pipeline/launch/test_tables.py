"""Tables before launch, on the BigQuery emulator."""

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import bigquery
from google.cloud.bigquery.table import PrimaryKey, TableConstraints

from pipeline.aggregate.statistics import Statistics
from pipeline.dead_letters import dead_letter
from pipeline.launch import tables, views
from pipeline.launch.tables import TableError, TableId

ROOT = Path(__file__).parents[3]
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


def latest_view(table_id: TableId) -> TableId:
    return table_id.with_suffix("_latest")


def create_filled(table_id: TableId, columns: tuple[bigquery.SchemaField, ...], revise: bool = False) -> None:
    rows = latest_view(table_id) if revise else table_id
    views.create_view(table_id.with_suffix("_filled"), views.filled_query(rows, columns, 15))


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

    def test_is_clustered_by_device_with_devices(self, table_id, bq):
        prepare(table_id, by_device=True)
        table = stored(bq, table_id)
        assert [field.name for field in table.schema] == ["Timestamp", *SENSORS, "Device"]
        assert table.clustering_fields == ["Device"]

    def test_takes_a_dead_letter_if_created_for_dead_letters(self, table_id, bq):
        tables.prepare(table_id, tables.DEAD_LETTER_COLUMNS, "received_at", None)
        letter = dead_letter("decode", "NotJson", "bad", b"\xff\x00", attributes={"site": "north"})
        assert list(letter) == [column.name for column in tables.DEAD_LETTER_COLUMNS]
        assert bq.insert_rows_json(stored(bq, table_id), [letter]) == []
        (row,) = bq.list_rows(stored(bq, table_id))
        assert (row["payload"], row["attributes"]) == (b"\xff\x00", [{"key": "site", "value": "north"}])

    def test_names_the_command_if_the_dataset_is_missing(self, table_id):
        lost = TableId(table_id.project, "nowhere", "readings")
        with pytest.raises(TableError, match=rf"create it with: bq mk --dataset {table_id.project}:nowhere"):
            prepare(lost)


class TestExistingTable:
    def test_is_unchanged_if_it_has_the_columns(self, table_id, bq):
        prepare(table_id)
        made = stored(bq, table_id).created
        prepare(table_id)
        assert stored(bq, table_id).created == made

    def test_is_accepted_with_further_nullable_columns(self, table_id):
        prepare(table_id)
        prepare(table_id, sensors=("Temp", "AtmP"))

    def test_is_refused_with_the_statement_that_adds_missing_columns(self, table_id):
        prepare(table_id, sensors=("Temp",))
        with pytest.raises(TableError) as caught:
            prepare(table_id, by_device=True, sensors=("Temp", "CO2"))
        statement = str(caught.value).partition("add them with: ")[2]
        assert statement == f"ALTER TABLE {table_id.sql} ADD COLUMN `CO2` FLOAT64, ADD COLUMN `Device` STRING"

    def refusal(self, table_id: TableId, spec_columns: tuple[bigquery.SchemaField, ...], **found: Any) -> str:
        """Check a table of Timestamp and one more column, as BigQuery's API would describe it."""
        fields = [{"name": "Timestamp", "type": "TIMESTAMP"}, found]
        described = {"tableReference": table_id.reference.to_api_repr(), "type": "TABLE", "schema": {"fields": fields}}
        with pytest.raises(TableError) as caught:
            tables._check_existing(
                tables.TableSpec(table_id, spec_columns, "Timestamp"), bigquery.Table.from_api_repr(described)
            )
        return str(caught.value)

    TEMP = tables.row_columns(("Temp",), False, False)
    COUNT = tables.row_columns(("Temp",), False, False, Statistics(["count"]))

    @pytest.mark.parametrize("found", ["STRING", "BIGNUMERIC", "TIMESTAMP"])
    def test_is_refused_with_a_column_that_cannot_be_altered(self, table_id, found):
        assert self.refusal(table_id, self.TEMP, name="Temp", type=found) == (
            f"column Temp of table {table_id} is NULLABLE {found}, but NULLABLE FLOAT is needed, and no ALTER TABLE "
            "can change it; name another table"
        )

    @pytest.mark.parametrize("found", ["INTEGER", "NUMERIC"])
    @pytest.mark.parametrize("mode", ["NULLABLE", "REQUIRED"])
    def test_is_refused_with_the_statement_that_widens_a_column(self, table_id, found, mode):
        refusal = self.refusal(table_id, self.TEMP, name="Temp", type=found, mode=mode)
        assert refusal == (
            f"column Temp of table {table_id} is {mode} {found}, but NULLABLE FLOAT is needed; change it with: "
            f"ALTER TABLE {table_id.sql} ALTER COLUMN `Temp` SET DATA TYPE FLOAT64"
        )

    @pytest.mark.parametrize("found", [{"type": "FLOAT"}, {"type": "NUMERIC", "precision": "3"}])
    def test_is_refused_with_a_count_column_that_is_too_narrow(self, table_id, found):
        assert "no ALTER TABLE can change it" in self.refusal(table_id, self.COUNT, name="Temp_count", **found)

    @pytest.mark.parametrize("found", ["INT64", "NUMERIC", "BIGNUMERIC"])
    def test_is_accepted_with_a_wider_count_column(self, table_id, found):
        existing = bigquery.Table(table_id.reference, [self.COUNT[0], bigquery.SchemaField("Temp_count", found)])
        existing._properties["type"] = "TABLE"
        tables._check_existing(tables.TableSpec(table_id, self.COUNT, "Timestamp"), existing)

    @pytest.mark.parametrize("column", ["temp", "TEMP"])
    def test_is_refused_with_a_column_in_another_case(self, table_id, bq, column):
        columns = [bigquery.SchemaField("Timestamp", "TIMESTAMP"), bigquery.SchemaField(column, "FLOAT")]
        bq.create_table(bigquery.Table(table_id.reference, columns))
        with pytest.raises(TableError) as caught:
            prepare(table_id, sensors=("Temp",))
        assert str(caught.value) == (
            f"table {table_id} has the column {column}, and rows have Temp; BigQuery ignores case in column names; "
            "spell the sensor as the column, or name another table"
        )

    def test_is_refused_with_other_fields_in_attributes(self, table_id, bq):
        pairs = bigquery.SchemaField(
            "attributes", "RECORD", mode="REPEATED", fields=[bigquery.SchemaField("name", "STRING")]
        )
        others = [column for column in tables.DEAD_LETTER_COLUMNS if column.name != "attributes"]
        bq.create_table(bigquery.Table(table_id.reference, [*others, pairs]))
        with pytest.raises(
            TableError, match=r"column attributes of .* has fields other than those of `attributes` ARRAY<STRUCT"
        ):
            tables.prepare(table_id, tables.DEAD_LETTER_COLUMNS, "received_at", None)

    def test_is_refused_with_the_statement_that_lifts_a_length_limit(self, table_id):
        columns = tables.row_columns((), by_device=True, revise=False)
        refusal = self.refusal(table_id, columns, name="Device", type="STRING", maxLength="10")
        assert "column Device of" in refusal
        assert "takes at most 10 characters" in refusal
        statement = refusal.partition("change it with: ")[2]
        assert statement == f"ALTER TABLE {table_id.sql} ALTER COLUMN `Device` SET DATA TYPE STRING"

    @pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED_VIEW", "EXTERNAL", "SNAPSHOT"])
    def test_is_refused_if_it_takes_no_rows(self, table_id, kind):
        columns = tables.row_columns(("Temp",), False, False)
        existing = bigquery.Table(table_id.reference, columns)
        existing._properties["type"] = kind
        with pytest.raises(TableError, match=f"is a {kind}, which takes no rows; name a table"):
            tables._check_existing(tables.TableSpec(table_id, columns, "Timestamp"), existing)

    def test_is_refused_if_it_is_a_view(self, table_id):
        prepare(table_id)
        view = table_id.with_suffix("_view")
        views.create_view(view, f"SELECT * FROM {table_id.sql}")
        with pytest.raises(TableError, match="is a VIEW, which takes no rows"):
            prepare(view)

    def test_is_refused_with_the_statement_that_relaxes_a_required_column(self, table_id, bq):
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
    def test_is_declared_by_create_table_and_accepted_by_check_table(self, table_id, bq):
        for _ in range(2):
            prepare(table_id, by_device=True, upsert=True)
        table = stored(bq, table_id)
        assert table.table_constraints.primary_key.columns == ["Timestamp", "Device"]
        assert (table.time_partitioning.field, table.clustering_fields) == ("Timestamp", ["Device"])

    @pytest.mark.parametrize(("by_device", "columns"), [(False, "`Timestamp`"), (True, "`Timestamp`, `Device`")])
    def test_is_added_by_the_statement_of_the_error_if_missing(self, table_id, bq, by_device, columns):
        prepare(table_id, by_device)
        with pytest.raises(TableError, match="has no primary key, which write_method=upsert needs") as caught:
            prepare(table_id, by_device, upsert=True)
        statement = str(caught.value).partition("add it with: ")[2]
        assert statement == f"ALTER TABLE {table_id.sql} ADD PRIMARY KEY ({columns}) NOT ENFORCED"
        bq.query_and_wait(statement)
        prepare(table_id, by_device, upsert=True)

    def test_is_refused_with_other_columns(self, table_id):
        prepare(table_id, by_device=True, upsert=True)
        with pytest.raises(TableError, match=r"has the primary key \(Timestamp, Device\).* DROP PRIMARY KEY; ALTER"):
            prepare(table_id, upsert=True)

    @pytest.mark.parametrize("existing", [None, ("s0",)])
    def test_limits_the_table_to_2000_columns(self, table_id, bq, existing):
        if existing:
            prepare(table_id, sensors=existing, upsert=True)
        sensors = tuple(f"s{n}" for n in range(2_000))
        with pytest.raises(TableError, match="would have 2,001 columns, and BigQuery upserts into at most 2,000"):
            prepare(table_id, sensors=sensors, upsert=True)
        assert len(list(bq.list_tables(table_id.dataset))) == len(existing or ())

    def test_does_not_limit_tables_without_a_key_below_10000_columns(self, table_id, bq):
        sensors = tuple(f"s{n}" for n in range(10_000))
        with pytest.raises(TableError, match="would have 10,001 columns, and BigQuery takes at most 10,000"):
            prepare(table_id, sensors=sensors)
        assert not list(bq.list_tables(table_id.dataset))

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
            views.create_view(latest_view(table_id), views.latest_query(table_id, columns))
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
    def test_hides_retracted_rows_with_any_statistics(self, table_id, bq, names, values):
        chosen = Statistics(names)
        columns = tables.row_columns(SHORT, False, True, chosen)
        tables.prepare(table_id, columns, "Timestamp", None)
        views.create_view(latest_view(table_id), views.latest_query(table_id, columns))
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
            views.create_view(latest_view(table_id), views.latest_query(table_id, columns))
        for _ in range(2):  # the second launch finds the view
            create_filled(table_id, columns, revise)
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

    def test_has_a_row_for_each_interval_and_device_from_first_to_last(self, table_id, bq):
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

    def test_shows_the_newest_revision_of_an_interval(self, table_id, bq):
        rows = [("13:00:00", "a", 1.0, None, 0), ("13:00:00", "a", 4.0, None, 1), ("13:00:30", "a", 3.0, None, 0)]
        assert self.view(table_id, bq, rows, revise=True) == [
            ("13:00:00", "a", 4.0, None, False),
            ("13:00:15", "a", 4.0, None, True),
            ("13:00:30", "a", 3.0, None, False),
        ]

    def test_does_not_carry_counts_forward(self, table_id, bq):
        columns = (*tables.row_columns(("Temp",), False, False), bigquery.SchemaField("Temp_count", "INTEGER"))
        tables.prepare(table_id, columns, "Timestamp", None)
        create_filled(table_id, columns)
        rows = [{"Timestamp": at(clock), "Temp": 1.0, "Temp_count": 7} for clock in ("13:00:00", "13:00:30")]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        found = bq.query_and_wait(f"SELECT Temp, Temp_count, Filled FROM {view} ORDER BY Timestamp")
        assert [tuple(row.values()) for row in found] == [(1.0, 7, False), (1.0, None, True), (1.0, 7, False)]

    def test_has_a_row_for_each_interval_without_devices(self, table_id, bq):
        prepare(table_id)
        create_filled(table_id, tables.row_columns(SENSORS, False, False))
        rows = [{"Timestamp": at(clock), "Temp": value} for clock, value in [("13:00:00", 1.0), ("13:00:30", 2.0)]]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        found = bq.query_and_wait(f"SELECT Temp, Filled FROM {view} ORDER BY Timestamp")
        assert [tuple(row.values()) for row in found] == [(1.0, False), (1.0, True), (2.0, False)]

    def test_leaves_out_rows_older_than_30_days(self, table_id, bq):
        prepare(table_id)
        create_filled(table_id, tables.row_columns(SENSORS, False, False))
        old = datetime.now(UTC) - timedelta(days=31)
        rows = [{"Timestamp": old.isoformat(), "Temp": 1.0}, {"Timestamp": at("13:00:00"), "Temp": 2.0}]
        assert bq.insert_rows_json(stored(bq, table_id), rows) == []
        view = f"`{table_id.project}.{table_id.dataset}.{table_id.table}_filled`"
        assert [row["Temp"] for row in bq.query_and_wait(f"SELECT Temp FROM {view}")] == [2.0]


# Names that the queries use or used for themselves, words that SQL reserves, and functions and types that they call.
NAMES = (
    *(
        "Newest",
        "row",
        "Own",
        "spread",
        "Recent",
        "by_slot",
        "Slot",
        "Next",
        "next_row",
        "Missing",
        "carried",
        "STORED",
        "Revision_",
        "hash",
    ),
    *("select", "FROM", "order", "window", "qualify", "rows", "following", "null", "true"),
    *("coalesce", "if", "row_number", "Filled_", "own_", "readings", "_t", "Temp"),
)


class TestSensorNames:
    """A sensor, and the table, may have any of these names."""

    COLUMNS = tables.row_columns(NAMES, by_device=True, revise=True)

    @pytest.fixture(params=["readings", "Slot", "row"])
    def rows(self, request, table_id, bq) -> TableId:
        """A table with a row that was revised and one that was retracted, at two times."""
        rows = replace(table_id, table=request.param)
        tables.prepare(rows, self.COLUMNS, "Timestamp", "Device")
        written = {"Device": "a", "WrittenAt": at("14:00:00")}
        values = {name: float(n) for n, name in enumerate(NAMES)}
        records = [
            {"Timestamp": at("13:00:00"), **written, "Revision": 0, **dict.fromkeys(NAMES, -1.0)},
            {"Timestamp": at("13:00:00"), **written, "Revision": 1, **values},
            {"Timestamp": at("13:00:15"), **written, "Revision": 0, **values},
            {"Timestamp": at("13:00:15"), **written, "Revision": 1},
            {"Timestamp": at("13:00:30"), **written, "Revision": 0, **values},
        ]
        assert bq.insert_rows_json(stored(bq, rows), records) == []
        return rows

    def test_do_not_change_what_the_views_show(self, rows, bq):
        views.create_view(latest_view(rows), views.latest_query(rows, self.COLUMNS))
        found = list(bq.query_and_wait(f"SELECT * FROM {latest_view(rows).sql} ORDER BY `Timestamp`"))
        assert [list(row.keys()) for row in found] == [[column.name for column in self.COLUMNS]] * 2
        assert [[row[name] for name in NAMES] for row in found] == [[float(n) for n in range(len(NAMES))]] * 2
        filled = rows.with_suffix("_filled")
        views.create_view(filled, views.filled_query(latest_view(rows), self.COLUMNS, 15))
        found = list(bq.query_and_wait(f"SELECT * FROM {filled.sql} ORDER BY `Timestamp`"))
        assert [list(row.keys()) for row in found] == [["Timestamp", *NAMES, "Device", "Filled"]] * 3
        assert [[row[name] for name in NAMES] for row in found] == [[float(n) for n in range(len(NAMES))]] * 3
        assert [row["Filled"] for row in found] == [False, True, False]

    def test_are_no_aliases_of_the_queries(self):
        queries = [views.latest_query(TableId("p-12345", "d", "t"), self.COLUMNS)]
        queries.append(views.filled_query(TableId("p-12345", "d", "t"), self.COLUMNS, 15))
        for query in queries:
            aliases = {alias.lower() for alias in re.findall(r"\bAS (\w+)", query)} - {"filled"}
            tables_named = {alias.lower() for alias in re.findall(r"\b(?:WITH|WINDOW|FROM|\),) (\w+)\b", query)}
            assert aliases
            assert not (aliases | tables_named) & {name.lower() for name in NAMES}


class TestCheckView:
    def test_refuses_a_table_with_the_name_of_the_view(self, table_id):
        prepare(latest_view(table_id))
        with pytest.raises(TableError, match="_latest is a TABLE, and the job needs a view of this name; rename it"):
            views.check_view(latest_view(table_id), "SELECT 1")

    def test_accepts_an_existing_view_or_none(self, table_id):
        prepare(table_id)
        query = f"SELECT * FROM {table_id.sql}"
        views.check_view(latest_view(table_id), query)
        views.create_view(latest_view(table_id), query)
        views.check_view(latest_view(table_id), query)

    def test_refuses_a_query_that_is_too_long_for_bigquery(self, table_id):
        columns = tables.row_columns(tuple(f"{'s' * 290}{n}" for n in range(500)), False, False)
        query = views.filled_query(table_id, columns, 15)
        with pytest.raises(TableError, match=r"would have 1,.* characters, and BigQuery accepts at most 1,000,000"):
            views.check_view(table_id.with_suffix("_filled"), query)


class TestSilenceTable:
    def test_documented_query_returns_each_silence_once(self, table_id, bq):
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


class TestUnreachableBigQuery:
    def test_ends_the_launch_after_a_timeout(self, table_id, monkeypatch):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
        monkeypatch.setattr(tables, "TIMEOUT_SECONDS", 0.5)
        with pytest.raises(TableError, match=r"cannot look up table .* Connection refused") as caught:
            prepare(table_id)
        assert "\n" not in str(caught.value)
