"""The shipped pipeline and publisher as processes of their own, and how long to wait for what they do."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.cloud import bigquery

from local import emulators
from local.processes import Child, running, wait_for

PIPELINE_START = 90.0  # seconds; 10 are usual
POLL = 0.5  # seconds between looks
PATIENCE = 60.0  # seconds that recovering, or the last rows, may take
SETTLE = 2.0  # seconds in which a row that must not be there could still come


def dead_letters(table: str) -> str:
    """The pipeline's dead-letter table, of the table P.D.T."""
    return f"{table}_dead_letters"


def silences(table: str) -> str:
    """The pipeline's table of silences, of the table P.D.T."""
    return f"{table}_silences"


@contextmanager
def pipeline(
    subscription: str, table: str, client: bigquery.Client, log: Path, env: Mapping[str, str], flags: Sequence[str]
) -> Iterator[Child]:
    """The pipeline from the subscription to the table P.D.T; it is ready if the table was not there before."""
    command = [sys.executable, "-m", "local", "pipeline", f"--input_subscription={subscription}"]
    command += [f"--output_table={table.replace('.', ':', 1)}", "--timestamp_attribute=timestamp", *flags]
    with running("The pipeline", command, log, env) as child:
        # It makes its tables just before it starts to read, the dead letters' last.
        wait_for(child, lambda: emulators.table_exists(client, dead_letters(table)), PIPELINE_START)
        yield child


@contextmanager
def publisher(topic: str, seconds: float, log: Path, env: Mapping[str, str], flags: Sequence[str]) -> Iterator[Child]:
    """The publisher, publishing 50 readings a second of two devices for so long."""
    command = [sys.executable, "-m", "publisher", "publish", "--topic", topic, "--duration", f"{seconds:g}"]
    command += ["--rate", "50", "--devices", "2", "--seed", "7", *flags]
    with running("The publisher", command, log, env) as child:
        yield child


def follow(publisher: Child, seconds: float, look: Callable[[], None]) -> None:
    """Look until the publisher is done, but no longer than so many seconds. LocalStackError if it fails."""
    end = time.monotonic() + seconds
    while publisher.alive() and time.monotonic() < end:
        look()
        time.sleep(POLL)
    if publisher.process.returncode:
        publisher.check()


def settle(problems: Callable[[], Sequence[str]]) -> None:
    """Wait until there are no problems, or PATIENCE is over; and then for what must not come any more."""
    give_up = time.monotonic() + PATIENCE
    while problems() and time.monotonic() < give_up:
        time.sleep(POLL)
    time.sleep(SETTLE)
