"""Why a message, or a part of it, is not a reading: the errors found in the dead-letter table."""

from typing import NamedTuple

from pipeline.errors import SensorStreamError


class InvalidReading(SensorStreamError, ValueError):
    """Why a reading cannot be used. Subclasses name the errors found in the dead-letter table."""

    stage = "validate"


class NotJson(InvalidReading):
    """The bytes are not one UTF-8 JSON document."""

    stage = "decode"


class BadFormat(InvalidReading):
    """The bytes are not in the configured `format`."""

    stage = "decode"


class NotAReading(InvalidReading):
    """JSON, but neither an object nor a non-empty array of objects."""

    stage = "decode"


class UnequalLists(InvalidReading):
    """Lists that a mapping walks side by side are not equally long."""

    stage = "decode"


class BadTimestamp(InvalidReading):
    """No Timestamp, an unreadable one, or one before the year 2000."""

    stage = "timestamp"


class FutureTimestamp(BadTimestamp):
    """A Timestamp further ahead of the clock than `max_future_skew`."""


class BadDevice(InvalidReading):
    """Device is not a string of at most MAX_DEVICE characters."""


class BadValue(InvalidReading):
    """A sensor's value is not a finite JSON number."""


class NoKnownSensor(InvalidReading):
    """None of the configured sensors is present."""


class TooManyRefused(InvalidReading):
    """More than MAX_REJECTIONS items of one message were rejected; this error stands for the others."""

    stage = "decode"


class UnexpectedError(InvalidReading):
    """The decoder raised an exception it does not handle.

    This is a defect in the decoder; the message is kept as a dead letter.
    """

    stage = "decode"


class SchemaUnavailable(SensorStreamError):
    """The schema service does not answer. The message is not at fault, and is to be decoded again later."""


def as_reason(error: Exception) -> InvalidReading:
    """Return an exception as the reason of a rejection, without its traceback, which holds all messages of a batch."""
    if isinstance(error, InvalidReading):
        return type(error)(str(error))
    return UnexpectedError(f"{type(error).__name__}: {error}")


class Rejection(NamedTuple):
    """A message, or a part of it, that cannot become a reading.

    Attributes:
      reason: an exception; its class is the error's name, and its `stage` the place where it arose.
      payload: the message's bytes; for an item of an array, that item's own JSON; for a single value, or an item that
        would lose its time and device if it were cut out, its canonical form; for `TooManyRefused`, an array of them.
      message: the index of the message among those that were decoded together.
      errors: the number of items that the rejection stands for, by the name of their error.
    """

    reason: InvalidReading
    payload: bytes
    message: int
    errors: dict[str, int]
