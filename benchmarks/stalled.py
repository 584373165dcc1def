"""A publisher that sends more than its service accepts, observed from within: `python -m benchmarks.stalled WAY TOPIC`.

WAY is `client`, Google's client for single messages with its defaults, or how many readings the shipped publisher packs
into a message. It runs until it is stopped, and prints one JSON object every quarter of a second: seconds since the
first, messages or readings published and outstanding, and memory in megabytes. It imports only what it needs, because
its memory is measured.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.cloud import pubsub_v1

from publisher.messages import encode
from publisher.publish import Publishing
from publisher.sensors import CURVES, Reading, readings


def backlog(count: int | None) -> Iterator[Reading]:
    """Yield so many readings of the past, endless if None; nothing waits for the clock."""
    return readings(list(CURVES), devices=1, rate=1000, start_ms=1_700_000_000_000, total=count, seed=1)


class _Client(Publishing):
    """A program that calls publish() for every message."""

    def run(self, readings: Iterable[Reading]) -> None:
        client = pubsub_v1.PublisherClient()
        for reading in readings:
            message = encode(reading, "bench")
            self.accepted += 1
            client.publish(self.topic, message.data, **message.attributes).add_done_callback(self._count)

    def _count(self, _: Any) -> None:
        self.published += 1


def memory() -> float:
    """Return the resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(way: str, topic: str) -> None:
    """Publish without end, and print a line every quarter of a second."""
    run = _Client(topic) if way == "client" else Publishing(topic, pack=int(way))
    threading.Thread(target=run.run, args=(backlog(None),), daemon=True).start()
    while not run.published:
        time.sleep(0.01)
    start = time.monotonic()
    while True:
        published, accepted = run.published, run.accepted
        moment = {"seconds": time.monotonic() - start, "published": published, "outstanding": accepted - published}
        print(json.dumps(moment | {"MB": memory()}, allow_nan=False), flush=True)
        time.sleep(0.25)


if __name__ == "__main__":
    main(*sys.argv[1:])
