"""The shipped pipeline and publisher as processes of their own between the emulators, and how long to wait for them."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.cloud import bigquery

from local.stack import emulators
from local.stack.emulators import Emulator
from local.stack.processes import Child, running, wait_for

PIPELINE_START = 90.0  # seconds; 10 are usual
POLL = 0.5  # seconds between looks
TIMEOUT_SECONDS = 60.0  # seconds that recovering, or the last rows, may take
SETTLE = 2.0  # seconds in which a row that must not be there could still come


@dataclass
class Stage:
    """The emulators, and what one run has made in them. BigQuery ends when `bigquery_running` is closed."""

    folder: Path  # of logs
    pubsub: Emulator
    bigquery_: Emulator
    bigquery_running: ExitStack
    client: bigquery.Client
    topic: str
    subscription: str
    table: str  # project.dataset.table

    @property
    def env(self) -> dict[str, str]:
        """The environment of the children."""
        return {**self.pubsub.env, **self.bigquery_.env}

    @property
    def dead_letters(self) -> str:
        """The pipeline's dead-letter table."""
        return f"{self.table}_dead_letters"

    @property
    def silences(self) -> str:
        """The pipeline's table of silences."""
        return f"{self.table}_silences"

    def check(self) -> None:
        """Raise LocalStackError if an emulator has ended."""
        self.pubsub.check()
        self.bigquery_.check()

    @contextmanager
    def pipeline(
        self, flags: Sequence[str], log: str = "pipeline", entry: Sequence[str] = ("local", "pipeline")
    ) -> Iterator[Child]:
        """The pipeline, up and ready if it is the first; `log` is the name of its log, `entry` how it is started."""
        command = [sys.executable, "-m", *entry, f"--input_subscription={self.subscription}"]
        command += [f"--output_table={self.table.replace('.', ':', 1)}", "--timestamp_attribute=timestamp", *flags]
        with running("The pipeline", command, self.folder / f"{log}.log", self.env) as child:
            # It makes its tables just before it starts to read, the dead letters' last.
            wait_for(child, lambda: emulators.table_exists(self.client, self.dead_letters), PIPELINE_START)
            yield child

    def publisher(self, seconds: float, flags: Sequence[str]) -> AbstractContextManager[Child]:
        """The publisher, for so long; unless the flags say otherwise, 50 readings a second of two devices."""
        command = [sys.executable, "-m", "publisher", "publish", "--topic", self.topic, "--duration", f"{seconds:g}"]
        command += ["--rate", "50", "--devices", "2", "--seed", "7", *flags]
        return running("The publisher", command, self.folder / "publisher.log", self.env)


@contextmanager
def stage(
    project: str, folder: Path, seekable: bool = False, server: AbstractContextManager[Emulator] | None = None
) -> Iterator[Stage]:
    """Both emulators with a topic, a subscription and a dataset, named after this run in case they are shared.

    The subscription can be sought back only if it is `seekable`: then Pub/Sub keeps what was acknowledged. `server` is
    the Pub/Sub to use if not any.
    """
    run = f"{int(time.time())}"
    with server or emulators.pubsub_emulator(project, log_dir=folder) as pubsub, ExitStack() as stack:
        bigquery_ = stack.enter_context(emulators.bigquery_emulator(project, log_dir=folder))
        yield Stage(
            folder,
            pubsub,
            bigquery_,
            stack,
            emulators.bigquery_client(bigquery_.host, project),
            emulators.create_topic(pubsub.host, project, f"readings-{run}"),
            emulators.create_subscription(pubsub.host, project, f"readings-{run}", f"pipeline-{run}", seekable),
            emulators.create_dataset(bigquery_.host, project, f"sensors_{run}") + ".readings",
        )


def published(publisher: Child) -> tuple[int, float] | None:
    """How many readings a publisher that is done says it published, and in how many seconds; None if it does not."""
    said = re.search(r"Published (\d+) readings in ([\d.]+) s", publisher.log.read_text(errors="replace"))
    return (int(said[1]), float(said[2])) if said else None


def follow(publisher: Child, seconds: float, look: Callable[[], None]) -> None:
    """Look until the publisher is done, but no longer than so many seconds. LocalStackError if it fails."""
    end = time.monotonic() + seconds
    while publisher.alive() and time.monotonic() < end:
        look()
        time.sleep(POLL)
    if publisher.process.returncode:
        publisher.check()


def settle(problems: Callable[[], Sequence[str]]) -> None:
    """Wait until there are no problems, or TIMEOUT_SECONDS is over; and then for what must not come any more."""
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while problems() and time.monotonic() < give_up:
        time.sleep(POLL)
    time.sleep(SETTLE)
