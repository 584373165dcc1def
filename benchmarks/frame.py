"""What all benchmarks share: contenders in turns, then tables, goals, a chart, and JSON.

pyperf and similar tools finish one contender, in processes of its own, before the next begins. They are not used,
because the machine drifts by a factor of two within minutes: a ratio is only valid for turns moments apart.

A figure is one number or, for several rounds, a list with one for each, shown as the median and the range.
"""

import gc
import json
import logging
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.console import Console
from rich.table import Table

from local.stack.processes import guard
from pipeline.errors import SensorStreamError

QUICK = os.environ.get("BENCH_QUICK") == "1"
OUT = Path("build/bench")
CONSOLE = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
RED, ORANGE, BLUE, GREY, GREEN, PURPLE = "#b0413e", "#d98e32", "#1f6f8b", "#8a8a8a", "#3a7d44", "#7a4f9a"

Rows = Sequence[Mapping[str, Any]]  # of a table: its cells by column

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class DifferentRows(SensorStreamError):
    """Two contenders yield different rows for the same messages."""


def settle() -> None:
    """Pin this process to one core, silence Beam's log, and end the process with the `make` that runs it."""
    guard()
    logging.disable(logging.WARNING)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def take_turns(contenders: Mapping[K, Callable[[], T]], rounds: int, warm_up: int = 0) -> dict[K, list[T]]:
    """Return the results of each contender's turns, one per round.

    Objects that exist before are exempt from garbage collection meanwhile.

    Args:
      contenders: a function for each.
      rounds: turns of each.
      warm_up: rounds before these, whose results are discarded.
    """
    found: dict[K, list[T]] = {name: [] for name in contenders}
    gc.collect()
    gc.freeze()
    for number in range(-warm_up, rounds):
        for name, turn in contenders.items():
            result = turn()
            if number >= 0:
                found[name].append(result)
    gc.unfreeze()
    return found


def cpu_micros(calls: Sequence[Callable[[], object]], each: float, seconds: float = 0) -> float:
    """Return the microseconds of CPU per reading.

    Args:
      calls: functions that are called in turn.
      each: readings of a call.
      seconds: CPU time after which no further call begins; at least one is made.
    """
    done = 0
    start = now = time.process_time()
    while not done or now - start < seconds:
        calls[done % len(calls)]()
        done += 1
        now = time.process_time()
    return (now - start) / (done * each) * 1e6


def ratios(rounds: Mapping[K, Sequence[float]], name: K, to: K) -> list[float]:
    """Return the ratio of a contender's figure to that of `to`, in each round."""
    return [mine / theirs for mine, theirs in zip(rounds[name], rounds[to], strict=True)]


class Goal(NamedTuple):
    """Bounds on the median of `figures`, one for each round, or a single exact number."""

    name: str
    figures: Sequence[float]
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def met(self) -> bool:
        """Whether the median is within the bounds."""
        return self.at_least <= statistics.median(self.figures) <= self.at_most

    def __str__(self) -> str:
        bound = f">= {self.at_least:g}" if self.at_most == math.inf else f"<= {self.at_most:g}"
        return f"{'met    ' if self.met else 'NOT met'}  {self.name} {bound}: {shown(list(self.figures))}"


class Panel(NamedTuple):
    """One plot of a chart: by label, figures against a number, or bars; `log` names the logarithmic axes."""

    across: str
    up: str
    lines: Mapping[str, Any]
    log: str = "x"


def publish(name: str, tables: Mapping[str, Rows], goals: Sequence[Goal] = (), chart: Figure | None = None) -> None:
    """Print tables and goals, and write them to build/bench/`name`.json, with the chart beside it."""
    for title, rows in tables.items():
        CONSOLE.print(table(title, rows))
    for goal in goals:
        CONSOLE.print(str(goal))
    OUT.mkdir(parents=True, exist_ok=True)
    on = {"python": platform.python_version(), "beam": version("apache-beam"), "machine": platform.platform()}
    found = {**on, "quick": QUICK, "tables": tables, "goals": [str(goal) for goal in goals]}
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    if chart:
        chart.savefig(path.with_suffix(".png"), dpi=150)
    CONSOLE.print(f"Written: {path}{' and .png' if chart else ''}")


