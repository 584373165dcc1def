"""Types of parameter values: how a value is written as text, and how the text is read."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.aggregate.statistics import STATISTICS as KNOWN
from pipeline.aggregate.statistics import Statistics
from pipeline.decode.paths import Path, PathError, parse_path
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.launch import one_line
from pipeline.sinks.bigquery import PROJECT, TableId

T = TypeVar("T")


@dataclass(frozen=True)
class ValueType(Generic[T]):
    """How a value is written as text.

    Attributes:
      pattern: matches the entire text. It uses only the POSIX extended syntax that Python reads in the same way, so
        the template's form and `read` accept the same texts.
      expected: the pattern in words.
      value: converts a text that matches; raises ValueError if it breaks a rule that a pattern cannot express.
      choices: the label of each possible value, if there are few.
    """

    pattern: str
    expected: str
    value: Callable[[str], T]
    choices: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> T:
        """Return the value of the text; raises ValueError, whose message says what is expected."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"expected {self.expected}")
        return self.value(text)


def pubsub_path(kind: str) -> ValueType[str]:
    """Return the type of the full name of a topic or a subscription (`kind`)."""
    # https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
    return ValueType(
        f"projects/{PROJECT}/{kind}s/[A-Za-z][-A-Za-z0-9_.~+%]{{2,254}}",
        f"projects/PROJECT/{kind}s/NAME with a project id of 6 to 63 characters and a name of 3 to 255, each beginning "
        "with a letter",
        str,
    )


def duration(at_least_one: bool) -> ValueType[int]:
    """Return the type of a length of time; its value is in seconds, at most a year."""
    positive = "[1-9][0-9]{0,8}[smh]"
    if at_least_one:
        return ValueType(positive, "a whole number above 0 with s, m or h, such as 15s, 5m or 1h", _seconds)
    return ValueType(f"0[smh]|{positive}", "a whole number with s, m or h, such as 0s, 5m or 1h", _seconds)


def _seconds(text: str) -> int:
    seconds = int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
    if seconds > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST // 3600}h, a year")
    return seconds


def _micros(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"no such date: {error}") from None
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def one_of(choices: Mapping[str, str]) -> ValueType[str]:
    """Return the type of a value that is one of few; `choices` gives the label of each."""
    return ValueType("|".join(choices), f"one of {', '.join(choices)}", str, choices)


def _attribute(text: str) -> str:
    # https://cloud.google.com/pubsub/quotas#resource_limits
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("expected an attribute name in UTF-8") from None
    if size > 256:
        raise ValueError("expected an attribute name of at most 256 bytes")
    if not text.isprintable():
        raise ValueError("expected an attribute name without control characters")
    if text.startswith("goog"):
        raise ValueError("expected another attribute name; names that begin with goog are reserved for Pub/Sub")
    return text


class Sensors(tuple[str, ...]):
    """Names of columns, in table order.

    Attributes:
      places: by column, where its value is in a message: a path, or a name in a list of names and values.
    """

    places: dict[str, str]

    def __new__(cls, places: Mapping[str, str]) -> "Sensors":
        """Return the columns of `places`."""
        sensors = super().__new__(cls, places)
        sensors.places = dict(places)
        return sensors

    def __getnewargs__(self) -> tuple[dict[str, str]]:
        return (self.places,)


def _sensors(text: str) -> Sensors:
    # Pairs, because a dictionary would hide a column that is named twice.
    sensors = re.findall("""(?:[^,'"]|'[^']*'|"[^"]*")+""", text)
    pairs = [(column.strip(), place.strip()) for column, _, place in (sensor.partition("=") for sensor in sensors)]
    names = [column for column, _ in pairs]
    taken = {TIMESTAMP.lower(), DEVICE.lower(), "revision", "writtenat"}
    for name in names:
        # https://cloud.google.com/bigquery/docs/schemas#column_names
        if len(name) > 300:
            raise ValueError("expected names of at most 300 characters")
        # The prefixes also apply to the columns of its statistics: the sensor _TABLE would have a column _TABLE_max.
        if f"{name}_".upper().startswith(_RESERVED_PREFIXES):
            raise ValueError(f"{one_line.value(name)} begins with a prefix that BigQuery reserves; rename the sensor")
        if name.lower() in taken:
            raise ValueError(
                f"{one_line.value(name)} is already the name of another sensor or of a fixed column (BigQuery "
                "ignores case in column names); name each sensor once"
            )
        taken.add(name.lower())
    return Sensors({column: place or column for column, place in pairs})


def _path(text: str) -> Path:
    try:
        return parse_path(text)
    except PathError as error:
        raise ValueError(str(error)) from None


def _csv_columns(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name and names.count(name) > 1:
            raise ValueError(f"{one_line.value(name)} occurs twice; name each column once")
    return names


def _time_zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; expected an IANA name, such as Europe/Berlin") from None


def _statistics(text: str) -> Statistics:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} occurs twice; name each statistic once")
    return Statistics(names)


# A year; beyond it a window would outlive any job, and its state with it.
_LONGEST = 366 * 24 * 3600

_RESERVED_PREFIXES = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_")

BOOLEAN = ValueType("true|false", "true or false", lambda text: text == "true")
ATTRIBUTE = ValueType("[^ \"']+", "an attribute name without spaces or quotes", _attribute)
RFC3339 = ValueType(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,6})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])",
    "a time with its offset from UTC, such as 2026-11-22T13:00:00Z",
    _micros,
)
_COLUMN = " *[A-Za-z_][A-Za-z0-9_]* *"
_PLACE = """([^,'"]|'[^']*'|"[^"]*")+"""
SENSORS = ValueType(
    f"{_COLUMN}(={_PLACE})?(,{_COLUMN}(={_PLACE})?)*",
    "comma-separated column names of letters A to Z, digits and _, each with = and a path if that differs, such as "
    "Temp,AtmP=payload.pressure",
    _sensors,
)
PATH = ValueType("[^ '\"].*", "a path, such as payload.time", _path)
CSV_COLUMNS = ValueType("[^\"']*[^ ,\"'][^\"']*", "comma-separated column names, without quotes", _csv_columns)
TIME_ZONE = ValueType("[A-Za-z][A-Za-z0-9_+/-]*", "an IANA name, such as Europe/Berlin", _time_zone)
_STATISTIC = f" *({'|'.join(KNOWN)}) *"
STATISTICS = ValueType(
    f"{_STATISTIC}(,{_STATISTIC})*",
    f"comma-separated names from {', '.join(KNOWN)}",
    _statistics,
)
TABLE = ValueType(
    f"{PROJECT}[:.][A-Za-z0-9_]+[.][-A-Za-z0-9_]+",
    "project:dataset.table, for example my-project:sensors.readings",
    TableId.parse,
)
