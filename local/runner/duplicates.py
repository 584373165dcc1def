"""Recognizes messages with an id that was seen before, which the Dataflow service does for its jobs."""

import logging
from collections import deque
from collections.abc import Iterable

from pipeline.source import REMEMBERED

MAX_IDS = 6_000_000  # ten minutes of 10,000 ids a second; about 0.9 GB if each is a UUID


class SeenIds:
    """The ids of the last ten minutes, at most the newest MAX_IDS.

    If there are more, the oldest are deleted early, and a warning is logged once.
    """

    def __init__(self, max_ids: int = MAX_IDS) -> None:
        self._max_ids = max_ids
        self._ids: set[str] = set()
        self._batches: deque[tuple[int, list[str]]] = deque()  # the time, and the ids first seen then
        self._warned = False

    def are_new(self, now: int, ids: Iterable[str]) -> list[bool]:
        """Return for each id whether it is new. `now` is in microseconds, and must not decrease."""
        while self._batches and self._batches[0][0] <= now - REMEMBERED * 1_000_000:
            self._delete_oldest()
        known, new, is_new = self._ids, [], []
        for one in ids:
            is_new.append(one not in known)
            if is_new[-1]:
                known.add(one)
                new.append(one)
        if new:
            self._batches.append((now, new))
        while len(known) > self._max_ids and len(self._batches) > 1:
            self._warn(now - self._batches[0][0])
            self._delete_oldest()
        return is_new

    def _delete_oldest(self) -> None:
        self._ids.difference_update(self._batches.popleft()[1])

    def _warn(self, age: int) -> None:
        if not self._warned:
            self._warned = True
            text = "More than %d ids in ten minutes: for now, duplicates are removed for %d s only"
            logging.warning(text, self._max_ids, age // 1_000_000)
