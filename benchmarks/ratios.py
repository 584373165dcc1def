"""Ratios of paired rounds: how they are shown, and held against a goal."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound on a ratio; `ratios` are of the rounds, sorted, or a single exact number."""

    name: str
    ratios: list[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """The ratio that is held against the bound."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        """Whether the median keeps within the bound."""
        if self.at_least is not None:
            return self.median >= self.at_least
        return self.at_most is None or self.median <= self.at_most

    def as_json(self) -> dict[str, Any]:
        """Return the bound, the ratios, and whether it was met."""
        return {**asdict(self), "median": self.median, "met": self.met}

    def __str__(self) -> str:
        bound = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        spread = f" ({self.ratios[0]:.2f} to {self.ratios[-1]:.2f})" if len(self.ratios) > 1 else ""
        return f"{'met    ' if self.met else 'NOT met'}  {self.name} {bound}: {self.median:.2f}{spread}"


def spread(values: Sequence[float]) -> str:
    """Return the median of sorted values and, if there are several, their range."""
    median = f"{statistics.median(values):.2f}"
    return f"{median} ({values[0]:.2f}-{values[-1]:.2f})" if len(values) > 1 else median
