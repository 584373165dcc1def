"""Tables as the Storage Write API sees them, and which of several changes to a row wins."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.cloud.bigquery import SchemaField

Row = dict[str, Any]  # by column name, as Google's client returns it; a column that is not there is NULL
Key = tuple[Any, ...]

# https://cloud.google.com/bigquery/docs/change-data-capture#manage_custom_ordering
_SEQUENCE_NUMBER = re.compile(r"[0-9a-fA-F]{1,16}(/[0-9a-fA-F]{1,16}){0,3}")


@dataclass(frozen=True)
class Table:
    """What is declared of a table; without `primary_key` it takes no changes."""

    columns: Sequence[SchemaField]
    primary_key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A row to put in the place of the one with its key, or only to take that one away."""

    row: Row
    deletes: bool
    sequence: str  # as `sequence` returns it


class Tables(Protocol):
    """Where rows are kept. Tables go by project.dataset.table; calls may come from several threads, one at a time."""

    def find(self, name: str) -> Table | None:
        """Return what is declared of the table, None if there is no such table."""

    def append(self, name: str, rows: Sequence[Row]) -> None:
        """Add rows."""

    def change(self, name: str, changes: Sequence[Change]) -> None:
        """Apply those changes that win."""


def sequence(number: str) -> str | None:
    """Return a _CHANGE_SEQUENCE_NUMBER in a form in which a later one is the greater text; None if it is malformed."""
    if not _SEQUENCE_NUMBER.fullmatch(number):
        return None
    return "/".join(section.lower().zfill(16) for section in number.split("/"))


def winners(changes: Iterable[Change], key: Sequence[str], latest: Mapping[Key, str]) -> dict[Key, Change]:
    """Return the last change of each key: the one with the greatest sequence, of equal ones the one that came last.

    Args:
      changes: in the order in which they came.
      key: the key's columns.
      latest: the sequence of the last change of each key so far, deletions included. What is less is outdated.
    """
    won: dict[Key, Change] = {}
    for change in changes:
        of = tuple(change.row[column] for column in key)
        if change.sequence >= (won[of].sequence if of in won else latest.get(of, "")):
            won[of] = change
    return won


@dataclass
class MemoryTables:
    """Tables in memory. `rows` is what each holds."""

    declared: dict[str, Table] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    _latest: dict[str, dict[Key, str]] = field(default_factory=dict)

    def create(self, name: str, columns: Sequence[SchemaField], primary_key: tuple[str, ...] = ()) -> None:
        """Create a table, empty."""
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
        kept = [row for row in self.rows[name] if tuple(row.get(column) for column in key) not in won]
        self.rows[name] = kept + [change.row for change in won.values() if not change.deletes]
        self._latest[name] |= {of: change.sequence for of, change in won.items()}
