"""`python -m local soak`: the shipped pipeline in a faulty world, then an account of every message.

The sensors send late, twice, out of order, malformed and in bursts. After a third the BigQuery emulator is killed,
stays away for OUTAGE seconds, and comes back with the tables it had. Once a row has come after that, the pipeline is
killed too, with SIGKILL; the subscription is sought back, and another pipeline starts with `rows_since`. In the end
manifest, rows and dead letters must balance (local.verify.balance, local.verify.replay), and each silence must be there
(local.verify.silences).

That takes `write_method=upsert`. With WRITE_METHOD=streaming_inserts or storage_write the pipeline is left alive,
since without upserts a second run adds its rows to those of the first.
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

from local.commands.run_length import run_length
from local.commands.screen import show_problems, summary
from local.stack import emulators, programs
from local.stack.processes import Child, LocalStackError, scratch_folder, wait_for
from local.stack.programs import TIMEOUT_SECONDS, Stage
from local.verify import silences
from local.verify.balance import Balance, balance, read_dead_letters, read_manifest
from local.verify.reconcile import Row, interval_start
from local.verify.replay import account
from local.verify.silences import Silences

PROJECT = "sensor-stream-soak"
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
INTERVAL = timedelta(seconds=2)
GRACE = timedelta(seconds=3)
FAULTS = "late=0.01,duplicate=0.01,malformed=0.005,out_of_order=0.05,skew=0.001,dropout=0.001,burst=100"
LATE_BY = 10.0  # seconds, give or take a quarter; well past the interval and its grace period
LATE_AT_MOST = timedelta(seconds=LATE_BY * 1.25)
SILENCE_AFTER = timedelta(seconds=5)
DROPOUT = 12.0  # seconds; noticed after eight, so that a silence is noticed before it ends
SEEK_BEFORE = INTERVAL / 2  # of rows_since: so that half of the interval before it is seen again
FOLDER = Path("build/soak")
OUTAGE = 5.0  # seconds


@dataclass(frozen=True)
class Replay:
    """What the second pipeline was told, and when the first was dead and the second not yet there."""

    between: datetime
    seek: datetime
    since: datetime


def main(argv: list[str]) -> int:
    """Run the soak; returns 0 if all balances, 1 if not. LocalStackError if something cannot run."""
    if argv:
        raise LocalStackError("the soak takes no flags; SOAK_SECONDS=60 python -m local soak runs a shorter one")
    seconds = run_length("SOAK_SECONDS", default=300, least=20)
    write_method = os.environ.get("WRITE_METHOD") or "upsert"
    FOLDER.mkdir(parents=True, exist_ok=True)
    manifest = FOLDER / "manifest.jsonl"
    manifest.unlink(missing_ok=True)
    console = Console(highlight=False, soft_wrap=True)

    console.print(f"Starting the emulators and the pipeline, write_method={write_method}")
    flags = ["--id_attribute=reading_id", f"--interval={INTERVAL.seconds}s", f"--grace_period={GRACE.seconds}s"]
    flags += [f"--silence_after={SILENCE_AFTER.seconds}s", f"--write_method={write_method}"]
    faults = ["--manifest", str(manifest), "--faults", FAULTS]
    faults += ["--late-by", f"{LATE_BY:g}", "--dropout-for", f"{DROPOUT:g}"]
    replay = None
    with _stage() as stage, ExitStack() as pipelines:
        pipeline = pipelines.enter_context(stage.pipeline(flags))

        def look() -> None:
            stage.pubsub.check()
            pipeline.check()

        console.print(f"Publishing for {seconds:g} s: 50 readings a second, {FAULTS}")
        with stage.publisher(seconds, faults) as publisher:
            programs.follow(publisher, seconds / 3, look)
            console.print(f"Killing the BigQuery emulator; it stays away for {OUTAGE:g} s")
            console.print(_outage(stage, pipeline))
            if write_method == "upsert":
                replay = _kill(stage, pipeline)
                console.print(f"Killed the pipeline; seeking to {replay.seek:%X.%f}, rows_since={replay.since:%X}")
                flags.append(f"--rows_since={replay.since:%Y-%m-%dT%H:%M:%SZ}")
                pipeline = pipelines.enter_context(stage.pipeline(flags, log="second-pipeline"))
            programs.follow(publisher, seconds + 2 * LATE_BY, look)
        console.print("Waiting for the last rows")

        def problems() -> list[str]:
            pipeline.check()
            return _balance(stage, manifest, replay)[0].problems

        programs.settle(problems)
        result, silent, repeated = _balance(stage, manifest, replay)

    counts = {one.name.replace("_", " "): getattr(result, one.name) for one in fields(result) if one.name != "problems"}
    counts["dead letters repeated"] = repeated
    counts |= {"silences": silent.noticed, "silences filled by late readings": silent.late}
    console.print(summary("Balance", {name: str(count) for name, count in counts.items()}))
    show_problems(console, result.problems)
    if result.problems:
        console.print(f"{len(result.problems)} differences. Manifest and logs: {FOLDER}")
        return 1
    console.print("Everything balances.", style="green")
    return 0


@contextmanager
def _stage() -> Iterator[Stage]:
    """The stage, with a BigQuery of its own that keeps its tables in files."""
    if "BIGQUERY_EMULATOR_HOST" in os.environ:
        raise LocalStackError("The soak kills its BigQuery emulator: unset BIGQUERY_EMULATOR_HOST for one of its own.")
    with scratch_folder("soak-") as data:
        # The emulator's own settings; on the command line they would have to pass through local.stack.emulators.
        os.environ |= {"BQEMU_PERSISTENCE_MODE": "persistent", "BQEMU_DATA_DIR": str(data)}
        with programs.stage(PROJECT, FOLDER, seekable=True) as stage:
            yield stage


def _outage(stage: Stage, pipeline: Child) -> str:
    """Kill BigQuery and bring it back; returns how long it was away, and how soon a row came after that."""
    assert stage.bigquery_.child
    killed = time.monotonic()
    stage.bigquery_.child.process.kill()
    stage.bigquery_running.close()
    time.sleep(OUTAGE)
    hosts = stage.bigquery_.host, stage.bigquery_.env[emulators.BIGQUERY_STORAGE]
    port, storage_port = (int(host.rpartition(":")[2]) for host in hosts)
    again = emulators.bigquery_emulator(PROJECT, port, FOLDER, storage_port)
    stage.bigquery_ = stage.bigquery_running.enter_context(again)
    back = time.monotonic()
    rows = len(_rows(stage))
    wait_for(pipeline, lambda: len(_rows(stage)) > rows, TIMEOUT_SECONDS)
    return f"It was away for {back - killed:.1f} s; {time.monotonic() - back:.1f} s after that came the next row"


def _kill(stage: Stage, pipeline: Child) -> Replay:
    """Kill the pipeline and seek back, to recompute what it may not have finished: all that is not well in the past.

    An interval that ended before the newest row by as much as a reading may be late has its row, and a dead letter for
    all that came late. The first such intervals are waited for.
    """
    wait_for(pipeline, lambda: _finished(stage) > 0, TIMEOUT_SECONDS)
    pipeline.process.kill()
    pipeline.process.wait()
    since = max(row.start for row in _rows(stage)) - LATE_AT_MOST
    since = interval_start(since, INTERVAL)
    replay = Replay(datetime.now(UTC), since - SEEK_BEFORE, since)
    with emulators.subscriber_client(stage.pubsub.host) as client:
        client.seek({"subscription": stage.subscription, "time": replay.seek})
    return replay


def _finished(stage: Stage) -> int:
    """How many intervals are certain to be finished, of what is in the table."""
    starts = [row.start for row in _rows(stage)]
    return sum(start < interval_start(max(starts) - LATE_AT_MOST, INTERVAL) for start in starts)


def _balance(stage: Stage, manifest: Path, replay: Replay | None) -> tuple[Balance, Silences, int]:
    """The balance, which has the problems of all; how many dead letters only repeat others or are out of date."""
    # By id: a write that is confirmed too late is written again.
    found = {letter["dead_letter_id"]: letter for letter in emulators.all_rows(stage.client, stage.dead_letters)}
    of_first: list[Mapping[str, Any]] = []
    of_second: list[Mapping[str, Any]] = []
    for letter in found.values():
        again = replay is not None and letter["received_at"] > replay.between
        (of_second if again else of_first).append(letter)
    first, second = read_dead_letters(of_first), read_dead_letters(of_second)
    published = read_manifest(manifest)
    noticed = emulators.all_rows(stage.client, stage.silences)
    repeated = 0
    problems: list[str] = []
    if replay is not None:
        of_both = account(first, second, published, SENSORS, replay.seek, replay.since)
        first, repeated, problems = of_both.letters, of_both.repeated, of_both.problems
        # Of what was before the seek the second pipeline knows only what came late: it may take that for a silence.
        noticed = [one for one in noticed if one["SilentSince"] >= replay.seek or one["NoticedAt"] <= replay.between]
    result = balance(published, _rows(stage), first, SENSORS, INTERVAL)
    silent = silences.check(noticed, published, SENSORS, SILENCE_AFTER, 1 + (replay is not None))
    result.problems += [*problems, *silent.problems]
    return result, silent, repeated


def _rows(stage: Stage) -> list[Row]:
    return [Row.of(found, SENSORS) for found in emulators.all_rows(stage.client, stage.table)]
