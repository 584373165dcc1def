"""The emulator's tables: what the Storage Write API does to them, and the primary keys that the emulator forgets.

All that is remembered is in the emulator's own database, and so as long-lived as its tables.
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

_OURS = "_bigquery_server"


class EmulatorTables:
    """Tables of a running emulator.

    The emulator has one connection to DuckDB, which two threads can bring to a standstill. So everything is done in the
    thread of its event loop, `loop`, between two of its own requests: `declare`, `constraints` and `forget` are called
    there, the methods of Tables from any other thread.
    """

    def __init__(self, context: AppContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._connection = context.engine.connection
        self._execute(f"CREATE SCHEMA IF NOT EXISTS {_OURS}")
        self._execute(f"CREATE TABLE IF NOT EXISTS {_OURS}.constraints (name VARCHAR, declared VARCHAR)")

    # In the event loop.

    def constraints(self, name: str) -> dict[str, Any] | None:
        """Return the table's `tableConstraints`, None if it has none."""
        found = self._execute(f"SELECT declared FROM {_OURS}.constraints WHERE name = ?", [name]).fetchone()
        return json.loads(found[0]) if found else None

    def declare(self, name: str, constraints: dict[str, Any] | None) -> None:
        """Remember the table's `tableConstraints`, None for none, instead of those it had. They are no part of rows."""
        self._execute(f"DELETE FROM {_OURS}.constraints WHERE name = ?", [name])
        if constraints:
            self._execute(
                f"INSERT INTO {_OURS}.constraints VALUES (?, ?)", [name, json.dumps(constraints, allow_nan=False)]
            )

    def forget(self, name: str) -> None:
        """Forget a table that is no more, or all of a dataset, project.dataset."""
        names = "SELECT table_name FROM information_schema.tables WHERE table_schema = ?"
        for (ours,) in self._execute(names, [_OURS]).fetchall():
            if ours == name or ours.startswith(f"{name}."):
                self._execute(f'DROP TABLE {_OURS}."{ours}"')
        self._execute(f"DELETE FROM {_OURS}.constraints WHERE name = ? OR starts_with(name, ?)", [name, f"{name}."])

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
        """Do `work` on the table of this quoted name, in one transaction, and tell the emulator of it."""
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
        # Its caches hang on this. Not `snapshots.record_change`, which copies the table for each write.
        self._context.events.publish(TableDataChanged(*parts))

    def _change(self, name: str, table: str, changes: Sequence[Change]) -> None:
        key = self._find(name).primary_key  # type: ignore[union-attr]
        columns = ", ".join(f'"{column}"' for column in key)
        latest = f'{_OURS}."{name}"'
        self._execute(f"CREATE TABLE IF NOT EXISTS {latest} AS SELECT {columns}, '' AS sequence FROM {table} LIMIT 0")
        keys = {tuple(change.row[column] for column in key): "" for change in changes}
        with _Given(self._connection, self._as_arrow(latest, _numbered(key, keys.items()))):
            of_batch = f"SELECT * FROM {latest} SEMI JOIN given USING ({columns})"
            known = self._connection.execute(of_batch).to_arrow_table().to_pylist()
        won = winners(changes, key, {tuple(row[column] for column in key): row["sequence"] for row in known})
        sequences = _numbered(key, ((of, change.sequence) for of, change in won.items()))
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
    """An Arrow table that SQL knows as `given`, for the length of a `with` block."""

    def __init__(self, connection: Any, table: pa.Table) -> None:
        self._connection = connection
        self._table = table

    def __enter__(self) -> None:
        self._connection.register("given", self._table)

    def __exit__(self, *_: object) -> None:
        self._connection.unregister("given")


def _numbered(key: Sequence[str], sequences: Iterable[tuple[Key, str]]) -> list[Row]:
    return [dict(zip(key, of, strict=True), sequence=sequence) for of, sequence in sequences]


def _column(field: Any) -> SchemaField:
    return SchemaField(field.name, field.type, field.mode, fields=[_column(inner) for inner in field.fields])
