"""What every engine's module offers: its forms, by name, as functions from messages to something that can be timed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.load import Load

BATCH = 1000  # messages that a source hands over at once
LATENESS = 5  # seconds an interval is held open after its end; the shipped default

# (interval's start in seconds since the epoch, device or "") to sensor to mean.
Rows = dict[tuple[int, str], dict[str, float]]


class Outcome(NamedTuple):
    """What became of the messages.

    Attributes:
      rows: means per interval and device.
      refused: how many readings were refused.
      payloads: of the dead letters; None where they are counted only.
    """

    rows: Rows
    refused: int
    payloads: list[bytes] | None


class Job(NamedTuple):
    """Messages made ready for one form.

    Attributes:
      run: what is timed: the engine, started anew, from the messages to its end.
      finish: what is not: takes what `run` returned.
    """

    run: Callable[[], Any]
    finish: Callable[[Any], Outcome]


# From what is sent, as (publish time in seconds since the epoch, data).
Form = Callable[[Load, Sequence[tuple[float, bytes]]], Job]
