"""Run with `make bench-peers`. BENCH_QUICK=1 takes about a minute: enough to see that it works, not to believe it."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.load import Load
from benchmarks.peers.measure import Measured, measure
from benchmarks.peers.process import NotInstalled, Process, install
from benchmarks.report import BLUE, CONSOLE, GREEN, ORANGE, OUT, PURPLE, RED, Panel, draw, publish
from benchmarks.rounds import QUICK, ratios, settle

PEERS = ("bytewax", "pathway", "quix")
LOADS = (Load(), Load(packed=10), Load(packed=100), Load(devices=10), Load(devices=1000))
# Readings are a millisecond apart: six whole intervals, or two in the shorter turns, so that all end in as many rows.
ROUNDS, READINGS = (1, 30_000) if QUICK else (7, 90_000)
# The worker is what Dataflow bills, but ends at the first shuffle; the local runner makes rows, as peers do.
OURS = ("shipped worker", "shipped local")

_COLOURS = {"shipped": BLUE, "bytewax": ORANGE, "pathway": PURPLE, "quix": RED, "loop": GREEN}
_LINES = {"local": "--", "demo": ":", "idiomatic": "--"}


def main() -> int:
    """Install, measure every load, print, and write build/bench/peers.json and peers.png; 1 if a peer is missing."""
    settle()
    OUT.mkdir(parents=True, exist_ok=True)
    pythons, engines = {"beam": Path(sys.executable)}, {}
    for name in PEERS:
        try:
            pythons[name] = install(name)
        except NotInstalled as error:
            engines[name] = f"NOT COMPARED, cannot be installed here: {error}"
            CONSOLE.print(f"{name}: {engines[name]}", style="bold red")
    processes = [Process(f"on_{name}", python, OUT / f"peers-{name}.log") for name, python in pythons.items()]
    measured = []
    for load in LOADS:
        CONSOLE.print(f"[dim]{load}")
        measured.append(measure(processes, load, READINGS, ROUNDS))
    for process in processes:
        process.close()
        engines[process.module.removeprefix("on_")] = process.version
    publish("peers", tables(measured, engines), chart=chart(measured))
    return int(len(pythons) <= len(PEERS))


def tables(measured: Sequence[Measured], engines: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return the cost of each form under each load, and as a multiple of each of `OURS`; and what was compared."""
    forms = list(measured[0].micros)
    starts = {form: statistics.median(ms for one in measured for ms in one.start[form]) for form in forms}
    return {
        "CPU per reading, microseconds: median (range)": [
            {"": form, **{_name(one.load): one.micros[form] for one in measured}, "start, ms": starts[form]}
            for form in forms
        ],
        **{
            f"CPU, as a multiple of {ours}: median (range); below 1 is ahead of us": [
                {"": form, **{_name(one.load): ratios(one.micros, form, ours) for one in measured}}
                for form in forms
                if form != ours
            ]
            for ours in OURS
        },
        "Outcome, the same of all": [
            {"": _name(one.load), "rows": len(one.outcome.rows), "refused": one.outcome.refused} for one in measured
        ],
        "Engines": [{"": name, "version": version} for name, version in engines.items()],
    }


def _name(load: Load) -> str:
    return f"{load.devices:,} devices" if load.by_device else f"{load.packed} per message"


def chart(measured: Sequence[Measured]) -> Figure:
    """Draw the cost per reading against packing and against devices."""
    forms, panels = list(measured[0].micros), []
    for field, across in (
        ("packed", "readings per message (one device)"),
        ("devices", "devices, each with its own rows"),
    ):
        found = {getattr(one.load, field): one.micros for one in measured if one.load.differs_in(field)}
        lines = {form: {at: micros[form] for at, micros in found.items()} for form in forms}
        panels.append(Panel(across, "CPU per reading, microseconds", lines, log="xy"))
    styles = {}
    for form in forms:
        engine, _, way = form.partition(" ")
        styles[form] = {"color": _COLOURS[engine], "linestyle": _LINES.get(way, "-")}
    return draw("From message bytes to rows (shipped worker and loop: to sums)", panels, styles)


if __name__ == "__main__":
    sys.exit(main())
