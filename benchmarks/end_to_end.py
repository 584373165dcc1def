"""The whole system on one machine, live: how many readings a second, and how soon after its interval a row is readable.

`python -m benchmarks.end_to_end` runs emulators, publisher and pipeline as processes of their own, at one rate after
the other, until one is too much (a quarter of an hour). BENCH_QUICK=1 takes a minute: enough to see that it works.

A rate is sustained if the publisher kept it up, every row is there once and right, nothing was dead-lettered (so
nothing was late), and rows came soon and not later and later. What a row must hold is computed from the publisher's
seed.
"""

import logging
import math
import os
import statistics
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.frame import CONSOLE, OUT, QUICK, Goal, publish
from benchmarks.load import SENSORS
from local import emulators, reconcile, shipped
from local.emulators import Emulator
from local.processes import Child, LocalStackError, interrupt_once, wait_for
from local.reconcile import Cell, Row
from local.shipped import Stage
from publisher.sensors import readings

PROJECT = "sensor-stream-bench"
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
LOGS = OUT / "end_to_end_logs"
RUNNERS = {
    "stock": ("pipeline.main",),  # as Beam ships it
    "shipped": ("local", "pipeline"),
    "shipped, by id": ("local", "pipeline", "--id_attribute=reading_id"),
}


class Ladder(NamedTuple):
    """Rates, in readings per second, to climb until one is too much; `goal` is the one to sustain, if there is one."""

    runner: str  # one of RUNNERS
    server: str  # "official" Pub/Sub emulator, or "ours" (local.pubsub_server)
    packed: int  # readings per message, at most
    rates: tuple[int, ...]
    goal: int | None = None

    def __str__(self) -> str:
        return f"{self.runner} runner, {self.server} Pub/Sub, {self.packed} a message"


LADDERS = (
    Ladder("stock", "official", 1, (50, 100, 200, 400)),
    Ladder("shipped", "official", 1, (1000, 5000, 10_000, 15_000, 20_000), goal=5000),
    Ladder("shipped, by id", "official", 1, (5000, 10_000, 15_000, 20_000), goal=10_000),
    Ladder("shipped", "ours", 1, (5000, 10_000, 15_000, 20_000)),
    Ladder("shipped", "official", 100, (10_000, 30_000, 60_000, 100_000), goal=30_000),
)
QUICK_LADDERS = (Ladder("shipped", "official", 1, (1000,)), Ladder("shipped", "official", 100, (10_000,)))


class Measured(NamedTuple):
    """What became of one load."""

    ladder: Ladder
    asked: int  # readings per second
    rate: float  # readings per second that Pub/Sub accepted
    delays: Sequence[float]  # seconds from each interval's end until its row was seen in BigQuery, in order
    problems: Sequence[str]  # a line for each thing wrong
    cores: Mapping[str, float]  # that each process and its children took

    @property
    def drift(self) -> float:
        """Seconds by which the rows of the second half took longer than those of the first."""
        half = len(self.delays) // 2
        return statistics.median(self.delays[half:]) - statistics.median(self.delays[:half]) if half else 0.0

    @property
    def sustained(self) -> bool:
        """Whether this could have gone on."""
        prompt = self.drift <= DRIFT and self.delay(90) <= PROMPT
        return not self.problems and self.rate >= KEPT_UP * self.asked and prompt

    def delay(self, percent: float) -> float:
        """The nearest-rank percentile of the delays; NaN if there was no row."""
        place = max(math.ceil(percent / 100 * len(self.delays)) - 1, 0)
        return sorted(self.delays)[place] if self.delays else math.nan


def main() -> int:
    """Climb every ladder, print, write build/bench/end_to_end.json; 1 if a goal is not met."""
    warnings.filterwarnings("ignore", "The return_immediately flag")
    logging.disable(logging.WARNING)
    LOGS.mkdir(parents=True, exist_ok=True)
    measured = []
    with (
        emulators.official_pubsub_emulator(PROJECT, log_dir=LOGS) as official,
        emulators.own_pubsub_server(log_dir=LOGS) as ours,
        emulators.bigquery_emulator(PROJECT, log_dir=LOGS) as warehouse,
    ):
        for ladder in QUICK_LADDERS if QUICK else LADDERS:
            for rate in ladder.rates:
                CONSOLE.print(f"[dim]{ladder}: {rate:,} readings/s")
                server = official if ladder.server == "official" else ours
                measured.append(measure(ladder, rate, 15 if QUICK else 40, server, warehouse))
                for problem in measured[-1].problems[:5]:
                    CONSOLE.print(f"    {problem}", markup=False)
                if not measured[-1].sustained:
                    break
    wanted = [one for one in LADDERS if one.goal and not QUICK]
    goals = [Goal(f"readings/s sustained, {one}", [best(measured, one)], at_least=one.goal) for one in wanted]
    title = f"Live: rows of {INTERVAL} s held open for {GRACE} s, seconds until they are readable, cores taken"
    publish("end_to_end", {title: [row(one) for one in measured]}, goals)
    return int(not all(goal.met for goal in goals))


