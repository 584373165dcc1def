"""A compiled mapping, which reads time, device and values from the rows of a document."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pipeline.decode import values
from pipeline.decode.envelope import Envelope
from pipeline.decode.mapping import TEXT_FORMATS, Mapping
from pipeline.decode.paths import Attribute, Every, InDocument, MessageTime, Path, Source
from pipeline.decode.shapes import NotPlain, Shape
from pipeline.decode.walk import Walk


class RowReader:
    """Reads the value of one path from a row.

    Args:
      found: the slot of the row and the segment of each alternative of the path.

    Attributes:
      slot: the slot that has the value, if the path has no alternatives and no segment; otherwise None.
    """

    def __init__(self, found: list[tuple[int, int | None]]):
        [(first, segment), *others] = found
        self.slot = first if segment is None and not others else None
        self._found = found

    def __call__(self, row: Sequence[Any]) -> Any:
        """Return the value of the first alternative that has one, or None."""
        if self.slot is not None:
            return row[self.slot]
        for slot, segment in self._found:
            value = row[slot] if segment is None else _segment(row[slot], segment)
            if value is not None:
                return value
        return None


class Plan:
    """A compiled mapping.

    Attributes:
      walk: finds the rows of a document.
      shape: finds them in the bytes of a message; None if the paths are not plain.
      timestamp, device: read the timestamp and the device from a row.
      columns: each column with the reader of its value; empty if documents list names and values.
      name, value: read a name and its value from a row; None unless documents list names and values.
      column_of: the column of each name.
      read_value: converts a value to a float.
    """

    def __init__(self, mapping: Mapping, guard: str = ""):
        self._slots: dict[Source, int] = {}
        self._each_record = mapping.format == "senml"
        self.timestamp = self._reader(mapping.timestamp)
        self.device = self._reader(mapping.device)
        self.name = self._reader(mapping.sensor_name) if mapping.sensor_name else None
        self.value = self._reader(mapping.sensor_value) if mapping.sensor_value else None
        self.columns: list[tuple[str, RowReader]] = []
        self.column_of: dict[str, str] = {}
        if self.name:
            self.column_of = {name: column for column, name in mapping.sensors.items()}
        else:
            self.columns = [(column, self._reader(path)) for column, path in mapping.sensor_paths.items()]
        sources = list(self._slots)
        self._extras = [(slot, source) for slot, source in enumerate(sources) if not isinstance(source, InDocument)]
        self._empty: list[Any] = [None] * len(sources)
        self.walk = Walk([source if isinstance(source, InDocument) else None for source in sources])
        self.shape: Shape | None = None
        if mapping.format == "json" and guard:
            with suppress(NotPlain):
                self.shape = Shape(self.walk.root, guard)
        self.read_value: values.ReadValue = values.strict
        if mapping.lenient:
            self.read_value = values.lenient
        elif mapping.format in TEXT_FORMATS:
            self.read_value = values.plain_text

    def row(self, envelope: Envelope) -> list[Any]:
        """Return a row that holds what the mapping reads from the envelope of a message."""
        row = self._empty.copy()
        for slot, source in self._extras:
            known: Any = envelope.time if isinstance(source, MessageTime) else envelope.attributes.get(source.name)
            row[slot] = known
        return row

    def raw_values(self, row: Sequence[Any]) -> Iterator[tuple[str, Any]]:
        """Yield (column, value) for each column that has a value in a row, before it is converted."""
        if self.name and self.value:
            name = self.name(row)
            column = self.column_of.get(name if isinstance(name, str) else str(name))
            value = self.value(row) if column else None
            if column and value is not None:
                yield column, value
        for column, read in self.columns:
            value = read(row)
            if value is not None:
                yield column, value

    def _reader(self, path: Path) -> RowReader:
        found = [(self._slot(source), source.segment) for source in path.sources]
        return RowReader(found)

    def _slot(self, source: Source) -> int:
        key: Source = source
        if isinstance(source, InDocument):
            steps = (Every(), *source.steps) if self._each_record else source.steps
            key = InDocument(steps, source.takes_key)
        elif isinstance(source, Attribute):
            key = Attribute(source.name)
        return self._slots.setdefault(key, len(self._slots))


def _segment(value: Any, number: int) -> str | None:
    """Return a part of a text between slashes, from 0 on, or from -1 down; None if there is none."""
    if not isinstance(value, str):
        return None
    parts = value.split("/", number + 1) if number >= 0 else value.rsplit("/", -number)
    # A split that stopped early leaves the rest of the text in one more part.
    return parts[number] if -len(parts) <= number < len(parts) else None
