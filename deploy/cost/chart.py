"""A chart of the bill against packing, interval and devices."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from deploy.cost.bill import Usage, bill

PACKED = (1, 3, 10, 30, 100)
INTERVALS = {"1s": 1, "5s": 5, "15s": 15, "1m": 60, "5m": 300, "1h": 3600}
DEVICES = (1, 10, 100, 1_000, 10_000)
_COLOURS = ("#1f6f8b", "#8a8a8a", "#3a7d44", "#d98e32", "#b0413e")


def draw(usage: Usage, file: Path) -> None:
    """Draw the bill of `usage`, varying packing, interval and devices in turn, to a file such as bill.png."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    _stack(panels[0], "readings per message", PACKED, [replace(usage, packed=packed) for packed in PACKED])
    _stack(panels[1], "interval", INTERVALS, [replace(usage, interval=seconds) for seconds in INTERVALS.values()])
    _stack(panels[2], "devices with their own rows", DEVICES, [replace(usage, devices=count) for count in DEVICES])
    panels[0].set_ylabel("$ a month, list prices")
    panels[0].legend(fontsize="small")
    figure.suptitle(
        f"{usage.rate:,.0f} readings/s, {usage.packed} a message, {usage.devices:,} devices, {usage.interval:g} s"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def _stack(panel: Any, label: str, values: Iterable[object], usages: Sequence[Usage]) -> None:
    bills = [bill(usage) for usage in usages]
    ticks = range(len(bills))
    below = [0.0] * len(bills)
    for colour, parts in zip(_COLOURS, zip(*bills, strict=True), strict=True):
        dollars = [part.dollars for part in parts]
        panel.bar(ticks, dollars, bottom=below, color=colour, label=parts[0].name)
        below = [low + high for low, high in zip(below, dollars, strict=True)]
    panel.set(xlabel=label, xticks=ticks)
    panel.set_xticklabels([f"{value:,}" if isinstance(value, int) else value for value in values])
    panel.grid(axis="y", alpha=0.3)
