"""The system live on one machine: readings per second, and how soon after its interval a row is readable.

`python -m benchmarks.end_to_end` runs emulators, publisher and pipeline as separate processes, at increasing rates,
until one is not sustained (23 minutes). BENCH_QUICK=1 takes a minute: enough to see that it works. The emulators are
restarted for each rate, because the official one of Pub/Sub keeps all messages, and gets slower with them.

A rate is sustained if the publisher kept it up, every row is there once and correct, nothing was dead-lettered (so
nothing was late), and rows came within a limit and with no increasing delay. The expected rows are computed from the
publisher's seed.
"""

import logging
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.frame import CONSOLE, OUT, QUICK, Goal, publish
from benchmarks.load import SENSORS
from local.stack import emulators
from local.stack.local_stack import SURPLUS_WAIT, TIMEOUT_SECONDS, LocalStack, local_stack, published_count
from local.stack.processes import Child, LocalStackError, interrupt_once, wait_for
from local.verify.balance import ManifestEntry, balance
from local.verify.reconcile import Row
from publisher.messages import encode
from publisher.sensors import readings

PROJECT = "sensor-stream-bench"
DEVICES = 10
SEED = 7
INTERVAL = 2  # seconds; short, so that there are enough rows for percentiles
GRACE = 2  # seconds
POLL = 0.1  # seconds between queries of the table, while a row is due
KEPT_UP = 0.98  # of the rate asked for
DRIFT = 1.0  # seconds by which the later half of the rows may take longer than the earlier
PROMPT = 10.0  # seconds within which nine rows of ten must arrive; the stock runner stalls for 30 s at the end
LOGS = OUT / "end_to_end_logs"
RUNNERS = {
    "stock": ("pipeline.main",),  # as Beam ships it
    "shipped": ("local", "pipeline"),
    "shipped, by id": ("local", "pipeline", "--id_attribute=reading_id"),
}
SERVERS = {"official": partial(emulators.official_pubsub_emulator, PROJECT), "ours": emulators.own_pubsub_server}


class Ladder(NamedTuple):
    """Increasing rates, in readings per second, to try until one is not sustained; `goal` must be sustained."""

    runner: str  # one of RUNNERS
    server: str  # one of SERVERS
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


def main() -> int:
    """Try every ladder, print, and write build/bench/end_to_end.json; return 1 if a goal is not met."""
    LOGS.mkdir(parents=True, exist_ok=True)
    rows, goals = [], []
    for ladder in QUICK_LADDERS if QUICK else LADDERS:
        sustained = 0
        for rate in ladder.rates:
            CONSOLE.print(f"[dim]{ladder}: {rate:,} readings/s")
            rows.append(measure(ladder, rate, 15 if QUICK else 40))
            if rows[-1]["sustained"] == "NO":
                break
            sustained = rate
        if ladder.goal:
            goals.append(Goal(f"readings/s sustained, {ladder}", [sustained], at_least=ladder.goal))
    title = f"Live: rows of {INTERVAL} s held open for {GRACE} s, seconds until they are readable, cores taken"
    publish("end_to_end", {title: rows}, goals)
    return int(not all(goal.met for goal in goals))


def measure(ladder: Ladder, rate: int, seconds: int) -> dict[str, Any]:
    """Return the row of one load, after printing its errors.

    Raises:
      LocalStackError: a process cannot run.
    """
    sent = [f"--rate={rate}", f"--pack={ladder.packed}", f"--devices={DEVICES}", f"--seed={SEED}"]
    intervals = [f"--interval={INTERVAL}s", f"--grace_period={GRACE}s"]
    with (
        local_stack(PROJECT, LOGS, pubsub_server=SERVERS[ladder.server](log_dir=LOGS)) as stack,
        stack.pipeline(intervals, entry=RUNNERS[ladder.runner]) as pipeline,
    ):
        name = stack.topic.rpartition("/")[2]
        first = emulators.create_subscription(stack.pubsub.host, PROJECT, name, f"{name}-first")
        with stack.publisher(seconds, sent) as publisher:
            children = {"publisher": publisher, "Pub/Sub": stack.pubsub.child}
            children |= {"pipeline": pipeline, "BigQuery": stack.bigquery.child}
            before, started = _cpu_seconds(children), time.monotonic()
            start_ms = _first_reading(stack, first, rate, publisher)
            delays = _watch(stack, start_ms, seconds, pipeline)
            after, took = _cpu_seconds(children), time.monotonic() - started
            wait_for(publisher, lambda: not publisher.alive(), TIMEOUT_SECONDS)
        time.sleep(SURPLUS_WAIT)  # for dead letters and second rows of an interval that are still to come
        rows = [Row.from_record(found, SENSORS) for found in emulators.all_rows(stack.client, stack.table)]
        dead_letters = [found["payload"] for found in emulators.all_rows(stack.client, stack.dead_letters)]

    problems = differences(rate, start_ms, seconds, rows, dead_letters)
    published, publishing = published_count(publisher) or (0, math.inf)
    if published != rate * seconds:
        problems.append(f"published {published} of {rate * seconds} readings")
    for problem in problems[:5]:
        CONSOLE.print(f"    {problem}", markup=False)
    cores = {who: (after[who] - before[who]) / took for who in children}
    return row(ladder, rate, published / publishing, delays, bool(problems)) | cores


