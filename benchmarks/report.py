"""Measurements as a table, as goals met or not, as JSON and as a chart."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apache_beam
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.axes import cost_axes
from benchmarks.contenders import NAMES
from benchmarks.load import Load
from benchmarks.measure import Measured
from benchmarks.ratios import Goal, spread

UNPACKED, PACKED = Load(), Load(packed=100)

_COLOURS = dict(zip(NAMES, ("#b0413e", "#d98e32", "#1f6f8b", "#8a8a8a", "#3a7d44"), strict=True))


def goals(measured: Iterable[Measured]) -> list[Goal]:
    """Return the goals for the loads that were measured."""
    found = []
    for one in measured:
        if one.load == UNPACKED:
            found += [
                Goal("unpacked: CPU of seed / shipped", one.ratios("seed", "shipped"), at_least=8),
                Goal("unpacked: CPU of shipped / floor", one.ratios("shipped", "floor"), at_most=1.35),
                Goal("unpacked: shuffled records of seed / shipped", [one.records_ratio()], at_least=300),
            ]
        elif one.load == PACKED:
            found += [
                Goal("packed by 100: CPU of seed / shipped", one.ratios("seed", "shipped"), at_least=40),
                Goal("packed by 100: CPU of loop / shipped", one.ratios("loop", "shipped"), at_least=0.5),
                Goal("packed by 100: shuffled records of seed / shipped", [one.records_ratio()], at_least=300),
            ]
    return found


def table(measured: Iterable[Measured]) -> Table:
    """Return microseconds per reading, and ratios with their range."""
    made = Table(title="CPU per reading, microseconds (median)", title_justify="left")
    made.add_column("messages x readings", no_wrap=True)
    for name in (*NAMES, "seed / shipped", "shipped / floor", "loop / shipped", "records"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in measured:
        ratios = [one.ratios(*pair) for pair in (("seed", "shipped"), ("shipped", "floor"), ("loop", "shipped"))]
        made.add_row(
            str(one.load),
            *(f"{one.median(name):.2f}" for name in NAMES),
            *(spread(found) for found in ratios),
            f"{one.results['seed'].shuffled}:{one.results['shipped'].shuffled}",
        )
    return made


def as_json(measured: Iterable[Measured], rounds: int, seconds: float) -> dict[str, Any]:
    """Return everything that was measured, and on what."""
    measured = list(measured)
    return {
        "python": platform.python_version(),
        "beam": apache_beam.__version__,
        "machine": platform.platform(),
        "rounds": rounds,
        "seconds_per_turn": seconds,
        "loads": [
            {
                **asdict(one.load),
                "readings": one.readings,
                "rows": len(one.results["shipped"].rows or ()),
                "refused": one.results["shipped"].bad,
                "contenders": {
                    name: {
                        "cpu_micros_per_reading": one.micros[name],
                        "of_which_after_the_shuffle": one.after[name],
                        "shuffled_records": one.results[name].shuffled,
                        "shuffled_bytes": one.results[name].shuffled_bytes,
                    }
                    for name in NAMES
                },
            }
            for one in measured
        ],
        "goals": [goal.as_json() for goal in goals(measured)],
    }


def chart(measured: Sequence[Measured], path: Path) -> None:
    """Draw the cost per reading against bundle size and against packing, both on logarithmic axes."""
    by_bundle = [one for one in measured if one.load == Load(bundle=one.load.bundle)]
    by_packing = [one for one in measured if one.load == Load(packed=one.load.packed)]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, by_bundle, "bundle", "messages per bundle (one reading each)")
    _draw(right, by_packing, "packed", "readings per message (bundles of 1,000 messages)")
    left.set_ylabel("CPU per reading, microseconds")
    right.legend(frameon=False)
    figure.suptitle("From message bytes to means, on Beam's own worker")
    figure.savefig(path, dpi=150)


def _draw(axes: Any, measured: Sequence[Measured], field: str, label: str) -> None:
    across = [getattr(one.load, field) for one in measured]
    for name in NAMES:
        width = 2.5 if name == "shipped" else 1.3
        medians = [one.median(name) for one in measured]
        axes.plot(across, medians, marker="o", color=_COLOURS[name], linewidth=width, label=name)
        axes.fill_between(
            across,
            [min(one.micros[name]) for one in measured],
            [max(one.micros[name]) for one in measured],
            color=_COLOURS[name],
            alpha=0.15,
            linewidth=0,
        )
    cost_axes(axes, across, label)
