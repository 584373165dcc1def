"""What engines have in common; each one's module offers its forms, by name."""

from collections.abc import Callable, Sequence

from benchmarks.contenders import Outcome
from benchmarks.load import Load
from benchmarks.loop import DECODER, latest_allowed
from pipeline.readings import Reading, Refusal

BATCH = 1000  # messages that a source hands over at once
LATENESS = 5  # seconds an interval is held open after its end; the shipped default

Sent = Sequence[tuple[float, bytes]]  # messages as (publish time in seconds since the epoch, data)
# What is timed: an engine, started anew, from the messages to its end; returns what tells the outcome.
Run = Callable[[], Callable[[], Outcome]]
Form = Callable[[Load, Sent], Run]  # a way to use an engine


class Sinks:
    """Where one run of an engine puts (start of interval in seconds, device, means), and dead letters."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, dict[str, float]]] = []
        self.dead_letters: list[bytes] = []

    def outcome(self) -> Outcome:
        """Return what came, or raise AssertionError if an interval has two rows."""
        rows = {(start, device): means for start, device, means in self.rows}
        if len(rows) != len(self.rows):
            raise AssertionError("an interval has two rows")
        return Outcome(rows, len(self.dead_letters), sorted(self.dead_letters))


def read(payload: bytes) -> list[Reading | bytes]:
    """Return each reading of a message, or its dead letter's payload, by the shipped decoder; for the taught forms."""
    refusals: list[Refusal] = []
    readings = DECODER.decode((payload,), latest_allowed(), refusals)
    return [*readings, *(refusal.payload for refusal in refusals)]
