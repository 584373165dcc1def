"""Tables of the Storage Write API, and the order of changes to a row."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.cloud.bigquery import SchemaField

Row = dict[str, Any]  # by column name, as Google's client returns it; a missing column is NULL
Key = tuple[Any, ...]

# https://cloud.google.com/bigquery/docs/change-data-capture#manage_custom_ordering
_SEQUENCE_NUMBER = re.compile(r"[0-9a-fA-F]{1,16}(/[0-9a-fA-F]{1,16}){0,3}")


@dataclass(frozen=True)
class Table:
    """The schema of a table; without `primary_key` it accepts no changes."""

    columns: Sequence[SchemaField]
    primary_key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A row that replaces the row with the same key; if `deletes`, that row is deleted."""

    row: Row
    deletes: bool
    sequence: str  # as `sequence` returns it


class Tables(Protocol):
    """A store of tables, named project.dataset.table; may be called from several threads, one at a time."""

    def find(self, name: str) -> Table | None:
        """Return the schema of the table, or None if it does not exist."""

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """Add rows."""

    def change(self, name: str, changes: Sequence[Change]) -> None:
        """Apply changes in the order of their sequence numbers."""


def sequence(number: str) -> str | None:
    """Convert a _CHANGE_SEQUENCE_NUMBER to text that sorts like the numbers; returns None if it is malformed."""
    if not _SEQUENCE_NUMBER.fullmatch(number):
        return None
    return "/".join(section.lower().zfill(16) for section in number.split("/"))


def winners(changes: Iterable[Change], key: Sequence[str], latest: Mapping[Key, str]) -> dict[Key, Change]:
    """Return the change of each key that takes effect: the one with the greatest sequence, among equals the last.

    Args:
      changes: in the order of arrival.
      key: the columns of the primary key.
      latest: the sequence of the latest change of each key so far, including deletions. Changes with a smaller one have
        no effect.
    """
    won: dict[Key, Change] = {}
    for change in changes:
        row_key = tuple(change.row[column] for column in key)
        if change.sequence >= (won[row_key].sequence if row_key in won else latest.get(row_key, "")):
            won[row_key] = change
    return won


@dataclass
class MemoryTables:
    """Tables in memory; `rows` has the rows of each."""

    declared: dict[str, Table] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    _latest: dict[str, dict[Key, str]] = field(default_factory=dict)

    def create(self, name: str, columns: Sequence[SchemaField], primary_key: tuple[str, ...] = ()) -> None:
        """Create an empty table."""
        self.declared[name] = Table(columns, primary_key)
        self.rows[name] = []
        self._latest[name] = {}

    def find(self, name: str) -> Table | None:
        """See Tables."""
        return self.declared.get(name)

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """See Tables."""
        self.rows[name] += rows

    def change(self, name: str, changes: Sequence[Change]) -> None:
        """See Tables."""
        key = self.declared[name].primary_key
        won = winners(changes, key, self._latest[name])
        unchanged = [row for row in self.rows[name] if tuple(row.get(column) for column in key) not in won]
        self.rows[name] = unchanged + [change.row for change in won.values() if not change.deletes]
        self._latest[name] |= {row_key: change.sequence for row_key, change in won.items()}
