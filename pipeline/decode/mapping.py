"""The mapping: where times, devices and values are in messages."""

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

from pipeline.decode.avro import ATTRIBUTES as AVRO_ATTRIBUTES
from pipeline.decode.paths import Attribute, InDocument, Key, MessageTime, Path, Source, parse_path
from pipeline.decode.reading import DEVICE, TIMESTAMP

FORMATS = ("json", "influx", "senml", "csv", "form", "text", "avro")

# Formats whose values are all text; a number in text is then read as a JSON number is in other formats.
TEXT_FORMATS = ("csv", "form", "text")

_PARAMETER = {TIMESTAMP: "timestamp", DEVICE: "device"}
_COLLIDES = (
    "{column} is read from {name}, which dead letters have as a name of their own; rename the column {name}, so that "
    "they can be read when they are sent again"
)


def key_path(name: str) -> Path:
    """Return the path of a top-level member of a document."""
    return Path(name, (InDocument((Key(name),)),))


_TIMESTAMP, _DEVICE = key_path(TIMESTAMP), key_path(DEVICE)


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """Where times, devices and values are in messages; by default, as in the message contract.

    Attributes:
      sensors: the path of each column, in table order; with `sensor_name`, the name of each column in messages.
      format: how the bytes of a message become documents; one of FORMATS.
      csv_columns: names of the columns of `csv`.
      timestamp: path of the event time.
      device: path of the device.
      sensor_name, sensor_value: paths of name and value in documents that list such pairs; None if they do not.
      lenient: whether numbers in text and booleans are values.
      time_zone: IANA name of the zone of timestamps without an offset.
      ignore_no_reading: whether a document in which no sensor was found is ignored instead of rejected.
    """

    sensors: MappingOf[str, str]
    format: str = "json"
    csv_columns: tuple[str, ...] = ()
    timestamp: Path = _TIMESTAMP
    device: Path = _DEVICE
    sensor_name: Path | None = None
    sensor_value: Path | None = None
    lenient: bool = False
    time_zone: str = "UTC"
    ignore_no_reading: bool = False

    @classmethod
    def of_columns(cls, columns: Sequence[str]) -> "Mapping":
        """Return the message contract, for these sensors."""
        return cls(sensors={column: column for column in columns})

    @property
    def is_contract(self) -> bool:
        """Whether it is the message contract, whose decoder is the fastest."""
        return self == Mapping.of_columns(tuple(self.sensors))

    @property
    def sensor_paths(self) -> dict[str, Path]:
        """The path of each column."""
        return {column: parse_path(text) for column, text in self.sensors.items()}

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that are read."""
        named = [source.name for source in self._sources if isinstance(source, Attribute)]
        return tuple(dict.fromkeys([*named, *(AVRO_ATTRIBUTES if self.format == "avro" else ())]))

    @property
    def needs_time(self) -> bool:
        """Whether the message's own event time is read."""
        return self.format == "senml" or any(isinstance(source, MessageTime) for source in self._sources)

    @property
    def array_is_document(self) -> bool:
        """Whether a message that is an array is one document, because every path into it begins with a bracket."""
        first = [source.steps[0] for source in self._sources if isinstance(source, InDocument) and source.steps]
        return bool(first) and not any(isinstance(step, Key) for step in first)

    @property
    def ambiguous(self) -> bool:
        """Whether a path leads into a member of canonical form, so that the mapping could read such a document too."""
        own = {TIMESTAMP, DEVICE, *self.sensors}
        return any(
            isinstance(source, InDocument) and len(source.steps) > 1 and source.steps[0] in {Key(name) for name in own}
            for source in self._sources
        )

    @property
    def _sources(self) -> list[Source]:
        pairs = [path for path in (self.sensor_name, self.sensor_value) if path]
        paths = [self.timestamp, self.device, *(pairs or self.sensor_paths.values())]
        return [source for path in paths for source in path.sources]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (parameter, error) for each parameter that contradicts another."""
        if bool(self.sensor_name) != bool(self.sensor_value):
            given, missing = ("sensor_name", "sensor_value") if self.sensor_name else ("sensor_value", "sensor_name")
            yield given, f"needs {missing} too: names and values are listed in pairs"
        if self.format == "csv" and not self.csv_columns:
            yield "format", "csv needs csv_columns, the names of the columns"
        if self.format != "csv" and self.csv_columns:
            yield "csv_columns", "only csv has columns; give format=csv too, or leave it out"
        if self.sensor_name:
            for name, count in Counter(self.sensors.values()).items():
                if count > 1:
                    yield "sensors", f"the name {name} has two columns; name each once"
            return
        others = {TIMESTAMP: self.timestamp, DEVICE: self.device, **self.sensor_paths}
        for column, path in others.items():
            for source in path.sources:
                [*names] = source.steps if isinstance(source, InDocument) else ()
                if len(names) == 1 and isinstance(names[0], Key) and names[0].name in others.keys() - {column}:
                    yield _PARAMETER.get(column, "sensors"), _COLLIDES.format(column=column, name=names[0].name)
