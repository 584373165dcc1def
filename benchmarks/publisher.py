"""Run with `python -m benchmarks.publisher`: how fast readings are published, and what a slow service does to memory.

First, side by side in alternating turns against our own Pub/Sub server in another process: Google's client for single
messages, the shipped way of sending, and a bare gRPC loop, all from the same messages to the last confirmation; and the
whole publisher, which makes its readings too. Then publishers that want more than a stalled service takes.

BENCH_QUICK=1 takes a quarter of a minute: enough to see that it works, not to believe the numbers.
"""

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1 import types
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.ratios import Goal, spread
from benchmarks.stalled import PAST_MS
from local.emulators import create_topic, own_pubsub_server
from local.pubsub_server import PubsubServer
from publisher.messages import Message, encode
from publisher.publish import Publishing
from publisher.sending import REQUEST_MESSAGES, REQUESTS
from publisher.sensors import CURVES, Reading, readings

# What the publisher used before it had a way of its own.
BATCHES = pubsub_v1.types.BatchSettings(max_messages=1000, max_bytes=1_000_000, max_latency=0.05)
PublishRequest, PublishResponse = types.PublishRequest.pb(), types.PublishResponse.pb()

GROWTH = 2.0  # megabytes memory may grow once a stall has lasted for half its time, until the end
PHASES = ("open", "stalled", "slow")
SLOW = 0.25  # seconds before an answer
WAYS = {"client": "client as it comes", "1": "shipped", "100": "shipped, packed by 100"}
# Readings: under way, a request that waits for room, and a message that waits for that. Packed, bytes are the limit.
OUTSTANDING = {"1": 11_000, "100": 23_000}

_OUT = Path("build/bench")
_COLOURS = {"client": "#b0413e", "shipped": "#1f6f8b", "bare gRPC loop": "#3a7d44"}


@dataclass(frozen=True)
class Turn:
    """One turn of a contender: readings per second, and microseconds of this process's CPU per reading."""

    rate: float
    micros: float


@dataclass(frozen=True)
class Sample:
    """A moment of a publisher that wants more than its service takes; see benchmarks/stalled.py."""

    phase: str
    seconds: float
    published: int
    outstanding: int
    megabytes: float


Turns = dict[str, list[Turn]]  # by contender, in the order of rounds
Samples = dict[str, list[Sample]]  # by way of publishing


class Clock:
    """Wall clock and CPU from `start` to `stop`, in seconds."""

    def start(self) -> None:
        """Begin."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, count: int, end: float | None = None) -> Turn:
        """End, `count` readings later: now, or by the wall clock at `end`."""
        wall, cpu = (end or time.perf_counter()) - self._wall, time.process_time() - self._cpu
        return Turn(count / wall, cpu / count * 1e6)


class ReadyMade:
    """In the place of publisher.faults: messages that are there already, and a clock that starts with the first."""

    def __init__(self, ready: Sequence[Message], clock: Clock):
        self._ready = ready
        self._clock = clock

    def messages(self, readings: Any, run_id: str) -> Iterator[Message]:
        """Yield the messages."""
        self._clock.start()
        return iter(self._ready)


def client(host: str, topic: str, ready: Sequence[Message]) -> Turn:
    """Google's client: a future for each message, all awaited."""
    clock = Clock()
    with pubsub_v1.PublisherClient(batch_settings=BATCHES) as publisher:
        grpc.channel_ready_future(publisher.transport.grpc_channel).result()
        clock.start()
        futures = [publisher.publish(topic, message.data, **message.attributes) for message in ready]
        for future in futures:
            future.result()
        return clock.stop(len(ready))


def shipped(host: str, topic: str, ready: Sequence[Message]) -> Turn:
    """The publisher, but for making readings and messages."""
    clock = Clock()
    return _run(Publishing(topic, ReadyMade(ready, clock)), (), len(ready), clock)


def bare(host: str, topic: str, ready: Sequence[Message]) -> Turn:
    """Requests of the same size, as many at a time, from the same messages; nothing else."""

    def publish(start: int) -> int:
        request = PublishRequest(topic=topic)
        add = request.messages.add
        for message in ready[start : start + REQUEST_MESSAGES]:
            attributes = add(data=message.data).attributes
            for name, value in message.attributes.items():
                attributes[name] = value
        return len(call(request).message_ids)

    clock = Clock()
    with grpc.insecure_channel(host) as channel, ThreadPoolExecutor(REQUESTS) as pool:
        call = channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish",
            request_serializer=PublishRequest.SerializeToString,
            response_deserializer=PublishResponse.FromString,
        )
        grpc.channel_ready_future(channel).result()
        clock.start()
        _check(sum(pool.map(publish, range(0, len(ready), REQUEST_MESSAGES))), len(ready))
        return clock.stop(len(ready))


