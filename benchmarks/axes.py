"""The axes that charts of cost share."""

from collections.abc import Sequence
from typing import Any


def cost_axes(axes: Any, across: Sequence[int], label: str) -> None:
    """Make both axes logarithmic: microseconds per reading against the values `across`, named by `label`."""
    axes.set(xscale="log", yscale="log", xlabel=label, xticks=across)
    axes.set_xticklabels([f"{value:,}" for value in across])
    axes.minorticks_off()
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.grid(alpha=0.3)
