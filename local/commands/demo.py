"""`python -m local demo`: the publisher and the pipeline on emulators, the rows as they are written, each one checked.

The check reads the topic through a separate subscription, recomputes every average in plain Python and compares
(local.verify.balance, local.verify.silence_check). DEMO_SECONDS, 60 by default, is how long readings are published;
WRITE_METHOD is the pipeline's.
"""

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery
from google.pubsub_v1.types import PubsubMessage
from rich.console import Console

from local.commands.live_page import LivePage, keep_serving, live_page
from local.commands.screen import Progress, screen, show_problems, summary
from local.commands.settings import read_settings
from local.stack import emulators
from local.stack.local_stack import (
    LocalStack,
    local_stack,
    published_count,
    wait_for_publisher,
    wait_until_consistent,
)
from local.stack.processes import Child, LocalStackError
from local.verify.balance import Balance, DeadLetter, ManifestEntry, balance, read_dead_letters
from local.verify.reconcile import Row
from local.verify.silence_check import SilenceCheck, check_silences

PROJECT = "sensor-stream-demo"
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
STATISTICS = "mean,min,max"
INTERVAL = timedelta(seconds=5)
SILENCE_AFTER = timedelta(seconds=3)
FOLDER = Path("demo")
FAULTS = ("--faults", "dropout=0.0002", "--dropout-for", "8s")  # once in the first minute, after 13 s
PUBLISHER_OVERTIME = 60.0  # seconds that the publisher may take longer than it publishes

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


