"""What engines have in common; each one's module offers its forms, by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.contenders import Outcome
from benchmarks.load import Load
from benchmarks.loop import DECODER, latest_allowed
from pipeline.decode.decoder import Reading, Rejection

BATCH = 1000  # messages that a source hands over at once
LATENESS = 5  # seconds an interval is held open after its end; the shipped default

# Start of the interval in seconds since the epoch, device or "", mean per sensor.
Row = tuple[int, str, dict[str, float]]


class Form(NamedTuple):
    """A way to use an engine."""

    # What is timed: the engine, started anew, from the messages to its end; returns what tells the outcome.
    run: Callable[[Load, Any], Callable[[], Outcome]]
    # From what is sent, as (publish time in seconds since the epoch, data), to what `run` takes: by default, the data.
    prepare: Callable[[Load, Sequence[tuple[float, bytes]]], Any] = lambda load, sent: [data for _, data in sent]


class Sinks:
    """Where one run of an engine puts rows, and dead letters' payloads."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.dead_letters: list[bytes] = []

    def outcome(self) -> Outcome:
        """Return what came, or raise AssertionError if an interval has two rows."""
        rows = {(start, device): means for start, device, means in self.rows}
        if len(rows) != len(self.rows):
            raise AssertionError("an interval has two rows")
        return Outcome(rows, len(self.dead_letters), sorted(self.dead_letters))


def read(payload: bytes) -> tuple[list[Reading], list[bytes]]:
    """Return a message's readings and dead letters' payloads, by the shipped decoder; for the forms as guides teach."""
    rejections: list[Rejection] = []
    readings = list(DECODER.decode((payload,), latest_allowed(), rejections))
    return readings, [rejection.payload for rejection in rejections]
