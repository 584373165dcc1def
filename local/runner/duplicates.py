"""Which messages are there for the first time, as the Dataflow service tells for a job that runs there."""

import logging
from collections import deque
from collections.abc import Iterable

from pipeline.source import REMEMBERED

MOST = 6_000_000  # ids: ten minutes of 10,000 a second. They take about 0.9 GB if each is a UUID.


class Seen:
    """The ids seen in the last ten minutes, but only the newest MOST of them.

    Where there are more, the oldest are forgotten early, and a warning in the log says so, once.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._ids: set[str] = set()
        self._batches: deque[tuple[int, list[str]]] = deque()  # when, and the ids first seen then
        self._warned = False

    def first_times(self, now: int, ids: Iterable[str]) -> list[bool]:
        """Return for each id whether it is there for the first time. `now` is in microseconds, and never goes back."""
        while self._batches and self._batches[0][0] <= now - REMEMBERED * 1_000_000:
            self._forget_oldest()
        known, new, first = self._ids, [], []
        for one in ids:
            first.append(one not in known)
            if first[-1]:
                known.add(one)
                new.append(one)
        if new:
            self._batches.append((now, new))
        while len(known) > self._most and len(self._batches) > 1:
            self._warn(now - self._batches[0][0])
            self._forget_oldest()
        return first

    def _forget_oldest(self) -> None:
        self._ids.difference_update(self._batches.popleft()[1])

    def _warn(self, age: int) -> None:
        if not self._warned:
            self._warned = True
            text = "More than %d ids in ten minutes: for now, duplicates are removed for %d s only"
            logging.warning(text, self._most, age // 1_000_000)