def _first_reading(stack: LocalStack, subscription: str, rate: int, publisher: Child) -> int:
    """Hear what is published first, and stop listening; return the publisher's start, milliseconds since 1970."""
    with emulators.subscriber_client(stack.pubsub.host) as client:
        while not (received := client.pull(subscription=subscription, max_messages=1).received_messages):
            publisher.check()
        client.delete_subscription(subscription=subscription)
    attributes = received[0].message.attributes
    number = int(attributes["reading_id"].rpartition("-")[2])
    return round(datetime.fromisoformat(attributes["timestamp"]).timestamp() * 1000) - round(number * 1000 / rate)


def _watch(stack: LocalStack, start_ms: int, seconds: int, pipeline: Child) -> list[float]:
    """Look at the table until the row of the last interval is there; return when each was first seen, as a delay."""
    first, end = start_ms // 1000 // INTERVAL * INTERVAL, start_ms / 1000 + seconds
    seen: dict[datetime, float] = {}
    for due in range(first, math.ceil(end), INTERVAL):
        while datetime.fromtimestamp(due, UTC) not in seen and time.time() < end + TIMEOUT_SECONDS:
            pipeline.check()
            time.sleep(max(due + INTERVAL + GRACE / 2 - time.time(), POLL))
            for record in emulators.all_rows(stack.client, stack.table):
                late = datetime.now(UTC) - record["Timestamp"]
                seen.setdefault(record["Timestamp"], late.total_seconds() - INTERVAL)
    return [delay for _, delay in sorted(seen.items())]


def differences(
    rate: int, start_ms: int, seconds: int, rows: Sequence[Row], dead_letters: Iterable[bytes]
) -> list[str]:
    """Return a line for each row that is missing, repeated or wrong, and for each dead letter."""
    published = readings(SENSORS, devices=DEVICES, rate=rate, start_ms=start_ms, total=rate * seconds, seed=SEED)
    sent = (ManifestEntry(f"{one.number}", encode(one, "").data, datetime.now(UTC)) for one in published)
    # No reading may be in a dead letter, so rows are compared with all of them.
    found = balance(sent, rows, [], SENSORS, timedelta(seconds=INTERVAL))
    return [*found.problems, *(f"dead letter: {payload[:100]!r}" for payload in dead_letters)]


def _cpu_seconds(children: Mapping[str, Child | None]) -> dict[str, float]:
    """Return the CPU seconds of each child with its session, from /proc; NaN for a server that it did not start."""
    ticks: Counter[int] = Counter()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name, which may have any characters: state, ppid, pgrp, session, ..., utime and stime.
            fields = stat.read_text().rpartition(")")[2].split()
            ticks[int(fields[3])] += int(fields[11]) + int(fields[12])
    hertz = os.sysconf("SC_CLK_TCK")
    return {who: ticks[child.process.pid] / hertz if child else math.nan for who, child in children.items()}


def row(ladder: Ladder, asked: int, rate: float, delays: Sequence[float], wrong: bool) -> dict[str, Any]:
    """Return a row of the table, with whether the load is sustained.

    Args:
      ladder: the kind of load.
      asked: readings per second that the publisher was started with.
      rate: readings per second that Pub/Sub accepted.
      delays: seconds from each interval's end until its row was seen in BigQuery, in order. Percentiles are
        nearest-rank ones, NaN without rows.
      wrong: whether there were differences.
    """
    half = len(delays) // 2
    drift = statistics.median(delays[half:]) - statistics.median(delays[:half]) if half else 0.0
    p50, p90, p99, p100 = np.percentile(delays or math.nan, (50, 90, 99, 100), method="inverted_cdf").tolist()
    sustained = not wrong and rate >= KEPT_UP * asked and drift <= DRIFT and p90 <= PROMPT
    return {
        "": str(ladder),
        "readings/s": asked,
        "published/s": rate,
        "sustained": "yes" if sustained else "NO",
        "rows": len(delays),
        **{"p50": p50, "p99": p99, "p100": p100},
    }


if __name__ == "__main__":
    interrupt_once()  # so that no process is left behind
    logging.disable(logging.WARNING)
    try:
        sys.exit(main())
    except LocalStackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
