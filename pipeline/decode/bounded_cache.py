"""A bounded cache of values that are expensive to compute and often needed."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """Cache of values that are expensive to compute; emptied when it has `full` entries.

    Args:
      compute: returns the value of a key; its exceptions are raised, and not cached.
      full: the number of entries.
    """

    def __init__(self, compute: Callable[[K], V], full: int):
        super().__init__()
        self.full = full
        self._compute = compute

    def __missing__(self, key: K) -> V:
        value = self._compute(key)
        if len(self) >= self.full:
            self.clear()
        self[key] = value
        return value
