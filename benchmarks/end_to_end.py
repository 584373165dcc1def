"""The whole system on one machine, live: how many readings a second, and how soon after its interval a row is readable.

`python -m benchmarks.end_to_end` runs emulators, publisher and pipeline as processes of their own, at one rate after
the other, until one is too much (a quarter of an hour). BENCH_QUICK=1 takes a minute: enough to see that it works.

A rate is sustained if the publisher kept it up, every row is there once and right, nothing was dead-lettered (so
nothing was late), and rows came soon and not later and later. What a row must hold is computed from the publisher's
seed.
"""

import json
import logging
import math
import os
import platform
import re
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.cloud import bigquery
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.ratios import Goal
from local import emulators
from local.emulators import Emulator
from local.processes import Child, LocalStackError, interrupt_once, running, wait_for
from local.reconcile import Row, same
from publisher.sensors import readings

PROJECT = "sensor-stream-bench"
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")
DEVICES = 10
SEED = 7
INTERVAL = 2  # seconds; short, so that there are rows enough for percentiles
GRACE = 2  # seconds
POLL = 0.1  # seconds between looks at the table, while a row is due
PATIENCE = 30.0  # seconds that the last row may take
START = 90.0  # seconds that a process may take to start
KEPT_UP = 0.98  # of the rate asked
DRIFT = 1.0  # seconds by which the later half of the rows may take longer than the earlier
PROMPT = 10.0  # seconds in which nine rows of ten are to come; the stock runner stalls for 30 s at the end of a run
FOLDER = Path("build/bench")
LOGS = FOLDER / "end_to_end_logs"

RUNNERS = {
    "stock": ("-m", "pipeline.main"),  # as Beam ships it
    "shipped": ("-m", "local", "pipeline"),
    "shipped, by id": ("-m", "local", "pipeline", "--id_attribute=reading_id"),
}


@dataclass(frozen=True)
class Load:
    """One step of a ladder.

    Attributes:
      runner: one of RUNNERS.
      server: "official" Pub/Sub emulator, or "ours" (local.pubsub_server).
      packed: readings per message, at most.
      rate: readings per second.
    """

    runner: str
    server: str
    packed: int
    rate: int

    @property
    def ladder(self) -> tuple[str, str, int]:
        """What it has in common with the other steps of its ladder."""
        return self.runner, self.server, self.packed


def _ladder(runner: str, server: str, packed: int, *rates: int) -> list[Load]:
    return [Load(runner, server, packed, rate) for rate in rates]


LADDERS = (
    _ladder("stock", "official", 1, 50, 100, 200, 400),
    _ladder("shipped", "official", 1, 1000, 5000, 10_000, 15_000, 20_000),
    _ladder("shipped, by id", "official", 1, 5000, 10_000, 15_000, 20_000),
    _ladder("shipped", "ours", 1, 5000, 10_000, 15_000, 20_000),
    _ladder("shipped", "official", 100, 10_000, 30_000, 60_000, 100_000),
)
QUICK = (_ladder("shipped", "official", 1, 1000), _ladder("shipped", "official", 100, 10_000))
GOALS = {
    ("shipped", "official", 1): 5000,
    ("shipped, by id", "official", 1): 10_000,
    ("shipped", "official", 100): 30_000,
}


@dataclass(frozen=True)
class Measured:
    """What became of one load.

    Attributes:
      load: what was asked.
      published: readings that Pub/Sub accepted.
      rate: of these per second.
      delays: seconds from the end of each interval until its row was seen in BigQuery, in the order of the intervals.
      problems: a line for each thing wrong.
      cores: how many cores each process and its children took, by name.
    """

    load: Load
    published: int
    rate: float
    delays: Sequence[float]
    problems: Sequence[str]
    cores: Mapping[str, float]

    @property
    def drift(self) -> float:
        """Seconds by which the rows of the second half took longer than those of the first."""
        half = len(self.delays) // 2
        return statistics.median(self.delays[half:]) - statistics.median(self.delays[:half]) if half else 0.0

    @property
    def sustained(self) -> bool:
        """Whether this could have gone on."""
        prompt = self.drift <= DRIFT and self.delay(90) <= PROMPT
        return not self.problems and self.rate >= KEPT_UP * self.load.rate and prompt

    def delay(self, percent: float) -> float:
        """The nearest-rank percentile of the delays; NaN if there was no row."""
        if not self.delays:
            return math.nan
        return sorted(self.delays)[max(math.ceil(percent / 100 * len(self.delays)) - 1, 0)]