def measure(ladder: Ladder, rate: int, seconds: int, pubsub: Emulator, warehouse: Emulator) -> Measured:
    """Run publisher and pipeline under one load for so many seconds. LocalStackError if a process cannot run."""
    os.environ |= {**pubsub.env, **warehouse.env}  # where the stage is to find them
    sent = [f"--rate={rate}", f"--pack={ladder.packed}", f"--devices={DEVICES}", f"--seed={SEED}"]
    intervals = [f"--interval={INTERVAL}s", f"--grace_period={GRACE}s"]
    with (
        shipped.stage(PROJECT, LOGS) as stage,
        stage.pipeline(intervals, entry=RUNNERS[ladder.runner]) as pipeline,
    ):
        name = stage.topic.rpartition("/")[2]
        heard = emulators.create_subscription(pubsub.host, PROJECT, name, f"{name}-first")
        with stage.publisher(seconds, sent) as publisher:
            children = {"publisher": publisher, "Pub/Sub": pubsub.child}
            children |= {"pipeline": pipeline, "BigQuery": warehouse.child}
            before, started = _cpu_seconds(children), time.monotonic()
            start_ms = _first_reading(pubsub.host, heard, rate, publisher)
            delays = _watch(stage, start_ms, seconds, pipeline)
            after, took = _cpu_seconds(children), time.monotonic() - started
            wait_for(publisher, lambda: not publisher.alive(), START)
        rows = [Row.of(found, SENSORS) for found in emulators.all_rows(stage.client, stage.table)]
        letters = emulators.all_rows(stage.client, stage.dead_letters)

    problems = compare(expected_rows(rate, start_ms, seconds), rows, [letter["payload"] for letter in letters])
    published, publishing = shipped.published(publisher) or (0, math.inf)
    if published != rate * seconds:
        problems.append(f"published {published} of {rate * seconds} readings")
    cores = {who: (after[who] - before[who]) / took for who in children}
    return Measured(ladder, rate, published / publishing, delays, problems, cores)


def _first_reading(host: str, subscription: str, rate: int, publisher: Child) -> int:
    """Hear what is published first, and stop listening; return the publisher's start, milliseconds since 1970."""
    heard: list[Any] = []
    with emulators.subscriber_client(host) as client:
        wait_for(publisher, lambda: heard.extend(emulators.pull(client, subscription, 1)) or bool(heard), START)
        client.delete_subscription(subscription=subscription)
    attributes = heard[0].message.attributes
    number = int(attributes["reading_id"].rpartition("-")[2])
    return round(datetime.fromisoformat(attributes["timestamp"]).timestamp() * 1000) - round(number * 1000 / rate)


def _watch(stage: Stage, start_ms: int, seconds: int, pipeline: Child) -> list[float]:
    """Look at the table until the row of the last interval is there; return when each was first seen, as a delay."""
    first, end = start_ms // 1000 // INTERVAL * INTERVAL, start_ms / 1000 + seconds
    seen: dict[datetime, float] = {}
    for due in range(first, math.ceil(end), INTERVAL):
        while datetime.fromtimestamp(due, UTC) not in seen and time.time() < end + PATIENCE:
            pipeline.check()
            time.sleep(max(due + INTERVAL + GRACE / 2 - time.time(), POLL))
            for record in emulators.all_rows(stage.client, stage.table):
                late = datetime.now(UTC) - record["Timestamp"]
                seen.setdefault(record["Timestamp"], late.total_seconds() - INTERVAL)
    return [delay for _, delay in sorted(seen.items())]


def expected_rows(rate: int, start_ms: int, seconds: int) -> dict[datetime, dict[str, Cell]]:
    """The mean of each sensor by the interval's start, of readings as the publisher makes them."""
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0])
    for one in readings(SENSORS, devices=DEVICES, rate=rate, start_ms=start_ms, total=rate * seconds, seed=SEED):
        added_up = sums[one.time_ms // 1000 // INTERVAL * INTERVAL, one.sensor]
        added_up[0] += one.value
        added_up[1] += 1
    expected: dict[datetime, dict[str, Cell]] = defaultdict(dict)
    for (start, sensor), (total, count) in sums.items():
        expected[datetime.fromtimestamp(start, UTC)][sensor] = Cell({"mean": total / count})
    return expected


def compare(
    expected: Mapping[datetime, Mapping[str, Cell]], rows: Iterable[Row], letters: Iterable[bytes]
) -> list[str]:
    """A line for each row that is missing, doubled, unexpected or wrong, and for each dead letter."""
    differences = map(str, reconcile.compare(expected, rows))
    return [*differences, *(f"dead letter: {payload[:100]!r}" for payload in letters)]


def _cpu_seconds(children: Mapping[str, Child | None]) -> dict[str, float]:
    """CPU of each child and of all in its session, as /proc tells; NaN of a server that somebody else started."""
    ticks: Counter[int] = Counter()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name, which may hold anything: state, ppid, pgrp, session, ..., utime and stime.
            fields = stat.read_text().rpartition(")")[2].split()
            ticks[int(fields[3])] += int(fields[11]) + int(fields[12])
    hertz = os.sysconf("SC_CLK_TCK")
    return {who: ticks[child.process.pid] / hertz if child else math.nan for who, child in children.items()}


def best(measured: Sequence[Measured], ladder: Ladder) -> int:
    """The highest rate of a ladder that was sustained, 0 if none was."""
    return max((one.asked for one in measured if one.ladder == ladder and one.sustained), default=0)


def row(one: Measured) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "": str(one.ladder),
        "readings/s": one.asked,
        "published/s": one.rate,
        "sustained": "yes" if one.sustained else "NO",
        "rows": len(one.delays),
        **{f"p{percent}": one.delay(percent) for percent in (50, 99, 100)},
        **one.cores,
    }


if __name__ == "__main__":
    interrupt_once()
    try:
        sys.exit(main())
    except LocalStackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
