"""How fast readings are published, and what a slow service does to memory: run with `make bench-publisher`.

First, in turns against our own Pub/Sub server in another process: Google's client for single messages, the shipped way
of sending, and a bare gRPC loop, all from the same messages to the last confirmation; and the complete publisher, which
generates its readings too. Then publishers that send more than a stalled service accepts.

BENCH_QUICK=1 takes a quarter of a minute: enough to see that it works, too short for reliable figures.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1 import types
from matplotlib.figure import Figure

from benchmarks.frame import BLUE, GREEN, QUICK, RED, Goal, Panel, Rows, draw, publish, ratios, take_turns
from benchmarks.stalled import backlog
from local.stack.emulators import create_topic, insecure_channel, own_pubsub_server
from local.stack.processes import started
from local.stack.pubsub_server import PubsubServer
from publisher.messages import Message, encode
from publisher.publish import Publishing
from publisher.sending import REQUEST_MESSAGES, REQUESTS

# The settings of version 0.1.0, which used Google's client.
BATCHES = pubsub_v1.types.BatchSettings(max_messages=1000, max_bytes=1_000_000, max_latency=0.05)
PublishRequest, PublishResponse = types.PublishRequest.pb(), types.PublishResponse.pb()

GROWTH = 2.0  # megabytes memory may grow once a stall has lasted for half its time, until the end
PHASES = ("open", "stalled", "slow")
SLOW = 0.25  # seconds before an answer
WAYS = {"client": "client with its defaults", "1": "shipped", "100": "shipped, packed by 100"}
# Readings in requests under way, in one that waits for these, and in a message that waits for it. Packed, bytes limit.
OUTSTANDING = {"1": 11_000, "100": 23_000}

_STYLES = {
    "client": {"color": RED},
    "bare gRPC loop": {"color": GREEN},
    "client with its defaults": {"color": RED, "marker": ""},
    "shipped": {"color": BLUE, "marker": ""},
    "shipped, packed by 100": {"color": BLUE, "marker": "", "linestyle": "--"},
}

Turn = tuple[float, float]  # readings per second, and microseconds of this process's CPU per reading


class Clock:
    """Yields `items`, of so many readings; the time of a turn begins with the first one."""

    def __init__(self, items: Iterable[Any], readings: int):
        self._items, self._readings = items, readings

    def __iter__(self) -> Iterator[Any]:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return iter(self._items)

    def stop(self, confirmed: int, end: float | None = None) -> Turn:
        """End the turn, now or by the wall clock at `end`, with so many readings confirmed."""
        wall, cpu = (end or time.perf_counter()) - self._wall, time.process_time() - self._cpu
        if confirmed != self._readings:
            raise AssertionError(f"{confirmed} of {self._readings} readings are confirmed")
        return confirmed / wall, cpu / confirmed * 1e6


def client(topic: str, ready: Sequence[Message]) -> Turn:
    """Google's client: a future for each message, all awaited."""
    clock = Clock(ready, len(ready))
    with pubsub_v1.PublisherClient(batch_settings=BATCHES) as publisher:
        grpc.channel_ready_future(publisher.transport.grpc_channel).result()
        futures = [publisher.publish(topic, message.data, **message.attributes) for message in clock]
        return clock.stop(len([future.result() for future in futures]))


def bare(host: str, topic: str, ready: Sequence[Message]) -> Turn:
    """Requests of the same size as the publisher's, as many at a time, from the same messages; nothing else."""

    def publish(start: int) -> int:
        request = PublishRequest(topic=topic)
        add = request.messages.add
        for message in ready[start : start + REQUEST_MESSAGES]:
            attributes = add(data=message.data).attributes
            for name, value in message.attributes.items():
                attributes[name] = value
        return len(call(request).message_ids)

    clock = Clock(range(0, len(ready), REQUEST_MESSAGES), len(ready))
    with insecure_channel(host) as channel, ThreadPoolExecutor(REQUESTS) as pool:
        path, encoder = "/google.pubsub.v1.Publisher/Publish", PublishRequest.SerializeToString
        call = channel.unary_unary(path, request_serializer=encoder, response_deserializer=PublishResponse.FromString)
        grpc.channel_ready_future(channel).result()
        return clock.stop(sum(pool.map(publish, clock)))


def shipped(topic: str, count: int, packed: int = 1, ready: Sequence[Message] | None = None) -> Turn:
    """The publisher, complete or, with messages that are `ready`, without generating readings and messages."""
    clock = Clock(ready or backlog(count), count)
    run = Publishing(topic, ready and SimpleNamespace(messages=lambda plan, run_id: clock), pack=packed)
    begun = time.perf_counter()
    run.run(clock)
    # As with the others, closing the connection does not count.
    return clock.stop(run.published, begun + run.seconds)