def whole(topic: str, count: int, packed: int) -> Turn:
    """The whole publisher, readings included."""
    clock = Clock()

    def plan() -> Iterator[Reading]:
        clock.start()
        yield from backlog(count)

    return _run(Publishing(topic, pack=packed), plan(), count, clock)


def _run(run: Publishing, plan: Iterable[Reading], count: int, clock: Clock) -> Turn:
    begun = time.perf_counter()
    run.run(plan)
    _check(run.published, count)
    # As with the others, closing the connection does not count.
    return clock.stop(count, begun + run.seconds)


def backlog(count: int) -> Iterator[Reading]:
    """Yield readings of the past: nothing waits for the clock."""
    return readings(list(CURVES), devices=1, rate=1000, start_ms=PAST_MS, total=count, seed=1)


def race(rounds: int, count: int) -> Turns:
    """Let the contenders take turns; a turn is `count` readings, of the client a tenth of that."""
    ready = [encode(reading, "bench") for reading in backlog(count)]
    # These shall not be gone through for garbage in a contender's time.
    gc.collect()
    gc.freeze()
    with own_pubsub_server() as server:
        os.environ["PUBSUB_EMULATOR_HOST"] = server.host
        topic = create_topic(server.host, "bench-project", "bench")
        contenders: dict[str, Callable[[], Turn]] = {
            "client": lambda: client(server.host, topic, ready[: count // 10]),
            "shipped": lambda: shipped(server.host, topic, ready),
            "bare gRPC loop": lambda: bare(server.host, topic, ready),
            "whole publisher": lambda: whole(topic, count // 4, 1),
            "whole, packed by 10": lambda: whole(topic, count // 4, 10),
            "whole, packed by 100": lambda: whole(topic, count // 4, 100),
        }
        turns: Turns = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, contender in contenders.items():
                turn = contender()
                if number:  # the first round is a warming up
                    turns[name].append(turn)
    gc.unfreeze()
    return turns


def stall(way: str, seconds: float) -> list[Sample]:
    """Watch a publisher whose service is open, stalled and slow for so many seconds each."""
    found: list[Sample] = []
    with PubsubServer() as server:
        topic = create_topic(server.host, "bench-project", "bench")
        environment = {**os.environ, "PUBSUB_EMULATOR_HOST": server.host}
        command = [sys.executable, "-m", "benchmarks.stalled", way, topic]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            released = None
            for line in process.stdout or ():
                sample = json.loads(line)
                number = int(sample["seconds"] / seconds)
                if number == len(PHASES):
                    break
                found.append(Sample(PHASES[number], **sample))
                if PHASES[number] == "stalled" and not released:
                    released = server.stall()
                elif PHASES[number] == "slow" and released:
                    released.set()
                    server.stall(SLOW)
            process.kill()
    return found


def ratios(turns: Turns, name: str, to: str) -> list[float]:
    """Return how many times as fast as `to` a contender is, in each round; sorted."""
    return sorted(mine.rate / theirs.rate for mine, theirs in zip(turns[name], turns[to], strict=True))


def goals(turns: Turns, samples: Samples) -> list[Goal]:
    """Return what was wanted beside what was found."""
    found = [
        Goal("readings/s of shipped / bare gRPC loop", ratios(turns, "shipped", "bare gRPC loop"), at_least=0.7),
        Goal("readings/s of shipped / client", ratios(turns, "shipped", "client"), at_least=8),
    ]
    for way, bound in OUTSTANDING.items():
        most = max(sample.outstanding for sample in samples[way])
        found += [
            Goal(f"{WAYS[way]}: readings outstanding at most", [most], at_most=bound),
            Goal(f"{WAYS[way]}: MB gained as the stall goes on", [growth(samples[way])], at_most=GROWTH),
        ]
    return found


def growth(samples: Sequence[Sample]) -> float:
    """Return the most megabytes from the middle of the stall on, less the most in its first half."""
    stalled = [sample.megabytes for sample in samples if sample.phase == "stalled"]
    half = len(stalled) // 2
    slow = [sample.megabytes for sample in samples if sample.phase == "slow"]
    return max(stalled[half:] + slow) - max(stalled[:half])


def speed_table(turns: Turns) -> Table:
    """Return readings per second, CPU, and ratios with their range."""
    made = Table(title="Publishing, readings/s (median, range)", title_justify="left")
    made.add_column("", no_wrap=True)
    for name in ("readings/s", "range", "CPU us/reading", "/ client", "/ bare gRPC loop"):
        made.add_column(name, justify="right", no_wrap=True)
    for name, found in turns.items():
        rates = sorted(turn.rate for turn in found)
        made.add_row(
            name,
            f"{statistics.median(rates):,.0f}",
            f"{rates[0]:,.0f}-{rates[-1]:,.0f}",
            f"{statistics.median(turn.micros for turn in found):.2f}",
            *(spread(ratios(turns, name, to)) for to in ("client", "bare gRPC loop")),
        )
    return made


def slow_table(samples: Samples) -> Table:
    """Return what is published and outstanding, and memory, at the end of each phase."""
    made = Table(title="A service that stalls, then answers slowly", title_justify="left")
    made.add_column("", no_wrap=True)
    for phase in PHASES:
        for name in ("published", "outstanding", "MB"):
            made.add_column(f"{phase}: {name}", justify="right")
    made.add_column("MB gained as the stall goes on", justify="right")
    for way, found in samples.items():
        cells = []
        for phase in PHASES:
            last = [sample for sample in found if sample.phase == phase][-1]
            cells += [f"{last.published:,}", f"{last.outstanding:,}", f"{last.megabytes:.0f}"]
        made.add_row(WAYS[way], *cells, f"{growth(found):.1f}")
    return made


def as_json(turns: Turns, samples: Samples) -> dict[str, Any]:
    """Return everything that was measured, and on what."""
    return {
        "python": platform.python_version(),
        "grpc": grpc.__version__,
        "machine": platform.platform(),
        "turns": {name: [asdict(turn) for turn in found] for name, found in turns.items()},
        "slow": {WAYS[way]: [asdict(sample) for sample in found] for way, found in samples.items()},
        "goals": [goal.as_json() for goal in goals(turns, samples)],
    }


def chart(turns: Turns, samples: Samples, path: Path) -> None:
    """Draw the speeds, and over time what is outstanding and the memory of publishers whose service is slow."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    speed, outstanding, memory = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    for place, (name, found) in enumerate(reversed(turns.items())):
        rates = [turn.rate for turn in found]
        colour = _COLOURS.get(name, _COLOURS["shipped"])
        speed.barh(place, statistics.median(rates), color=colour, alpha=1 if name in _COLOURS else 0.5)
        speed.plot(rates, [place] * len(rates), "|", color="black", markersize=8, alpha=0.5)
    speed.set_yticks(range(len(turns)), list(reversed(turns)))
    speed.set(xlabel="readings per second", xlim=(0, None))
    speed.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    styles = {"client": ("#b0413e", "-"), "1": ("#1f6f8b", "-"), "100": ("#1f6f8b", "--")}
    for way, found in samples.items():
        colour, style = styles[way]
        seconds = [sample.seconds for sample in found]
        for axes, values in (
            (outstanding, [max(sample.outstanding, 1) for sample in found]),
            (memory, [sample.megabytes for sample in found]),
        ):
            axes.plot(seconds, values, style, color=colour, linewidth=2, label=WAYS[way])
    edge = max(sample.seconds for sample in samples["1"] if sample.phase == "stalled")
    for axes, label in ((outstanding, "readings outstanding"), (memory, "memory, MB")):
        axes.axvspan(edge / 2, edge, color="#8a8a8a", alpha=0.2, linewidth=0)
        axes.axvspan(edge, edge * 1.5, color="#8a8a8a", alpha=0.1, linewidth=0)
        axes.set(xlabel="seconds (service open, stalled, slow)", ylabel=label)
        axes.grid(alpha=0.3)
    outstanding.set_yscale("log")
    memory.set_ylim(0, None)
    outstanding.legend(frameon=False, loc="lower right")
    figure.suptitle("Publishing to a Pub/Sub server on the same machine")
    figure.savefig(path, dpi=150)


def _check(confirmed: int, wanted: int) -> None:
    if confirmed != wanted:
        raise AssertionError(f"{confirmed} of {wanted} readings are confirmed")


def main() -> None:
    """Measure, print, and write build/bench/publisher.json and publisher.png."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    rounds, count, seconds = (1, 20_000, 1) if quick else (9, 120_000, 5)
    console = Console(width=None if os.isatty(1) else 200)
    console.print("[dim]side by side", highlight=False)
    turns = race(rounds, count)
    samples = {}
    for way, name in WAYS.items():
        console.print(f"[dim]a slow service: {name}", highlight=False)
        samples[way] = stall(way, seconds)
    console.print(speed_table(turns))
    console.print(slow_table(samples))
    for goal in goals(turns, samples):
        console.print(str(goal), highlight=False)
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "publisher.json").write_text(json.dumps(as_json(turns, samples), indent=1) + "\n")
    chart(turns, samples, _OUT / "publisher.png")
    console.print(f"Written: {_OUT}/publisher.json, {_OUT}/publisher.png", highlight=False)


if __name__ == "__main__":
    main()