def table(title: str, rows: Rows) -> Table:
    """Return a table whose first column labels the rows."""
    drawn = Table(title=title, title_justify="left")
    for number, name in enumerate(rows[0] if rows else ()):
        drawn.add_column(name, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        drawn.add_row(*map(shown, row.values()))
    return drawn


def shown(figure: Any) -> str:
    """Return a cell of a table as text."""
    if isinstance(figure, list):
        spread = f" ({shown(min(figure))}-{shown(max(figure))})" if len(figure) > 1 else ""
        return shown(statistics.median(figure)) + spread
    if isinstance(figure, float):
        return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:#.3g}"
    return f"{figure:,}" if isinstance(figure, int) else str(figure)


def lines(rows: Rows, label: str, across: str, up: str) -> dict[str, dict[float, Any]]:
    """Return the lines of a panel from three columns of a table: label, x and y."""
    found: dict[str, dict[float, Any]] = {}
    for row in rows:
        found.setdefault(str(row[label]), {})[row[across]] = row[up]
    return found


def draw_costs(title: str, measured: Sequence[Any], fields: Mapping[str, str], styles: Mapping[str, Any]) -> Figure:
    """Return a chart of the `micros` of loads, with a panel for each of their `fields`, by axis title."""
    panels = []
    for field, across in fields.items():
        found = {getattr(one.load, field): one.micros for one in measured if one.load.differs_in(field)}
        lines = {name: {at: micros[name] for at, micros in found.items()} for name in measured[0].micros}
        panels.append(Panel(across, "CPU per reading, microseconds", lines, log="xy"))
    return draw(title, panels, styles)


def draw(title: str, panels: Sequence[Panel], styles: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
    """Return a chart of medians, with their range; `styles` are matplotlib's, by label."""
    wide = len(panels) if len(panels) < 4 else 2
    high, alike = -(-len(panels) // wide), all(panel.log == "xy" for panel in panels)
    figure = Figure(figsize=(5.5 * wide, 4.5 * high), layout="constrained")
    for axes, panel in zip(figure.subplots(high, wide, squeeze=False, sharey=alike).flat, panels, strict=True):
        draw_panel(axes, panel, styles or {})
    if alike:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    figure.suptitle(title)
    return figure


def draw_panel(axes: Any, panel: Panel, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw one panel on matplotlib's axes; nothing if there are no figures."""
    drawn = {label: points for label, points in panel.lines.items() if points}
    across = sorted({at for points in drawn.values() if isinstance(points, Mapping) for at in points})
    if not across:
        draw_bars(axes, drawn, panel.across, styles)
        return
    axes.set_prop_cycle(color=(BLUE, GREEN, RED, ORANGE, PURPLE, GREY))
    for label, points in drawn.items():
        least, middle, most = np.transpose([np.quantile(figure, (0, 0.5, 1)) for figure in points.values()])
        style = {"marker": "o", "markersize": 4, "capsize": 2, **styles.get(label, {})}
        axes.errorbar(list(points), middle, (middle - least, most - middle), label=label, **style)
    axes.set(xlabel=panel.across, ylabel=panel.up, **{f"{axis}scale": "log" for axis in panel.log})
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if "x" in panel.log and len(across) <= 7:
        axes.minorticks_off()
        axes.set_xticks(across)
    if "y" not in panel.log:
        axes.set_ylim(0, axes.get_ylim()[1] * 1.2)  # room for the legend
    if panel.log != "xy":
        axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)


def draw_bars(axes: Any, bars: Mapping[str, Sequence[float]], across: str, styles: Mapping[str, Any]) -> None:
    """Draw a bar for each label, the first on top."""
    for label, figure in reversed(bars.items()):
        axes.barh(label, statistics.median(figure), color=styles.get(label, {}).get("color", BLUE))
        axes.plot(figure, [label] * len(figure), "|", color="black", alpha=0.5)
    axes.set(xlabel=across, xlim=(0, None))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