def race(rounds: int, count: int) -> dict[str, list[Turn]]:
    """Run the contenders in turns: `count` readings each, the client a tenth, the complete publisher a quarter."""
    ready = [encode(reading, "bench") for reading in backlog(count)]
    with own_pubsub_server() as server:
        os.environ |= server.env
        topic = create_topic(server.host, "bench-project", "bench")
        contenders = {
            "client": partial(client, topic, ready[: count // 10]),
            "shipped": partial(shipped, topic, count, ready=ready),
            "bare gRPC loop": partial(bare, server.host, topic, ready),
            "complete publisher": partial(shipped, topic, count // 4),
            "complete, packed by 10": partial(shipped, topic, count // 4, 10),
            "complete, packed by 100": partial(shipped, topic, count // 4, 100),
        }
        return take_turns(contenders, rounds, warm_up=1)


def stall(way: str, seconds: float) -> list[dict[str, Any]]:
    """Return what `stalled` prints of a publisher whose service is open, stalled and slow, for `seconds` each."""
    moments: list[dict[str, Any]] = []
    with PubsubServer() as server:
        topic = create_topic(server.host, "bench-project", "bench")
        command = [sys.executable, "-m", "benchmarks.stalled", way, topic]
        environment = {**os.environ, "PUBSUB_EMULATOR_HOST": server.host}
        with started(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for moment in map(json.loads, process.stdout or ()):
                if moment["seconds"] >= len(PHASES) * seconds:
                    break
                phase = PHASES[int(moment["seconds"] / seconds)]
                if phase == "stalled" and moments[-1]["phase"] == "open":
                    server.stall(seconds)
                elif phase == "slow":
                    server.stall(SLOW)
                moments.append(moment | {"phase": phase})
    return moments


def growth(moments: Rows) -> float:
    """Return the most megabytes from the middle of the stall on, less the most in its first half."""
    since = [moment["MB"] for moment in moments if moment["phase"] != "open"]
    half = sum(moment["phase"] == "stalled" for moment in moments) // 2
    return max(since[half:]) - max(since[:half])


def goals(speeds: Rows, stalls: Mapping[str, Rows]) -> list[Goal]:
    """Return the goals with the measured figures."""
    [ours] = [row for row in speeds if row[""] == "shipped"]
    found = [
        Goal("readings/s of shipped / bare gRPC loop", ours["/ bare gRPC loop"], at_least=0.7),
        Goal("readings/s of shipped / client", ours["/ client"], at_least=8),
    ]
    for way, bound in OUTSTANDING.items():
        most = max(moment["outstanding"] for moment in stalls[way])
        found.append(Goal(f"{WAYS[way]}: readings outstanding", [most], at_most=bound))
        found.append(Goal(f"{WAYS[way]}: MB gained as the stall goes on", [growth(stalls[way])], at_most=GROWTH))
    return found


def speed_rows(turns: Mapping[str, Sequence[Turn]]) -> Rows:
    """Return a row for each contender."""
    rates, micros = ({name: [turn[place] for turn in found] for name, found in turns.items()} for place in (0, 1))
    rows = [{"": name, "readings/s": rates[name], "CPU us": micros[name]} for name in turns]
    return [row | {f"/ {to}": ratios(rates, row[""], to) for to in ("client", "bare gRPC loop")} for row in rows]


def slow_row(way: str, moments: Rows) -> dict[str, Any]:
    """Return a row of what is published and outstanding, and of memory, at the end of each phase."""
    last = {moment["phase"]: moment for moment in moments}
    cells = {f"{phase}: {what}": last[phase][what] for phase in PHASES for what in ("published", "outstanding", "MB")}
    return {"": WAYS[way], **cells, "MB gained as the stall goes on": growth(moments)}


def chart(speeds: Rows, stalls: Mapping[str, Rows], seconds: float) -> Figure:
    """Draw the speeds, and what is outstanding and the memory of publishers in phases of so many seconds."""
    panels = [Panel("readings per second", "", {row[""]: row["readings/s"] for row in speeds})]
    for what, log in (("outstanding", "y"), ("MB", "")):
        drawn = {WAYS[way]: {one["seconds"]: max(one[what], 1) for one in moments} for way, moments in stalls.items()}
        panels.append(Panel("seconds (service open, stalled, slow)", what, drawn, log))
    figure = draw("Publishing to a Pub/Sub server on the same machine", panels, _STYLES)
    for axes in figure.axes[1:]:
        axes.axvspan(seconds, 2 * seconds, color="grey", alpha=0.2, linewidth=0)
        axes.axvspan(2 * seconds, 3 * seconds, color="grey", alpha=0.1, linewidth=0)
    return figure


def main() -> None:
    """Measure, print, and write build/bench/publisher.json and publisher.png."""
    rounds, count, seconds = (1, 20_000, 1) if QUICK else (9, 120_000, 5)
    speeds = speed_rows(race(rounds, count))
    stalls = {way: stall(way, seconds) for way in WAYS}
    slow = [slow_row(way, found) for way, found in stalls.items()]
    tables = {"Publishing, readings/s": speeds, "A service that stalls, then responds slowly": slow}
    publish("publisher", tables, goals(speeds, stalls), chart(speeds, stalls, seconds))


if __name__ == "__main__":
    main()