def main() -> int:
    """Climb every ladder, print, write build/bench/end_to_end.json and .png; 1 if a goal is not met."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    seconds = 15 if quick else 40
    warnings.filterwarnings("ignore", "The return_immediately flag")
    logging.disable(logging.WARNING)
    console = Console(width=None if os.isatty(1) else 200, highlight=False)
    LOGS.mkdir(parents=True, exist_ok=True)
    measured = []
    with _servers() as servers:
        for ladder in QUICK if quick else LADDERS:
            for load in ladder:
                console.print(f"[dim]{load}")
                measured.append(measure(load, seconds, servers[load.server], servers["bigquery"]))
                for problem in measured[-1].problems[:5]:
                    console.print(f"    {problem}", markup=False)
                if not measured[-1].sustained:
                    break
    console.print(table(measured))
    goals = [
        Goal(f"readings/s sustained, {ladder[0]}, packed by {ladder[2]}", [best(measured, ladder)], at_least=goal)
        for ladder, goal in ({} if quick else GOALS).items()
    ]
    for goal in goals:
        console.print(str(goal))
    (FOLDER / "end_to_end.json").write_text(json.dumps(as_json(measured, seconds), indent=1) + "\n")
    chart(measured, FOLDER / "end_to_end.png")
    console.print(f"Written: {FOLDER}/end_to_end.json, {FOLDER}/end_to_end.png; logs: {LOGS}")
    return int(not all(goal.met for goal in goals))


@contextmanager
def _servers() -> Iterator[dict[str, Emulator]]:
    with (
        emulators.official_pubsub_emulator(PROJECT, log_dir=LOGS) as official,
        emulators.own_pubsub_server(log_dir=LOGS) as ours,
        emulators.bigquery_emulator(PROJECT, log_dir=LOGS) as bigquery_,
    ):
        yield {"official": official, "ours": ours, "bigquery": bigquery_}


def measure(load: Load, seconds: int, pubsub: Emulator, bigquery_: Emulator) -> Measured:
    """Run publisher and pipeline under one load for so many seconds. LocalStackError if a process cannot run."""
    name = f"bench-{time.time_ns()}"
    topic = emulators.create_topic(pubsub.host, PROJECT, name)
    subscription = emulators.create_subscription(pubsub.host, PROJECT, name, name)
    rows_table = emulators.create_dataset(bigquery_.host, PROJECT, name.replace("-", "_")) + ".readings"
    env = {**pubsub.env, **bigquery_.env}
    client = emulators.bigquery_client(bigquery_.host, PROJECT)
    with ExitStack() as stack:
        stack.callback(_forget, pubsub.host, topic, subscription)
        pipeline = stack.enter_context(
            running("The pipeline", _pipeline(load, subscription, rows_table), LOGS / "pipeline.log", env)
        )
        # It makes its tables just before it starts to read, the dead letters' last.
        wait_for(pipeline, lambda: emulators.table_exists(client, _dead_letters(rows_table)), START)
        heard = emulators.create_subscription(pubsub.host, PROJECT, name, f"{name}-first")
        processes = {"Pub/Sub": pubsub.child, "pipeline": pipeline, "BigQuery": bigquery_.child}
        before, started = {who: _cpu_seconds(child) for who, child in processes.items()}, time.monotonic()
        publisher = stack.enter_context(
            running("The publisher", _publisher(load, topic, seconds), LOGS / "publisher.log", env)
        )
        start_ms = _first_reading(pubsub.host, heard, load.rate, publisher)
        processes["publisher"] = publisher
        seen = _watch(client, rows_table, start_ms, seconds, pipeline)
        after, took = {who: _cpu_seconds(child) for who, child in processes.items()}, time.monotonic() - started
        wait_for(publisher, lambda: not publisher.alive(), START)
        problems = _problems(client, rows_table, load, start_ms, seconds)

    said = re.search(r"Published (\d+) readings in ([\d.]+) s", publisher.log.read_text(errors="replace"))
    published, publishing = (int(said[1]), float(said[2])) if said else (0, math.inf)
    if published != load.rate * seconds:
        problems.append(f"published {published} of {load.rate * seconds} readings")
    return Measured(
        load,
        published,
        published / publishing,
        [delay for _, delay in sorted(seen.items())],
        problems,
        {who: (after[who] - before.get(who, 0.0)) / took for who in after},
    )


def _pipeline(load: Load, subscription: str, rows_table: str) -> list[str]:
    return [
        sys.executable,
        *RUNNERS[load.runner],
        f"--input_subscription={subscription}",
        "--timestamp_attribute=timestamp",
        f"--output_table={rows_table.replace('.', ':', 1)}",
        f"--interval={INTERVAL}s",
        f"--grace_period={GRACE}s",
    ]


def _publisher(load: Load, topic: str, seconds: int) -> list[str]:
    command = [sys.executable, "-m", "publisher", "publish", "--topic", topic, "--sensors", ",".join(SENSORS)]
    command += ["--rate", str(load.rate), "--pack", str(load.packed), "--duration", f"{seconds}s"]
    return [*command, "--devices", str(DEVICES), "--seed", str(SEED)]


def _dead_letters(rows_table: str) -> str:
    return f"{rows_table}_dead_letters"


def _first_reading(host: str, subscription: str, rate: int, publisher: Child) -> int:
    """Hear what is published first, and stop listening; returns the publisher's start, milliseconds since 1970."""
    heard: list[Any] = []
    with emulators.subscriber_client(host) as client:

        def hear() -> bool:
            heard.extend(one.message for one in emulators.pull(client, subscription, 1))
            return bool(heard)

        wait_for(publisher, hear, START)
        client.delete_subscription(subscription=subscription)
    number = int(heard[0].attributes["reading_id"].rpartition("-")[2])
    stamp = datetime.fromisoformat(heard[0].attributes["timestamp"])
    return round(stamp.timestamp() * 1000) - round(number * 1000 / rate)


