"""What the engines share. The module of each engine has its forms, by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.contenders import Outcome
from benchmarks.load import Load
from benchmarks.loop import DECODER, latest_allowed
from pipeline.decode.errors import Rejection
from pipeline.decode.reading import Reading

BATCH = 1000  # messages that a source yields at once
LATENESS = 5  # seconds an interval is held open after its end; the shipped default

# Start of the interval in seconds since the epoch, device or "", mean per sensor.
Row = tuple[int, str, dict[str, float]]


class Form(NamedTuple):
    """A way to use an engine."""

    # Starts the engine and runs it on all messages, which is timed; returns a function that returns the outcome.
    run: Callable[[Load, Any], Callable[[], Outcome]]
    # Returns what `run` takes, from (publish time in seconds since the epoch, data); by default, the data.
    prepare: Callable[[Load, Sequence[tuple[float, bytes]]], Any] = lambda load, sent: [data for _, data in sent]


class Sinks:
    """Collects the rows of one run of an engine, and the payloads of its dead letters."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.dead_letters: list[bytes] = []

    def outcome(self) -> Outcome:
        """Return the collected outcome.

        Raises:
          AssertionError: an interval has two rows.
        """
        rows = {(start, device): means for start, device, means in self.rows}
        if len(rows) != len(self.rows):
            raise AssertionError("an interval has two rows")
        return Outcome(rows, len(self.dead_letters), sorted(self.dead_letters))


def read(payload: bytes) -> tuple[list[Reading], list[bytes]]:
    """Return a message's readings and dead letters' payloads from the shipped decoder; for the idiomatic forms."""
    rejections: list[Rejection] = []
    readings = list(DECODER.decode((payload,), latest_allowed(), rejections))
    return readings, [rejection.payload for rejection in rejections]
