"""The local stack: the emulators, and the pipeline and the publisher as processes that use them."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.cloud.bigquery import Client

from local.stack import emulators
from local.stack.emulators import Emulator
from local.stack.processes import Child, running, wait_for

PIPELINE_START = 90.0  # seconds; 10 are usual
POLL_INTERVAL = 0.5  # seconds
TIMEOUT_SECONDS = 60.0  # for a recovery, or for the last rows
SURPLUS_WAIT = 2.0  # seconds in which a row that should not exist could still be written


@dataclass
class LocalStack:
    """Both emulators, and the topic, the subscription and the tables of one run in them."""

    project: str
    log_folder: Path
    pubsub: Emulator
    bigquery: Emulator
    client: Client
    topic: str
    subscription: str
    table: str  # project.dataset.table
    _bigquery_context: ExitStack

    @property
    def env(self) -> dict[str, str]:
        """The environment variables by which a process finds the emulators."""
        return {**self.pubsub.env, **self.bigquery.env}

    @property
    def dead_letters(self) -> str:
        """The pipeline's dead-letter table, project.dataset.table."""
        return f"{self.table}_dead_letters"

    @property
    def silences(self) -> str:
        """The pipeline's table of silences, project.dataset.table."""
        return f"{self.table}_silences"

    def check(self) -> None:
        """Raise LocalStackError if an emulator has ended."""
        self.pubsub.check()
        self.bigquery.check()

    def kill_bigquery(self) -> None:
        """Kill the BigQuery emulator with SIGKILL."""
        assert self.bigquery.child
        self.bigquery.child.process.kill()
        self._bigquery_context.close()

    def restart_bigquery(self) -> None:
        """Start a BigQuery emulator on the ports of the one that was killed."""
        hosts = self.bigquery.host, self.bigquery.env[emulators.BIGQUERY_STORAGE]
        port, storage_port = (int(host.rpartition(":")[2]) for host in hosts)
        emulator = emulators.bigquery_emulator(self.project, port, self.log_folder, storage_port)
        self.bigquery = self._bigquery_context.enter_context(emulator)

    @contextmanager
    def pipeline(
        self, flags: Sequence[str], log: str = "pipeline", entry: Sequence[str] = ("local", "pipeline")
    ) -> Iterator[Child]:
        """Run the pipeline for the length of the block, which begins once its tables exist.

        Args:
          flags: further flags of the pipeline.
          log: the name of its log file, without `.log`.
          entry: the module that runs it, and the module's first arguments.
        """
        command = [sys.executable, "-m", *entry, f"--input_subscription={self.subscription}"]
        command += [f"--output_table={self.table.replace('.', ':', 1)}", "--timestamp_attribute=timestamp", *flags]
        with running("The pipeline", command, self.log_folder / f"{log}.log", self.env) as child:
            # The pipeline creates its tables just before it starts to read, the dead-letter table last.
            wait_for(child, lambda: emulators.table_exists(self.client, self.dead_letters), PIPELINE_START)
            yield child

    def publisher(self, seconds: float, flags: Sequence[str]) -> AbstractContextManager[Child]:
        """Run the publisher for that long; unless the flags differ, 50 readings a second from two devices."""
        command = [sys.executable, "-m", "publisher", "publish", "--topic", self.topic, "--duration", f"{seconds:g}"]
        command += ["--rate", "50", "--devices", "2", "--seed", "7", *flags]
        return running("The publisher", command, self.log_folder / "publisher.log", self.env)


@contextmanager
def local_stack(
    project: str,
    log_folder: Path,
    seekable: bool = False,
    pubsub_server: AbstractContextManager[Emulator] | None = None,
) -> Iterator[LocalStack]:
    """Start both emulators for the length of the block, with a topic, a subscription and a dataset.

    The names of these end in the time of the start, because the emulators may be shared with other runs.

    Args:
      project: the Google Cloud project to simulate.
      log_folder: where the processes write their logs.
      seekable: whether Pub/Sub keeps acknowledged messages, so that the subscription can be sought back.
      pubsub_server: the Pub/Sub to use; by default the official emulator, or our own server where that is missing.
    """
    run = f"{int(time.time())}"
    with (
        pubsub_server or emulators.pubsub_emulator(project, log_dir=log_folder) as pubsub,
        ExitStack() as bigquery_context,
    ):
        bigquery = bigquery_context.enter_context(emulators.bigquery_emulator(project, log_dir=log_folder))
        yield LocalStack(
            project,
            log_folder,
            pubsub,
            bigquery,
            emulators.bigquery_client(bigquery.host, project),
            emulators.create_topic(pubsub.host, project, f"readings-{run}"),
            emulators.create_subscription(pubsub.host, project, f"readings-{run}", f"pipeline-{run}", seekable),
            emulators.create_dataset(bigquery.host, project, f"sensors_{run}") + ".readings",
            bigquery_context,
        )


def published_count(publisher: Child) -> tuple[int, float] | None:
    """Return the readings and the seconds that a publisher printed at its end; None if it printed neither."""
    summary = re.search(r"Published (\d+) readings in ([\d.]+) s", publisher.log.read_text(errors="replace"))
    return (int(summary[1]), float(summary[2])) if summary else None


def wait_for_publisher(publisher: Child, seconds: float, poll: Callable[[], None]) -> None:
    """Call `poll` until the publisher has ended or `seconds` are over; raises LocalStackError if it fails."""
    end = time.monotonic() + seconds
    while publisher.alive() and time.monotonic() < end:
        poll()
        time.sleep(POLL_INTERVAL)
    if publisher.process.returncode:
        publisher.check()


def wait_until_consistent(find_problems: Callable[[], Sequence[str]]) -> None:
    """Wait until no problems are found, at most TIMEOUT_SECONDS; then wait for rows that should not exist."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while find_problems() and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    time.sleep(SURPLUS_WAIT)