def _watch(
    client: bigquery.Client, rows_table: str, start_ms: int, seconds: int, pipeline: Child
) -> dict[datetime, float]:
    """Look at the table until the row of the last interval is there; returns when each was first seen, as a delay."""
    due = start_ms // 1000 // INTERVAL * INTERVAL
    last = (start_ms + seconds * 1000 - 1) // 1000 // INTERVAL * INTERVAL
    seen: dict[datetime, float] = {}
    while due <= last and time.time() < last + INTERVAL + PATIENCE:
        pipeline.check()
        if (ahead := due + INTERVAL + GRACE / 2 - time.time()) > 0:
            time.sleep(ahead)
        found = emulators.all_rows(client, rows_table)
        now = datetime.now(UTC)
        for row in found:
            seen.setdefault(row["Timestamp"], (now - row["Timestamp"]).total_seconds() - INTERVAL)
        if datetime.fromtimestamp(due, UTC) in seen:
            due += INTERVAL
        else:
            time.sleep(POLL)
    return seen


def _problems(client: bigquery.Client, rows_table: str, load: Load, start_ms: int, seconds: int) -> list[str]:
    """Compare the tables with what the publisher's seed makes of every interval."""
    rows = [Row.of(found, SENSORS) for found in emulators.all_rows(client, rows_table)]
    letters = emulators.all_rows(client, _dead_letters(rows_table))
    reasons = sorted({f"{found['stage']} {found['error']}" for found in letters})
    return compare(expected_rows(load.rate, start_ms, seconds), rows) + (
        [f"{len(letters)} dead letters: {', '.join(reasons)}"] if letters else []
    )


