"""`python -m local demo`: the shipped publisher and pipeline on emulators, the rows as they land, each one checked.

The check hears the same topic through a subscription of its own, recomputes every average in plain Python and compares
(local.reconcile). DEMO_SECONDS, 60 by default, is how long readings are published; WRITE_METHOD is the pipeline's.
"""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery
from rich.console import Console
from rich.table import Table

from local import chart, emulators
from local.emulators import Emulator
from local.live_page import live_page, stay
from local.processes import Child, LocalStackError, running, wait_for
from local.reconcile import Account, Row, read, reconcile, unpack
from local.run_length import run_length
from local.screen import Progress, screen
from local.silences import Heard, Silences, check

PROJECT = "sensor-stream-demo"
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
INTERVAL = timedelta(seconds=5)
SILENCE_AFTER = timedelta(seconds=3)
FOLDER = Path("demo")
POLL = 0.5  # seconds between looks at the table
PATIENCE = 60.0  # seconds the last rows may take once the publisher has finished
SETTLE = 2.0  # seconds in which a row that must not be there could still come
PIPELINE_START = 90.0  # seconds; 10 are usual
PUBLISHER_END = 60.0  # seconds the publisher may take longer than it was asked to publish

# As Pub/Sub's BigQuery subscriptions name them.
MESSAGE_COLUMNS = (
    bigquery.SchemaField("data", "BYTES"),
    bigquery.SchemaField("message_id", "STRING"),
    bigquery.SchemaField("publish_time", "TIMESTAMP"),
)

MALFORMED = (
    b"this is not JSON",
    b'{"Timestamp": "2026-11-22T13:00:00Z", "Device": "device-1", "Wind": 3.2}',
    b'{"Timestamp": "half past noon", "Device": "device-2", "Temp": 21.4}',
)


@dataclass(frozen=True)
class Stage:
    """The emulators, and the names of everything this run makes in them."""

    pubsub: Emulator
    bigquery: Emulator
    topic: str
    subscription: str
    audit: str
    table: str  # project.dataset.table

    def check(self) -> None:
        """Raise LocalStackError if an emulator has ended."""
        self.pubsub.check()
        self.bigquery.check()

    @property
    def env(self) -> dict[str, str]:
        """The environment of the children."""
        return {**self.pubsub.env, **self.bigquery.env}


