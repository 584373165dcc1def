"""Measurements as tables, in plain sentences, as JSON and as a chart."""

import platform
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.axes import cost_axes
from benchmarks.load import Load
from benchmarks.peers.measure import Measured
from benchmarks.ratios import spread

# The worker is what Dataflow bills, but ends at the first shuffle; the local runner makes rows, as peers do.
OURS = ("shipped worker", "shipped local")

_COLOURS = {"shipped": "#1f6f8b", "bytewax": "#d98e32", "pathway": "#7a4f9a", "quix": "#b0413e", "loop": "#3a7d44"}
_STYLES = {"worker": "-", "local": "--", "demo": ":", "tuned": "-", "idiomatic": "--"}

_WHY = {
    "bytewax": (
        "Bytewax hands Python the whole batch its source gave (flat_map_batch), so tuned it costs about what the loop "
        "does. Beam's worker calls Python once per message, and encodes a record per bundle, interval and device. "
        "Packed messages spread that thin; what remains then is our decoding, which takes whatever sensors are "
        "configured, while the tuned peers share one with the four sensors written out. As it is taught, Bytewax makes "
        "several Python calls per reading in fold_window, and keeps a clock and windows for each device."
    ),
    "pathway": (
        "Pathway in batches does as Bytewax does, and leaves few rows to its Rust engine. As it is taught, a message "
        "is a row with a key of its own, and crosses between Rust and Python on its way in and in the UDF."
    ),
    "quix": (
        "Quix Streams calls Python once per message, in a context of its own, and reads and writes the window's state "
        "as JSON each time, through a cache before RocksDB; only packing saves it that, and then it is fast. For this "
        "it keeps its state on disk; the others keep theirs in memory here."
    ),
}
_NOT_COMPARED = (
    "Not compared: transport (all messages come from memory; Quix without Kafka), recovery and persistence (off, but "
    "for RocksDB in Quix), more than one worker, latency. Peers end with rows; `shipped worker` ends at the first "
    "shuffle, which Dataflow does elsewhere. `shipped local` and `shipped demo` make rows, from one bundle. "
    "The start of an engine is not in the microseconds, but in its own column."
)


def tables(measured: Sequence[Measured]) -> Iterator[Table]:
    """Yield the cost of each form under each load, and its ratio to each of `OURS`, with ranges."""
    forms = list(measured[0].seconds)
    cost = _table("CPU per reading, microseconds: median (range)", measured)
    cost.add_column("start, ms", justify="right", no_wrap=True)
    for form in forms:
        start = statistics.median(value for one in measured for value in one.start[form])
        cost.add_row(form, *(spread(sorted(one.micros(form))) for one in measured), f"{start * 1000:.0f}")
    yield cost
    for ours in OURS:
        ratio = _table(f"CPU, as a multiple of {ours}: median (range); below 1 is ahead of us", measured)
        for form in forms:
            if form != ours:
                ratio.add_row(form, *(spread(one.ratios(form, ours)) for one in measured))
        yield ratio


def _table(title: str, measured: Sequence[Measured]) -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("", no_wrap=True)
    for one in measured:
        made.add_column(_name(one.load), justify="right", no_wrap=True)
    return made


def _name(load: Load) -> str:
    return f"{load.devices:,} devices" if load.by_device else f"{load.packed} per message"


def sentences(measured: Sequence[Measured], missing: dict[str, str]) -> Iterator[str]:
    """Yield who is ahead of us and who is behind, and why; ahead or behind is who was so in every round."""
    for ours in OURS:
        yield f"\nBeside {ours}:"
        for one in measured:
            ahead, level, behind = [], [], []
            for form in (form for form in one.seconds if form.split()[0] in _WHY):
                ratios = one.ratios(form, ours)
                median = statistics.median(ratios)
                if ratios[-1] < 1:
                    ahead.append(f"{form} ({1 / median:.1f} times less)")
                elif ratios[0] > 1:
                    behind.append(f"{form} ({median:.1f} times as much)")
                else:
                    level.append(form)
            parts = (("ahead of us", ahead), ("level", level), ("behind", behind))
            yield f"  {_name(one.load)}: " + "; ".join(f"{what}: {', '.join(who)}" for what, who in parts if who) + "."
    yield ""
    for name, why in _WHY.items():
        yield f"{name}: NOT COMPARED, cannot be installed here: {missing[name]}" if name in missing else why
    yield _NOT_COMPARED


def as_json(
    measured: Iterable[Measured], versions: dict[str, str], missing: dict[str, str], rounds: int
) -> dict[str, Any]:
    """Return everything that was measured, and on what."""
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": versions,
        "missing": missing,
        "rounds": rounds,
        "loads": [
            {
                "packed": one.load.packed,
                "devices": one.load.devices,
                "readings": one.readings,
                "rows": one.rows,
                "refused": one.refused,
                "forms": {
                    form: {
                        "readings_per_turn": one.turns[form],
                        "cpu_micros_per_reading": one.micros(form),
                        "start_cpu_seconds": one.start[form],
                        **{f"multiple of {ours}": one.ratios(form, ours) for ours in OURS},
                    }
                    for form in one.seconds
                },
            }
            for one in measured
        ],
    }


def chart(measured: Sequence[Measured], path: Path) -> None:
    """Draw the cost per reading against packing and against devices, on logarithmic axes."""
    by_packing = [one for one in measured if one.load == Load(packed=one.load.packed)]
    by_devices = [one for one in measured if one.load == Load(devices=one.load.devices)]
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, by_packing, "packed", "readings per message (one device)")
    _draw(right, by_devices, "devices", "devices, each with its own rows (one reading per message)")
    left.set_ylabel("CPU per reading, microseconds")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")
    figure.suptitle("From message bytes to rows (shipped worker and loop: to sums)")
    figure.savefig(path, dpi=150)


def _draw(axes: Any, measured: Sequence[Measured], field: str, label: str) -> None:
    across = [getattr(one.load, field) for one in measured]
    for form in measured[0].seconds:
        engine, _, way = form.partition(" ")
        ranges = [sorted(one.micros(form)) for one in measured]
        medians = [statistics.median(found) for found in ranges]
        style = _STYLES.get(way, "-")
        axes.plot(across, medians, style, marker="o", markersize=4, color=_COLOURS[engine], linewidth=1.6, label=form)
        lows, highs = [found[0] for found in ranges], [found[-1] for found in ranges]
        axes.fill_between(across, lows, highs, color=_COLOURS[engine], alpha=0.12, linewidth=0)
    cost_axes(axes, across, label)
