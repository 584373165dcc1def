"""The preview for people: readings as a table, and for each rejected message what to do about it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.decode import strict_json
from pipeline.decode.errors import Rejection
from pipeline.decode.reading import DEVICE, TIMESTAMP, Reading
from pipeline.launch import one_line
from pipeline.preview.decoding import Decoded
from pipeline.preview.messages import Message
from pipeline.timestamps import rfc3339

MAX_READINGS = 50  # rows of the table
MAX_MESSAGES = 5  # rejected messages that are described
_MAX_REASONS = 3  # of a message
_MAX_PATHS = 40  # of a message
_MAX_VALUE = 60  # characters
_MAX_DATA = 200  # bytes of a message without paths

# What to set, by the error.
_ADVICE = {
    "BadTimestamp": "set --timestamp to the path of the event time, or to message:time, the time of publishing",
    "FutureTimestamp": "set --time_zone if the time has no offset, or --max_future_skew if the device's clock is ahead",
    "BadDevice": "set --device to the path of the device",
    "BadValue": "set --values=lenient to read numbers in text and booleans, or --sensors to other paths",
    "NoKnownSensor": "set --sensors to COLUMN=PATH,..., or --no_reading=ignore if such messages have no reading",
    "NotJson": "set --format to what the data is: influx, csv, form, text or avro",
    "BadFormat": "set --format to what the data is, or leave it out for JSON",
    "NotAReading": "set --format=text if the data is a single value, or --sensors to paths that begin with [*]",
    "UnequalLists": "set --timestamp, --device and --sensors to paths through the same list",
}
_PathsOf = Callable[[Message], dict[str, list[Any]]]


class Report:
    """Gathers what is printed: a bounded number of readings and of rejected messages, and counts of all.

    Args:
      columns: the columns of sensors, in table order.
      paths_of: returns the paths in a message, with what is there.
    """

    def __init__(self, columns: Sequence[str], paths_of: _PathsOf):
        self._columns = columns
        self._paths_of = paths_of
        self._readings: list[Reading] = []
        self._rejected: list[Decoded] = []
        self._messages = self._reading_count = self._rejection_count = self._rejected_messages = self._without = 0

    def add(self, decoded: Decoded) -> None:
        """Add what the pipeline makes of one message."""
        self._messages += 1
        self._reading_count += len(decoded.readings)
        self._readings += decoded.readings[: MAX_READINGS - len(self._readings)]
        self._rejection_count += len(decoded.rejections)
        self._rejected_messages += bool(decoded.rejections)
        self._without += not (decoded.readings or decoded.rejections)
        if decoded.rejections and len(self._rejected) < MAX_MESSAGES:
            self._rejected.append(decoded)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report."""
        counts = (
            _count(self._messages, "message"),
            _count(self._reading_count, "reading"),
            _count(self._rejection_count, "dead letter"),
        )
        without = (
            f"; {self._without:,} without a reading, which --no_reading=ignore passes over" if self._without else ""
        )
        yield "{}: {}, {}".format(*counts) + without
        if self._readings:
            yield ""
            yield from self._table()
        for decoded in self._rejected:
            yield ""
            yield from self._described(decoded)
        if self._rejected_messages > MAX_MESSAGES:
            yield ""
            yield f"{self._rejected_messages - MAX_MESSAGES:,} more messages have dead letters"

    def _table(self) -> Iterator[str]:
        read = {column for _, _, values in self._readings for column in values}
        columns = [column for column in self._columns if column in read]
        rows = [[TIMESTAMP, DEVICE, *columns]]
        for event_time, device, values in self._readings:
            cells = [f"{values[column]:.10g}" if column in values else "-" for column in columns]
            rows.append([rfc3339(event_time), _excerpt(device or "-"), *cells])
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        for time, device, *cells in rows:
            numbers = (cell.rjust(width) for cell, width in zip(cells, widths[2:], strict=True))
            yield "  ".join([time.ljust(widths[0]), device.ljust(widths[1]), *numbers]).rstrip()
        if self._reading_count > len(self._readings):
            yield f"... {self._reading_count - len(self._readings):,} more"

    def _described(self, decoded: Decoded) -> Iterator[str]:
        message, rejections = decoded.message, decoded.rejections
        for rejection in rejections[:_MAX_REASONS]:
            yield f"{message.place}: {_name(rejection)}: {one_line.reason(rejection.reason)}"
        if len(rejections) > _MAX_REASONS:
            yield f"{message.place}: {_count(len(rejections) - _MAX_REASONS, 'more dead letter')}"
        for name in dict.fromkeys(_name(rejection) for rejection in rejections):
            if name in _ADVICE:
                yield f"  {_ADVICE[name]}"
        paths = self._paths_of(message)
        if not paths:
            yield f"  its data: {_excerpt(message.data[:_MAX_DATA].decode(errors='replace'))}"
        there = {path: values[0] for path, values in paths.items()}
        there |= {f"attribute:{name}": value for name, value in message.attributes.items()}
        there |= {"message:time": rfc3339(message.publish_time)}
        yield "  paths in it:"
        width = min(max(map(len, there)), _MAX_VALUE)
        for path, value in list(there.items())[:_MAX_PATHS]:
            yield f"    {one_line.value(path):<{width}}  {_excerpt(value)}"
        if len(there) > _MAX_PATHS:
            yield f"    ... {len(there) - _MAX_PATHS:,} more"


def _name(rejection: Rejection) -> str:
    return type(rejection.reason).__name__


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _excerpt(value: Any) -> str:
    text = value if isinstance(value, str) else strict_json.dumps(value)
    printable = one_line.value(text[: 2 * _MAX_VALUE])
    return printable if len(printable) <= _MAX_VALUE else f"{printable[: _MAX_VALUE - 3]}..."