def main(argv: list[str]) -> int:
    """Run the demo; returns 0 if every row is right, 1 if not. LocalStackError if something cannot run."""
    settings = read_settings(
        "demo", argv, default_seconds=60, least_seconds=1, default_write_method="streaming_inserts"
    )
    FOLDER.mkdir(exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    progress = Progress(SENSORS, settings.seconds)
    flags = [f"--interval={INTERVAL.seconds}s", "--grace_period=2s", f"--statistics={STATISTICS}"]
    flags += [f"--silence_after={SILENCE_AFTER.seconds}s", f"--write_method={settings.write_method}"]

    console.print("Starting the Pub/Sub and BigQuery emulators")
    with (
        local_stack(PROJECT, FOLDER) as stack,
        live_page(stack.table, SENSORS, STATISTICS, _message_table(stack), stack.env, FOLDER) as page,
    ):
        console.print(f"Live page: {page.url}")
        console.print(f"Starting the pipeline, write_method={settings.write_method}")
        with stack.pipeline(flags) as pipeline:
            monitor = Monitor(stack, progress)
            details = "50 readings a second, 2 devices; rows of 5 s, held open for 2 s"
            console.print(f"Publishing for {settings.seconds:g} s: {details}")
            with stack.publisher(settings.seconds, FAULTS) as publisher, screen(console, progress) as show:
                _publish_malformed(stack)
                progress.started = time.monotonic()
                _run_until_consistent(monitor, pipeline, publisher, page, show)
        result, silences = monitor.balance(), monitor.silences()
        page.show(result)
        problems = [*result.problems, *silences.problems, *_publisher_problems(publisher, result.published)]
        _report(console, progress, result, silences, problems)
        keep_serving(page, stack.check)
    return 1 if problems else 0


def _run_until_consistent(
    monitor: "Monitor", pipeline: Child, publisher: Child, page: LivePage, show: Callable[[], None]
) -> None:
    """Keep screen and page up to date until the publisher has ended and the tables are consistent."""

    def poll() -> None:
        pipeline.check()
        monitor.poll()
        page.show_now_and_then(monitor.balance)
        show()

    def find_problems() -> list[str]:
        poll()
        return [*monitor.balance().problems, *monitor.silences().problems]

    wait_for_publisher(publisher, monitor.progress.total_seconds + PUBLISHER_OVERTIME, poll)
    if publisher.alive():
        raise LocalStackError(f"The publisher does not finish. The end of its log:\n{publisher.tail()}")
    wait_until_consistent(find_problems)
    poll()


def _report(console: Console, progress: Progress, result: Balance, silences: SilenceCheck, problems: list[str]) -> None:
    """Print the summary, then the problems, or that there are none."""
    lines = {
        "readings published": f"{result.published}",
        "  averaged": f"{result.averaged}",
        "  dead-lettered": f"{result.dead_lettered}",
        "rows": f"{len(progress.rows)}",
        "silences noticed": f"{silences.noticed}",
    }
    if delays := progress.delays.values():
        lines["interval end to row, median"] = f"{statistics.median(delays):.1f} s"
        lines["interval end to row, longest"] = f"{max(delays):.1f} s"
    console.print(summary("Summary", lines))
    show_problems(console, problems)
    if problems:
        console.print(f"{len(problems)} problems. Logs: {FOLDER}")
    else:
        console.print(f"Checked: all {len(progress.rows)} rows are there once and right.", style="green")


def _message_table(stack: LocalStack) -> str:
    return f"{stack.table}_messages"


def _publish_malformed(stack: LocalStack) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    messages = [PubsubMessage(data=data, attributes={"timestamp": now}) for data in MALFORMED]
    with emulators.publisher_client(stack.pubsub.host) as client:
        client.publish(topic=stack.topic, messages=messages)


class Monitor:
    """Reads the topic and the tables, and keeps `progress` up to date."""

    def __init__(self, stack: LocalStack, progress: Progress) -> None:
        self.progress = progress
        self._stack = stack
        self._published: dict[str, ManifestEntry] = {}  # by message id, so that a redelivered message counts once
        self._dead_letters: list[DeadLetter] = []
        self._silences: list[dict[str, Any]] = []
        self._subscriber = emulators.subscriber_client(stack.pubsub.host)
        topic, audit = stack.topic.rpartition("/")[2], stack.subscription.rpartition("/")[2] + "-audit"
        self._subscription = emulators.create_subscription(stack.pubsub.host, PROJECT, topic, audit)
        # Filled as a BigQuery subscription of the topic would fill it; the emulators have none.
        self._message_table = stack.client.create_table(bigquery.Table(_message_table(stack), MESSAGE_COLUMNS))

    def poll(self) -> None:
        """Read what is new. LocalStackError if an emulator has ended."""
        self._stack.check()
        try:
            self._read_topic()
            self._read_tables()
        except (GoogleAPICallError, OSError):
            self._stack.check()
            raise

    def balance(self) -> Balance:
        """Compare everything that was published with the tables as read last."""
        return balance(self._published.values(), self.progress.rows, self._dead_letters, SENSORS, INTERVAL)

    def silences(self) -> SilenceCheck:
        """Compare the silences as read last with the gaps in everything that was published."""
        return check_silences(self._silences, self._published.values(), SENSORS, SILENCE_AFTER)

    def _read_topic(self) -> None:
        while received := emulators.pull(self._subscriber, self._subscription, at_most=1000):
            rows = [_message_row(one.message) for one in received]
            for data, message_id, published in rows:
                self._published[message_id] = ManifestEntry(message_id, data, published)
            self._stack.client.insert_rows(self._message_table, rows)
            ack_ids = [one.ack_id for one in received]
            self._subscriber.acknowledge(subscription=self._subscription, ack_ids=ack_ids)
        self.progress.published = len(self._published)

    def _read_tables(self) -> None:
        client = self._stack.client
        records = emulators.all_rows(client, self._stack.table)
        rows = [Row.from_record(record, SENSORS, has_ranges=True) for record in records]
        now = datetime.now(UTC)
        for row in rows:
            self.progress.delays.setdefault(row.start, (now - row.start - INTERVAL).total_seconds())
        self.progress.rows = sorted(rows, key=lambda row: row.start)
        dead_letters = emulators.all_rows(client, self._stack.dead_letters)
        self._dead_letters = read_dead_letters(dead_letters)
        self.progress.dead_letters = len(dead_letters)
        self._silences = emulators.all_rows(client, self._stack.silences)
        self.progress.silent = self.silences().silent


def _message_row(message: Any) -> tuple[bytes, str, datetime]:
    return message.data, message.message_id, message.publish_time.ToDatetime(UTC)


def _publisher_problems(publisher: Child, received: int) -> list[str]:
    """Compare the number of messages that the publisher printed with the number received from the topic."""
    printed = published_count(publisher)
    if not printed:
        return [f"the publisher did not print how much it published; see {publisher.log}"]
    published = printed[0] + len(MALFORMED)
    if received == published:
        return []
    return [f"{published} messages were published, {received} were received from the topic"]
