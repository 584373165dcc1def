"""Run with `make bench-peers`. BENCH_QUICK=1 takes a minute: enough to see that it works, too short for figures."""

import gc
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import frame
from benchmarks.contenders import compare
from benchmarks.load import Load, messages, past
from benchmarks.peers.engine import Form

ENGINES = {"on_beam": "apache-beam", "on_bytewax": "bytewax", "on_pathway": "pathway", "on_quix": "quixstreams"}
LOADS = (Load(), Load(packed=10), Load(packed=100), Load(devices=10), Load(devices=1000))
# Readings are a millisecond apart: six full intervals, or two in the shorter turns, so that all yield as many rows.
ROUNDS, READINGS = (1, 30_000) if frame.QUICK else (7, 90_000)
LONG = 0.8  # seconds of CPU; forms that took longer when they were checked have turns of a third of the messages
# The worker is what Dataflow bills, but ends at the first shuffle; the local runner yields rows, as peers do.
WORKER, LOCAL = "shipped worker", "shipped local"

_COLOURS = {"bytewax": frame.ORANGE, "pathway": frame.PURPLE, "quix": frame.RED, "loop": frame.GREEN}
_LINES = {"local": "--", "demo": ":", "idiomatic": "--"}


class Measured(NamedTuple):
    """One load, all forms."""

    load: Load
    micros: Mapping[str, list[float]]  # CPU per reading without the start of the engine, by form, for each round
    start: Mapping[str, list[float]]  # milliseconds of CPU for the first message alone


def main() -> int:
    """Measure every load, print, and write build/bench/peers.json and peers.png; 1 if a peer is missing."""
    frame.settle()
    forms: dict[str, Form] = {}
    versions = {}
    for module, package in ENGINES.items():
        try:
            forms |= import_module(f"benchmarks.peers.{module}").FORMS
            versions[package] = version(package)
        except ImportError as error:
            versions[package] = f"NOT COMPARED, there is no package for this Python: {error}"
    measured = [measure(forms, load, READINGS, ROUNDS) for load in LOADS]
    frame.publish("peers", {**tables(measured), "Engines": [versions]}, chart=chart(measured))
    return int("NOT COMPARED" in str(versions))


def measure(forms: Mapping[str, Form], load: Load, readings: int, rounds: int) -> Measured:
    """Compare all forms under one load, with so many readings at most.

    Raises:
      DifferentRows: two forms yield different rows; nothing is timed then.
    """
    frame.CONSOLE.print(f"[dim]{load}")
    sent = list(messages(load, readings // load.packed, past()))
    outcomes, counts, turns = {}, {}, {}
    for name, form in forms.items():
        outcome, cpu = _run(form, load, form.prepare(load, sent))
        outcomes[name] = outcome()
        counts[name] = len(sent) if cpu < LONG else len(sent) // 3
        turns[name] = partial(_turn, form, load, [form.prepare(load, sent[:count]) for count in (1, counts[name])])
    compare(load, outcomes, LOCAL)
    found = frame.take_turns(turns, rounds)
    micros = {name: per_reading(of_form, (counts[name] - 1) * load.packed) for name, of_form in found.items()}
    return Measured(load, micros, {name: [first * 1e3 for first, _ in of_form] for name, of_form in found.items()})


def _run(form: Form, load: Load, prepared: Any) -> tuple[Any, float]:
    gc.collect()
    before = time.process_time()
    return form.run(load, prepared), time.process_time() - before


def _turn(form: Form, load: Load, prepared: Sequence[Any]) -> list[float]:
    return [_run(form, load, one)[1] for one in prepared]


def per_reading(turns: Sequence[Sequence[float]], readings: int) -> list[float]:
    """Return the microseconds per reading of turns, each the CPU seconds of the first message alone, and of all."""
    start = statistics.median(first for first, _ in turns)
    return [(seconds - start) / readings * 1e6 for _, seconds in turns]


def tables(measured: Sequence[Measured]) -> dict[str, list[dict[str, Any]]]:
    """Return the cost of each form under each load, and its ratio to that of our worker."""
    costs, times = [], []
    for form in measured[0].micros:
        start = statistics.median(ms for one in measured for ms in one.start[form])
        costs.append({"": form, **{_name(one.load): one.micros[form] for one in measured}, "start, ms": start})
        times.append({"": form, **{_name(one.load): frame.ratios(one.micros, form, WORKER) for one in measured}})
    return {
        "CPU per reading, microseconds: median (range)": costs,
        f"CPU / {WORKER}: below 1 is faster than ours": times,
    }


def _name(load: Load) -> str:
    return f"{load.devices:,} devices" if load.by_device else f"{load.packed} per message"


def chart(measured: Sequence[Measured]) -> Figure:
    """Draw the cost per reading against packing and against devices."""
    styles = {}
    for form in measured[0].micros:
        engine, _, way = form.partition(" ")
        styles[form] = {"color": _COLOURS.get(engine, frame.BLUE), "linestyle": _LINES.get(way, "-")}
    fields = {"packed": "readings per message", "devices": "devices, each with its own rows"}
    title = "From message bytes to rows (shipped worker and loop: to sums)"
    return frame.draw_costs(title, measured, fields, styles)


if __name__ == "__main__":
    sys.exit(main())
