"""`python -m local soak`: the pipeline with faulty sensors and outages, then an account of every message.

The sensors send late, twice, out of order, malformed and in bursts. After a third of the time the BigQuery emulator is
killed, is away for OUTAGE seconds, and is restarted with the tables it had. Once a row has been written after that, the
pipeline is killed too, with SIGKILL; the subscription is sought back, and another pipeline starts with `rows_since`. At
the end manifest, rows and dead letters must balance (local.verify.balance, local.verify.replay), and every silence must
have been noticed (local.verify.silence_check).

This requires `write_method=upsert`. With WRITE_METHOD=streaming_inserts or storage_write the pipeline is not killed,
because without upserts a second run adds its rows to those of the first.
SOAK_SECONDS, 300 by default, is how long readings are published.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from local.commands.screen import show_problems, summary
from local.commands.settings import read_settings
from local.stack import emulators
from local.stack.local_stack import (
    TIMEOUT_SECONDS,
    LocalStack,
    local_stack,
    wait_for_publisher,
    wait_until_consistent,
)
from local.stack.processes import Child, LocalStackError, scratch_folder, wait_for
from local.verify.balance import Balance, balance, read_dead_letters, read_manifest
from local.verify.reconcile import Row, interval_start
from local.verify.replay import merge_dead_letters
from local.verify.silence_check import SilenceCheck, check_silences

PROJECT = "sensor-stream-soak"
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
INTERVAL = timedelta(seconds=2)
GRACE = timedelta(seconds=3)
FAULTS = "late=0.01,duplicate=0.01,malformed=0.005,out_of_order=0.05,skew=0.001,dropout=0.001,burst=100"
LATE_BY = 10.0  # seconds, give or take a quarter; longer than the interval and its grace period together
LATE_AT_MOST = timedelta(seconds=LATE_BY * 1.25)
SILENCE_AFTER = timedelta(seconds=5)
DROPOUT = 12.0  # seconds; longer than the eight after which a silence is noticed, so that it is noticed before it ends
SEEK_BEFORE = INTERVAL / 2  # before rows_since, so that half of the preceding interval is read again
FOLDER = Path("build/soak")
OUTAGE = 5.0  # seconds


@dataclass(frozen=True)
class Replay:
    """A time between the kill of the first pipeline and the start of the second, and from when the second reads."""

    killed_at: datetime
    seek: datetime
    since: datetime


def main(argv: list[str]) -> int:
    """Run the soak; returns 0 if everything balances, 1 if not. LocalStackError if something cannot run."""
    settings = read_settings("soak", argv, default_seconds=300, least_seconds=20, default_write_method="upsert")
    FOLDER.mkdir(parents=True, exist_ok=True)
    manifest = FOLDER / "manifest.jsonl"
    manifest.unlink(missing_ok=True)
    console = Console(highlight=False, soft_wrap=True)

    console.print(f"Starting the emulators and the pipeline, write_method={settings.write_method}")
    flags = ["--id_attribute=reading_id", f"--interval={INTERVAL.seconds}s", f"--grace_period={GRACE.seconds}s"]
    flags += [f"--silence_after={SILENCE_AFTER.seconds}s", f"--write_method={settings.write_method}"]
    faults = ["--manifest", str(manifest), "--faults", FAULTS]
    faults += ["--late-by", f"{LATE_BY:g}", "--dropout-for", f"{DROPOUT:g}"]
    replay = None
    with _persistent_stack() as stack, ExitStack() as pipelines:
        pipeline = pipelines.enter_context(stack.pipeline(flags))

        def poll() -> None:
            stack.pubsub.check()
            pipeline.check()

        console.print(f"Publishing for {settings.seconds:g} s: 50 readings a second, {FAULTS}")
        with stack.publisher(settings.seconds, faults) as publisher:
            wait_for_publisher(publisher, settings.seconds / 3, poll)
            console.print(f"Killing the BigQuery emulator for {OUTAGE:g} s")
            console.print(_interrupt_bigquery(stack, pipeline))
            if settings.write_method == "upsert":
                replay = _kill_pipeline(stack, pipeline)
                console.print(f"Killed the pipeline; seeking to {replay.seek:%X.%f}, rows_since={replay.since:%X}")
                flags.append(f"--rows_since={replay.since:%Y-%m-%dT%H:%M:%SZ}")
                pipeline = pipelines.enter_context(stack.pipeline(flags, log="second-pipeline"))
            wait_for_publisher(publisher, settings.seconds + 2 * LATE_BY, poll)
        console.print("Waiting for the last rows")

        def find_problems() -> list[str]:
            pipeline.check()
            return _balance(stack, manifest, replay)[0].problems

        wait_until_consistent(find_problems)
        result, silences, repeated = _balance(stack, manifest, replay)
    return _report(console, result, silences, repeated)


def _report(console: Console, result: Balance, silences: SilenceCheck, repeated: int) -> int:
    """Print the balance and its problems; returns 0 if there are none, else 1."""
    counts = {one.name.replace("_", " "): getattr(result, one.name) for one in fields(result) if one.name != "problems"}
    counts["dead letters repeated"] = repeated
    counts |= {"silences": silences.noticed, "silences filled by late readings": silences.late}
    console.print(summary("Balance", {name: str(count) for name, count in counts.items()}))
    show_problems(console, result.problems)
    if result.problems:
        console.print(f"{len(result.problems)} differences. Manifest and logs: {FOLDER}")
        return 1
    console.print("Everything balances.", style="green")
    return 0


@contextmanager
def _persistent_stack() -> Iterator[LocalStack]:
    """The local stack with a BigQuery emulator of this run, which keeps its tables in files."""
    if "BIGQUERY_EMULATOR_HOST" in os.environ:
        raise LocalStackError(
            "The soak kills its BigQuery emulator: unset BIGQUERY_EMULATOR_HOST, so that it starts one."
        )
    with scratch_folder("soak-") as data:
        # Settings of the emulator itself; flags for them would have to pass through local.stack.emulators.
        os.environ |= {"BQEMU_PERSISTENCE_MODE": "persistent", "BQEMU_DATA_DIR": str(data)}
        with local_stack(PROJECT, FOLDER, seekable=True) as stack:
            yield stack


def _interrupt_bigquery(stack: LocalStack, pipeline: Child) -> str:
    """Kill BigQuery, restart it and wait for a row; returns a line with the times that this took."""
    killed = time.monotonic()
    stack.kill_bigquery()
    time.sleep(OUTAGE)
    stack.restart_bigquery()
    restarted = time.monotonic()
    rows = len(_rows(stack))
    wait_for(pipeline, lambda: len(_rows(stack)) > rows, TIMEOUT_SECONDS)
    row_after = time.monotonic() - restarted
    return f"It was away for {restarted - killed:.1f} s; {row_after:.1f} s after that came the next row"


def _kill_pipeline(stack: LocalStack, pipeline: Child) -> Replay:
    """Kill the pipeline and seek back, so that every interval that it may not have finished is computed again.

    An interval is finished if it ended before the newest row by more than a reading can be late: its row is written,
    and so is a dead letter for everything that came late. Waits until there are such intervals.
    """
    wait_for(pipeline, lambda: _count_finished_intervals(stack) > 0, TIMEOUT_SECONDS)
    pipeline.process.kill()
    pipeline.process.wait()
    since = interval_start(max(row.start for row in _rows(stack)) - LATE_AT_MOST, INTERVAL)
    replay = Replay(datetime.now(UTC), since - SEEK_BEFORE, since)
    with emulators.subscriber_client(stack.pubsub.host) as client:
        client.seek({"subscription": stack.subscription, "time": replay.seek})
    return replay


def _count_finished_intervals(stack: LocalStack) -> int:
    starts = [row.start for row in _rows(stack)]
    return sum(start < interval_start(max(starts) - LATE_AT_MOST, INTERVAL) for start in starts)


def _balance(stack: LocalStack, manifest: Path, replay: Replay | None) -> tuple[Balance, SilenceCheck, int]:
    """Return the balance, with the problems of all checks; the silences; and the number of repeated dead letters."""
    # By id, because a write that is confirmed too late is repeated.
    records = {one["dead_letter_id"]: one for one in emulators.all_rows(stack.client, stack.dead_letters)}
    records_of_first: list[Mapping[str, Any]] = []
    records_of_second: list[Mapping[str, Any]] = []
    for record in records.values():
        is_second = replay is not None and record["received_at"] > replay.killed_at
        (records_of_second if is_second else records_of_first).append(record)
    dead_letters, second = read_dead_letters(records_of_first), read_dead_letters(records_of_second)
    published = read_manifest(manifest)
    silence_rows = emulators.all_rows(stack.client, stack.silences)
    repeated = 0
    problems: list[str] = []
    if replay is not None:
        merged = merge_dead_letters(dead_letters, second, published, SENSORS, replay.seek, replay.since)
        dead_letters, repeated, problems = merged.dead_letters, merged.repeated, merged.problems
        # The second pipeline reads only late messages of the time before the seek, so it may find silences there that
        # did not exist.
        silence_rows = [
            row for row in silence_rows if row["SilentSince"] >= replay.seek or row["NoticedAt"] <= replay.killed_at
        ]
    result = balance(published, _rows(stack), dead_letters, SENSORS, INTERVAL)
    pipelines = 1 if replay is None else 2
    silences = check_silences(silence_rows, published, SENSORS, SILENCE_AFTER, pipelines)
    result.problems += [*problems, *silences.problems]
    return result, silences, repeated


def _rows(stack: LocalStack) -> list[Row]:
    return [Row.from_record(record, SENSORS) for record in emulators.all_rows(stack.client, stack.table)]