def expected_rows(rate: int, start_ms: int, seconds: int) -> dict[datetime, dict[str, float]]:
    """The mean of each sensor by the interval's start, of readings as the publisher makes them."""
    sums: dict[int, dict[str, list[float]]] = defaultdict(lambda: {name: [0.0, 0] for name in SENSORS})
    made = readings(SENSORS, devices=DEVICES, rate=rate, start_ms=start_ms, total=rate * seconds, seed=SEED)
    for reading in made:
        cell = sums[reading.time_ms // 1000 // INTERVAL][reading.sensor]
        cell[0] += reading.value
        cell[1] += 1
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return {
        epoch + timedelta(seconds=index * INTERVAL): {
            name: cell[0] / cell[1] for name, cell in cells.items() if cell[1]
        }
        for index, cells in sums.items()
    }


def compare(expected: Mapping[datetime, Mapping[str, float]], rows: Sequence[Row]) -> list[str]:
    """A line for each row that is missing, doubled, unexpected or wrong."""
    found: dict[datetime, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.start].append(row)
    problems = []
    for start in sorted(expected.keys() | found.keys()):
        if len(found[start]) != (start in expected):
            problems.append(f"{start:%H:%M:%S}: {len(found[start])} rows, must be {int(start in expected)}")
        else:
            means = found[start][0].means
            wrong = [name for name in SENSORS if not same(expected[start].get(name), means[name])]
            problems += [f"{start:%H:%M:%S}: {n} is {means[n]}, must be {expected[start].get(n)}" for n in wrong]
    return problems


def _forget(host: str, topic: str, subscription: str) -> None:
    """Free the emulator of what nobody reads any more."""
    with emulators.subscriber_client(host) as subscriber, emulators.publisher_client(host) as client:
        subscriber.delete_subscription(subscription=subscription)
        client.delete_topic(topic=topic)


def _cpu_seconds(child: Child | None) -> float:
    """CPU of a child and of all in its session, as /proc tells; NaN of a server that somebody else started."""
    if child is None:
        return math.nan
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: state, ppid, pgrp, session, ..., utime and stime.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == child.process.pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def best(measured: Sequence[Measured], ladder: tuple[str, str, int]) -> int:
    """The highest rate of a ladder that was sustained, 0 if none was."""
    return max((one.load.rate for one in measured if one.load.ladder == ladder and one.sustained), default=0)


PROCESSES = ("publisher", "Pub/Sub", "pipeline", "BigQuery")


def table(measured: Sequence[Measured]) -> Table:
    """One line for each load."""
    made = Table(
        title=f"Live, rows of {INTERVAL} s held open for {GRACE} s; seconds from interval end to row readable",
        title_justify="left",
    )
    made.add_column("runner, Pub/Sub, packed")
    for name in ("readings/s", "published/s", "sustained", "rows", "p50", "p99", "max", *PROCESSES):
        made.add_column(name, justify="right", no_wrap=True)
    for one in measured:
        made.add_row(
            ", ".join(map(str, one.load.ladder)),
            f"{one.load.rate:,}",
            f"{one.rate:,.0f}",
            "yes" if one.sustained else "NO",
            str(len(one.delays)),
            *(f"{one.delay(percent):.2f}" for percent in (50, 99, 100)),
            *(f"{one.cores[who]:.2f}" for who in PROCESSES),
        )
    made.caption = "The last four columns are cores taken by each process."
    return made


def as_json(measured: Sequence[Measured], seconds: int) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "seconds_per_load": seconds,
        "interval": INTERVAL,
        "grace_period": GRACE,
        "loads": [
            {
                **asdict(one),
                "sustained": one.sustained,
                "drift": one.drift,
                **{f"p{percent}": one.delay(percent) for percent in (50, 99, 100) if one.delays},
            }
            for one in measured
        ],
    }


def chart(measured: Sequence[Measured], path: Path) -> None:
    """Draw the delay of rows against the rate, a line from median to maximum for each load."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = dict(
        zip(
            (ladder[0].ladder for ladder in LADDERS),
            ("#8a8a8a", "#1f6f8b", "#7a4f9a", "#d98e32", "#3a7d44"),
            strict=True,
        )
    )
    for ladder, colour in colours.items():
        mine = [one for one in measured if one.load.ladder == ladder and one.delays]
        if not mine:
            continue
        rates = [one.load.rate for one in mine]
        runner, server, packed = ladder
        label = f"{runner} runner, {server} Pub/Sub, {packed} a message"
        axes.vlines(rates, [one.delay(50) for one in mine], [one.delay(100) for one in mine], color=colour, alpha=0.5)
        axes.plot(rates, [one.delay(50) for one in mine], color=colour, label=label)
        for one in mine:
            axes.plot(one.load.rate, one.delay(50), marker="o" if one.sustained else "x", color=colour)
    axes.axhline(GRACE, color="black", linewidth=0.8, linestyle=":", label="grace period")
    axes.set(xscale="log", xlabel="readings per second", ylabel="seconds", ylim=(0, None))
    axes.set_title(
        "From interval end to row in BigQuery, median to maximum (x: not sustained)", loc="left", fontsize=11
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    interrupt_once()
    try:
        sys.exit(main())
    except LocalStackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
