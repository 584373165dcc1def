"""Run with `make bench-peers`. BENCH_QUICK=1 takes about a minute: enough to see that it works, not to believe it."""

import json
import logging
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.load import Load
from benchmarks.peers.install import ROOT, NotInstalled, install
from benchmarks.peers.measure import measure
from benchmarks.peers.process import Process
from benchmarks.peers.report import as_json, chart, sentences, tables

_PEERS = ("bytewax", "pathway", "quix")
_LOADS = (Load(), Load(packed=10), Load(packed=100), Load(devices=10), Load(devices=1000))
# Readings are a millisecond apart: six whole intervals, or two in the shorter turns, so that all end in as many rows.
_ROUNDS, _READINGS = 7, 90_000
_OUT = ROOT / "build/bench"


def main() -> int:
    """Install, measure every load, print, and write build/bench/peers.json and peers.png; 1 if a peer is missing."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    rounds, readings = (1, _READINGS // 3) if quick else (_ROUNDS, _READINGS)
    logging.disable(logging.WARNING)
    console = Console(width=None if os.isatty(1) else 200)
    _OUT.mkdir(parents=True, exist_ok=True)
    pythons, missing = {"beam": Path(sys.executable)}, {}
    for name in _PEERS:
        try:
            pythons[name] = install(name, console)
        except NotInstalled as error:
            missing[name] = str(error)
            console.print(f"[bold red]NOT COMPARED: {name} cannot be installed here.[/] {error}", highlight=False)

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    processes = [Process(f"on_{name}", python, _OUT / f"peers-{name}.log") for name, python in pythons.items()]
    turns = len(_LOADS) * (rounds + 1) * sum(len(process.forms) for process in processes)
    measured = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=turns)
        for load in _LOADS:
            progress.update(task, description=str(load))
            progress.console.print(f"[dim]{load}", highlight=False)
            measured.append(measure(processes, load, readings, rounds, lambda: progress.advance(task)))
    for process in processes:
        process.close()

    versions = {process.module.removeprefix("on_"): process.version for process in processes}
    for table in tables(measured):
        console.print(table)
    for sentence in sentences(measured, missing):
        console.print(sentence, highlight=False)
    (_OUT / "peers.json").write_text(json.dumps(as_json(measured, versions, missing, rounds), indent=1) + "\n")
    chart(measured, _OUT / "peers.png")
    console.print(f"Written: {_OUT.relative_to(ROOT)}/peers.json, peers.png", highlight=False)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
