"""`python -m local demo`: the shipped publisher and pipeline on emulators, the rows as they land, each one checked.

The check hears the same topic through a subscription of its own, recomputes every average in plain Python and compares
(local.verify.balance, local.verify.silences). DEMO_SECONDS, 60 by default, is how long readings are published;
WRITE_METHOD is the pipeline's.
"""

import os
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery
from rich.console import Console

from local.commands import chart
from local.commands.live_page import live_page, stay
from local.commands.run_length import run_length
from local.commands.screen import Progress, screen, show_problems, summary
from local.stack import emulators, programs
from local.stack.processes import Child, LocalStackError
from local.stack.programs import Stage
from local.verify.balance import Balance, DeadLetter, Reading, Sent, balance, judge, read_dead_letters
from local.verify.reconcile import Row
from local.verify.silences import Silences, check

PROJECT = "sensor-stream-demo"
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
STATISTICS = "mean,min,max"
INTERVAL = timedelta(seconds=5)
SILENCE_AFTER = timedelta(seconds=3)
FOLDER = Path("demo")
FAULTS = ("--faults", "dropout=0.0002", "--dropout-for", "8s")  # once in the first minute, after 13 s
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


def main(argv: list[str]) -> int:
    """Run the demo; returns 0 if every row is right, 1 if not. LocalStackError if something cannot run."""
    if argv:
        raise LocalStackError("the demo takes no flags; DEMO_SECONDS=30 python -m local demo runs a shorter one")
    seconds = run_length("DEMO_SECONDS", default=60, least=1)
    FOLDER.mkdir(exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    progress = Progress(SENSORS, seconds)

    write_method = os.environ.get("WRITE_METHOD") or "streaming_inserts"
    flags = [f"--interval={INTERVAL.seconds}s", "--grace_period=2s", f"--statistics={STATISTICS}"]
    flags += [f"--silence_after={SILENCE_AFTER.seconds}s", f"--write_method={write_method}"]

    console.print("Starting the Pub/Sub and BigQuery emulators")
    with (
        programs.stage(PROJECT, FOLDER) as stage,
        live_page(stage.table, SENSORS, STATISTICS, _messages(stage), stage.env, FOLDER) as page,
    ):
        console.print(f"Live page: {page.url}")
        console.print(f"Starting the pipeline, write_method={write_method}")
        with stage.pipeline(flags) as pipeline:
            watch = Watch(stage, progress)
            console.print(
                f"Publishing for {seconds:g} s: 50 readings a second, 2 devices; rows of 5 s, held open for 2 s"
            )
            with stage.publisher(seconds, FAULTS) as publisher, screen(console, progress) as show:
                _publish_malformed(stage)
                progress.started = time.monotonic()

                def look() -> None:
                    pipeline.check()
                    watch.look()
                    page.show_now_and_then(watch.balance)
                    show()

                def problems() -> list[str]:
                    look()
                    return [*watch.balance().problems, *watch.silences().problems]

                programs.follow(publisher, seconds + PUBLISHER_END, look)
                if publisher.alive():
                    raise LocalStackError(f"The publisher does not finish. The end of its log:\n{publisher.tail()}")
                programs.settle(problems)
                look()
        found, silent = watch.balance(), watch.silences()
        page.show(found)
        wrong = [*found.problems, *silent.problems, *_publisher_problems(publisher, found.published)]
        failed = _report(console, watch, found, silent, wrong)
        stay(page, stage.check)
    return failed


def _report(console: Console, watch: "Watch", found: Balance, silent: Silences, problems: list[str]) -> int:
    """Draw the chart and print the summary; returns 0 if there are no problems, else 1."""
    progress = watch.progress
    picture = FOLDER / "sensors.png"
    chart.draw(picture, SENSORS, INTERVAL, watch.readings(), progress.rows)
    lines = {
        "readings published": f"{found.published}",
        "  averaged": f"{found.averaged}",
        "  dead-lettered": f"{found.dead_lettered}",
        "rows": f"{len(progress.rows)}",
        "silences noticed": f"{silent.noticed}",
    }
    if delays := progress.delays.values():
        lines["interval end to row, median"] = f"{statistics.median(delays):.1f} s"
        lines["interval end to row, longest"] = f"{max(delays):.1f} s"
    console.print(summary("Summary", lines))
    console.print(f"Chart: {picture}")
    show_problems(console, problems)
    if problems:
        console.print(f"{len(problems)} problems. Logs: {FOLDER}")
        return 1
    console.print(f"Checked: all {len(progress.rows)} rows are there once and right.", style="green")
    return 0


def _messages(stage: Stage) -> str:
    return f"{stage.table}_messages"


def _publish_malformed(stage: Stage) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    messages = [{"data": data, "attributes": {"timestamp": now}} for data in MALFORMED]
    with emulators.publisher_client(stage.pubsub.host) as client:
        client.publish(topic=stage.topic, messages=messages)


class Watch:
    """Looks at the topic and the tables, and keeps `progress` up to date."""

    def __init__(self, stage: Stage, progress: Progress) -> None:
        self.progress = progress
        self._stage = stage
        self._published: dict[str, Sent] = {}  # by message id, so that what is delivered twice counts once
        self._dead_letters: list[DeadLetter] = []
        self._silences: list[bigquery.Row] = []
        self._subscriber = emulators.subscriber_client(stage.pubsub.host)
        topic, audit = stage.topic.rpartition("/")[2], stage.subscription.rpartition("/")[2] + "-audit"
        self._audit = emulators.create_subscription(stage.pubsub.host, PROJECT, topic, audit)
        # As a BigQuery subscription of the topic would fill it, which the emulators do not have.
        self._messages = stage.client.create_table(bigquery.Table(_messages(stage), MESSAGE_COLUMNS))

    def look(self) -> None:
        """Take one look. LocalStackError if an emulator has ended."""
        self._stage.check()
        try:
            self._hear()
            self._read_tables()
        except (GoogleAPICallError, OSError):
            self._stage.check()
            raise

    def readings(self) -> list[Reading]:
        """All good readings that were published."""
        fates = (judge(sent, SENSORS) for sent in self._published.values())
        return [fate for fate in fates if isinstance(fate, Reading)]

    def balance(self) -> Balance:
        """Compare all that was published with the tables as last seen."""
        return balance(self._published.values(), self.progress.rows, self._dead_letters, SENSORS, INTERVAL)

    def silences(self) -> Silences:
        """Compare the silences as last seen with the gaps in all that was published."""
        return check(self._silences, self._published.values(), SENSORS, SILENCE_AFTER)

    def _hear(self) -> None:
        while received := emulators.pull(self._subscriber, self._audit, at_most=1000):
            rows = [_message_row(one.message) for one in received]
            for data, message_id, published in rows:
                self._published[message_id] = Sent(message_id, data, published)
            self._stage.client.insert_rows(self._messages, rows)
            self._subscriber.acknowledge(subscription=self._audit, ack_ids=[one.ack_id for one in received])
        self.progress.published = len(self._published)

    def _read_tables(self) -> None:
        client = self._stage.client
        rows = [Row.of(found, SENSORS, ranged=True) for found in emulators.all_rows(client, self._stage.table)]
        now = datetime.now(UTC)
        for row in rows:
            self.progress.delays.setdefault(row.start, (now - row.start - INTERVAL).total_seconds())
        self.progress.rows = sorted(rows, key=lambda row: row.start)
        letters = emulators.all_rows(client, self._stage.dead_letters)
        self._dead_letters = read_dead_letters(letters)
        self.progress.dead_letters = len(letters)
        self._silences = emulators.all_rows(client, self._stage.silences)
        self.progress.silent = self.silences().silent


def _message_row(message: Any) -> tuple[bytes, str, datetime]:
    return message.data, message.message_id, message.publish_time.ToDatetime(UTC)


def _publisher_problems(publisher: Child, heard: int) -> list[str]:
    """Compare what the publisher says it published with what came out of the topic."""
    said = programs.published(publisher)
    if not said:
        return [f"the publisher does not say how much it published; see {publisher.log}"]
    sent = said[0] + len(MALFORMED)
    return [] if heard == sent else [f"{sent} messages were published, {heard} came out of the topic"]
