"""A bounded cache of values that are expensive to create and often needed."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """What `make` makes of a key, made once; emptied when `full`, so that it stays small however long a worker lives.

    What `make` raises is raised, and not remembered.
    """

    def __init__(self, make: Callable[[K], V], full: int):
        super().__init__()
        self.full = full
        self._make = make

    def __missing__(self, key: K) -> V:
        value = self._make(key)
        if len(self) >= self.full:
            self.clear()
        self[key] = value
        return value
