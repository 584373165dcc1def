"""The emulator's tables: rows and changes are written to them, and their primary keys are stored.

Keys and sequence numbers are stored in the emulator's database, so that they persist as long as its tables.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from bqemulator.api.dependencies import AppContext
from bqemulator.domain.events import TableDataChanged
from bqemulator.storage.sql_identifiers import quoted_table_ref
from google.cloud.bigquery import SchemaField

from local.stack.bigquery_server.tables import Change, Key, Row, Table, winners

_SCHEMA = "_bigquery_server"


class EmulatorTables:
    """Tables of a running emulator.

    The emulator has one connection to DuckDB, which can hang if two threads use it. All work is therefore done in the
    thread of the emulator's event loop, `loop`, between its own requests. Call `declare`, `constraints` and `forget` in
    that thread, and the methods of Tables in any other.
    """

    def __init__(self, context: AppContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._connection = context.engine.connection
        self._execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
        self._execute(f"CREATE TABLE IF NOT EXISTS {_SCHEMA}.constraints (name VARCHAR, declared VARCHAR)")

    # In the event loop.

    def constraints(self, name: str) -> dict[str, Any] | None:
        """Return the table's `tableConstraints`, or None."""
        found = self._execute(f"SELECT declared FROM {_SCHEMA}.constraints WHERE name = ?", [name]).fetchone()
        return json.loads(found[0]) if found else None

    def declare(self, name: str, constraints: dict[str, Any] | None) -> None:
        """Store the table's `tableConstraints`, or with None remove them."""
        self._execute(f"DELETE FROM {_SCHEMA}.constraints WHERE name = ?", [name])
        if constraints:
            self._execute(
                f"INSERT INTO {_SCHEMA}.constraints VALUES (?, ?)", [name, json.dumps(constraints, allow_nan=False)]
            )

    def forget(self, name: str) -> None:
        """Delete what is stored about a deleted table, project.dataset.table, or dataset, project.dataset."""
        names = "SELECT table_name FROM information_schema.tables WHERE table_schema = ?"
        for (stored,) in self._execute(names, [_SCHEMA]).fetchall():
            if stored == name or stored.startswith(f"{name}."):
                self._execute(f'DROP TABLE {_SCHEMA}."{stored}"')
        self._execute(f"DELETE FROM {_SCHEMA}.constraints WHERE name = ? OR starts_with(name, ?)", [name, f"{name}."])

    # In any other thread.

    def find(self, name: str) -> Table | None:
        """See Tables."""
        return self._in_loop(lambda: self._find(name))

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """See Tables."""
        self._in_loop(lambda: self._write(name, lambda table: self._insert(table, rows)))

    def change(self, name: str, changes: Sequence[Change]) -> None:
        """See Tables."""
        self._in_loop(lambda: self._write(name, lambda table: self._change(name, table, changes)))

    def _in_loop(self, work: Callable[[], Any]) -> Any:
        async def locked() -> Any:
            async with self._context.engine.write_lock():
                return work()

        return asyncio.run_coroutine_threadsafe(locked(), self._loop).result()

    def _find(self, name: str) -> Table | None:
        declared = self._context.catalog.get_table(*name.rsplit(".", 2))
        if declared is None:
            return None
        key = (self.constraints(name) or {}).get("primaryKey", {}).get("columns", ())
        return Table([_column(field) for field in declared.schema_.fields], tuple(key))

    def _write(self, name: str, work: Callable[[str], None]) -> None:
        """Call `work` with the quoted name of the table, in one transaction, and notify the emulator."""
        parts = name.rsplit(".", 2)
        table = quoted_table_ref(*parts)
        self._execute("BEGIN")
        try:
            work(table)
            (count,) = self._execute(f"SELECT count(*) FROM {table}").fetchone()
            self._execute("COMMIT")
        except BaseException:
            self._execute("ROLLBACK")
            raise
        if declared := self._context.catalog.get_table(*parts):
            self._context.catalog.update_table(declared.model_copy(update={"num_rows": count}))
        # Invalidates the emulator's caches. `snapshots.record_change` would copy the table for each write.
        self._context.events.publish(TableDataChanged(*parts))

    def _change(self, name: str, table: str, changes: Sequence[Change]) -> None:
        key = self._find(name).primary_key  # type: ignore[union-attr]
        columns = ", ".join(f'"{column}"' for column in key)
        latest = f'{_SCHEMA}."{name}"'
        self._execute(f"CREATE TABLE IF NOT EXISTS {latest} AS SELECT {columns}, '' AS sequence FROM {table} LIMIT 0")
        keys = {tuple(change.row[column] for column in key): "" for change in changes}
        with _Given(self._connection, self._as_arrow(latest, _numbered(key, keys.items()))):
            query = f"SELECT * FROM {latest} SEMI JOIN given USING ({columns})"
            known = self._connection.execute(query).to_arrow_table().to_pylist()
        won = winners(changes, key, {tuple(row[column] for column in key): row["sequence"] for row in known})
        sequences = _numbered(key, ((row_key, change.sequence) for row_key, change in won.items()))
        with _Given(self._connection, self._as_arrow(latest, sequences)):
            for target in (table, latest):
                same = " AND ".join(f'target."{column}" = given."{column}"' for column in key)
                self._execute(f"DELETE FROM {target} AS target USING given WHERE {same}")
            self._execute(f"INSERT INTO {latest} BY NAME SELECT * FROM given")
        self._insert(table, [change.row for change in won.values() if not change.deletes])

    def _insert(self, table: str, rows: Sequence[Row]) -> None:
        with _Given(self._connection, self._as_arrow(table, rows)):
            self._execute(f"INSERT INTO {table} BY NAME SELECT * FROM given")

    def _as_arrow(self, table: str, rows: Iterable[Row]) -> pa.Table:
        columns = self._execute(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema
        return pa.Table.from_pylist(list(rows), columns)

    def _execute(self, sql: str, parameters: list[Any] | None = None) -> Any:
        return self._connection.execute(sql, parameters)


class _Given:
    """An Arrow table that SQL can use as `given` for the length of a `with` block."""

    def __init__(self, connection: Any, table: pa.Table) -> None:
        self._connection = connection
        self._table = table

    def __enter__(self) -> None:
        self._connection.register("given", self._table)

    def __exit__(self, *_: object) -> None:
        self._connection.unregister("given")


def _numbered(key: Sequence[str], sequences: Iterable[tuple[Key, str]]) -> list[Row]:
    return [dict(zip(key, row_key, strict=True), sequence=sequence) for row_key, sequence in sequences]


def _column(field: Any) -> SchemaField:
    return SchemaField(field.name, field.type, field.mode, fields=[_column(inner) for inner in field.fields])