def main(argv: list[str]) -> int:
    """Run the demo; returns 0 if every row is right, 1 if not. LocalStackError if something cannot run."""
    if argv:
        raise LocalStackError("the demo takes no flags; DEMO_SECONDS=30 python -m local demo runs a shorter one")
    seconds = run_length("DEMO_SECONDS", default=60, least=1)
    FOLDER.mkdir(exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    progress = Progress(SENSORS, seconds)

    with _stage(console) as stage, live_page(stage.table, _messages(stage), stage.env, FOLDER) as page:
        console.print(f"Live page: {page.url}")
        with _pipeline(console, stage) as pipeline:
            watch = Watch(stage, progress)
            console.print(
                f"Publishing for {seconds:g} s: 50 readings a second, 2 devices; rows of 5 s, held open for 2 s"
            )
            with _publisher(stage, seconds) as publisher, screen(console, progress) as show:
                _publish_malformed(stage)
                progress.started = time.monotonic()

                def look() -> None:
                    pipeline.check()
                    watch.look()
                    page.show_now_and_then(watch.account)
                    show()

                account = _follow(watch, publisher, look)
        page.show(account)
        silent = watch.silences()
        problems = [*account.problems, *silent.problems, *_publisher_problems(publisher, len(watch.published))]
        failed = _report(console, watch, account, silent, problems, [pipeline.log, publisher.log])
        stay(page, stage.check)
    return failed


def _report(
    console: Console, watch: "Watch", account: Account, silent: Silences, problems: list[str], logs: list[Path]
) -> int:
    """Draw the chart and print the summary; returns 0 if there are no problems, else 1."""
    progress = watch.progress
    picture = FOLDER / "sensors.png"
    readings = [reading for data in watch.published.values() if (reading := read(data, SENSORS))]
    chart.draw(picture, SENSORS, INTERVAL, readings, progress.rows)
    _summarise(console, account, silent, progress)
    console.print(f"Chart: {picture}")
    for problem in problems:
        console.print(f"WRONG  {problem}", style="red", markup=False)
    if problems:
        console.print(f"{len(problems)} problems. Logs: {' '.join(map(str, logs))}")
        return 1
    console.print(f"Checked: all {len(progress.rows)} rows are there once and right.", style="green")
    return 0


@contextmanager
def _stage(console: Console) -> Iterator[Stage]:
    """Both emulators with a topic, two subscriptions and a dataset, named after this run in case they are shared."""
    run = f"{int(time.time())}"
    console.print("Starting the Pub/Sub and BigQuery emulators")
    with (
        emulators.pubsub_emulator(PROJECT, log_dir=FOLDER) as pubsub,
        emulators.bigquery_emulator(PROJECT, log_dir=FOLDER) as bigquery_,
    ):
        topic = f"readings-{run}"
        yield Stage(
            pubsub,
            bigquery_,
            emulators.create_topic(pubsub.host, PROJECT, topic),
            emulators.create_subscription(pubsub.host, PROJECT, topic, f"pipeline-{run}"),
            emulators.create_subscription(pubsub.host, PROJECT, topic, f"audit-{run}"),
            emulators.create_dataset(bigquery_.host, PROJECT, f"sensors_{run}") + ".readings",
        )


@contextmanager
def _pipeline(console: Console, stage: Stage) -> Iterator[Child]:
    """The shipped pipeline, up and ready."""
    command = [sys.executable, "-m", "local", "pipeline"]
    command += [f"--input_subscription={stage.subscription}", "--timestamp_attribute=timestamp"]
    command += [f"--output_table={stage.table.replace('.', ':', 1)}"]
    command += [f"--interval={INTERVAL.seconds}s", "--grace_period=2s", "--statistics=mean,min,max"]
    command += [f"--silence_after={SILENCE_AFTER.seconds}s"]
    write_method = os.environ.get("WRITE_METHOD") or "streaming_inserts"
    command += [f"--write_method={write_method}"]
    console.print(f"Starting the pipeline, write_method={write_method}")
    client = emulators.bigquery_client(stage.bigquery.host, PROJECT)
    with running("The pipeline", command, FOLDER / "pipeline.log", stage.env) as child:
        # It makes its tables just before it starts to read, the dead letters' last.
        wait_for(child, lambda: emulators.table_exists(client, _dead_letters(stage)), PIPELINE_START)
        yield child


def _dead_letters(stage: Stage) -> str:
    return f"{stage.table}_dead_letters"


def _messages(stage: Stage) -> str:
    return f"{stage.table}_messages"


@contextmanager
def _publisher(stage: Stage, seconds: float) -> Iterator[Child]:
    """The shipped publisher, publishing."""
    command = [sys.executable, "-m", "publisher", "publish", "--topic", stage.topic]
    command += ["--rate", "50", "--devices", "2", "--duration", f"{seconds:g}", "--seed", "7"]
    command += ["--faults", "dropout=0.0002", "--dropout-for", "8s"]  # once in the first minute, after 13 s
    with running("The publisher", command, FOLDER / "publisher.log", stage.env) as child:
        yield child


def _publish_malformed(stage: Stage) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    messages = [{"data": data, "attributes": {"timestamp": now}} for data in MALFORMED]
    with emulators.publisher_client(stage.pubsub.host) as client:
        client.publish(topic=stage.topic, messages=messages)


class Watch:
    """Looks at the topic and the tables, and keeps `progress` up to date.

    `published` is the data of every reading, by message id and place in it; `dead_letters` the payloads.
    """

    def __init__(self, stage: Stage, progress: Progress) -> None:
        self.published: dict[tuple[str, int], bytes] = {}
        self.dead_letters: list[bytes] = []
        self._silences: list[bigquery.Row] = []
        self.progress = progress
        self._stage = stage
        self._subscriber = emulators.subscriber_client(stage.pubsub.host)
        self._bigquery = emulators.bigquery_client(stage.bigquery.host, PROJECT)
        # As a BigQuery subscription of the topic would fill it, which the emulators do not have.
        self._messages = self._bigquery.create_table(bigquery.Table(_messages(stage), MESSAGE_COLUMNS))

    def look(self) -> None:
        """Take one look. LocalStackError if an emulator has ended."""
        self._stage.check()
        try:
            self._hear()
            self._read_tables()
        except (GoogleAPICallError, OSError):
            self._stage.check()
            raise

    def account(self) -> Account:
        """Compare all that was published with the tables as last seen."""
        return reconcile(self.published.values(), self.progress.rows, self.dead_letters, SENSORS, INTERVAL)

    def silences(self) -> Silences:
        """Compare the silences as last seen with the gaps in all that was published."""
        found = [reading for data in self.published.values() if (reading := read(data, SENSORS))]
        heard = [Heard(reading.device, reading.time, reading.time) for reading in found]
        return check(self._silences, heard, SILENCE_AFTER)

    def _hear(self) -> None:
        while received := emulators.pull(self._subscriber, self._stage.audit, at_most=1000):
            for one in received:
                for place, data in enumerate(unpack(one.message.data)):
                    self.published[one.message.message_id, place] = data
            self._bigquery.insert_rows(self._messages, [_message_row(one.message) for one in received])
            self._subscriber.acknowledge(subscription=self._stage.audit, ack_ids=[one.ack_id for one in received])
        self.progress.published = len(self.published)

    def _read_tables(self) -> None:
        rows = [Row.of(found, SENSORS) for found in emulators.all_rows(self._bigquery, self._stage.table)]
        now = datetime.now(UTC)
        for row in rows:
            self.progress.delays.setdefault(row.start, (now - row.start - INTERVAL).total_seconds())
        self.progress.rows = sorted(rows, key=lambda row: row.start)
        letters = emulators.all_rows(self._bigquery, _dead_letters(self._stage))
        self._silences = emulators.all_rows(self._bigquery, f"{self._stage.table}_silences")
        self.progress.silent = self.silences().silent
        self.dead_letters = [found["payload"] for found in letters]
        self.progress.dead_letters = len(self.dead_letters)


def _message_row(message: Any) -> tuple[bytes, str, datetime]:
    return message.data, message.message_id, message.publish_time.ToDatetime(UTC)


def _follow(watch: Watch, publisher: Child, look: Callable[[], None]) -> Account:
    """Look until the publisher has finished and every row is there, or PATIENCE is over; returns the last account."""
    give_up = time.monotonic() + watch.progress.total_seconds + PUBLISHER_END
    while publisher.alive():
        if time.monotonic() > give_up:
            raise LocalStackError(f"The publisher does not finish. The end of {publisher.log}:\n{publisher.tail()}")
        look()
        time.sleep(POLL)
    if publisher.process.returncode:
        publisher.check()

    give_up = time.monotonic() + PATIENCE
    look()
    while watch.account().problems and time.monotonic() < give_up:
        time.sleep(POLL)
        look()
    time.sleep(SETTLE)
    look()
    return watch.account()


def _publisher_problems(publisher: Child, heard: int) -> list[str]:
    """Compare what the publisher says it published with what came out of the topic."""
    said = re.search(r"Published (\d+) readings", publisher.log.read_text(errors="replace"))
    if not said:
        return [f"the publisher does not say how much it published; see {publisher.log}"]
    sent = int(said[1]) + len(MALFORMED)
    return [] if heard == sent else [f"{sent} messages were published, {heard} came out of the topic"]


def _summarise(console: Console, account: Account, silent: Silences, progress: Progress) -> None:
    table = Table(box=None, show_header=False, title="Summary", title_justify="left", title_style="bold")
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("readings published", f"{account.published}")
    table.add_row("  averaged", f"{account.averaged}")
    table.add_row("  dead-lettered", f"{account.dead_lettered}")
    table.add_row("rows", f"{len(progress.rows)}")
    table.add_row("silences noticed", f"{silent.noticed}")
    if delays := list(progress.delays.values()):
        table.add_row("interval end to row, median", f"{statistics.median(delays):.1f} s")
        table.add_row("interval end to row, longest", f"{max(delays):.1f} s")
    console.print(table)
