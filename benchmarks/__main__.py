"""Run with `make bench`. BENCH_QUICK=1 takes two minutes: enough to see that it works, not to believe the numbers."""

import json
import logging
import os
from pathlib import Path

from rich.console import Console

from benchmarks import cost, folding, hopping, parts
from benchmarks.load import Load
from benchmarks.measure import measure
from benchmarks.report import as_json, chart, goals, table

_LOADS = (
    Load(bundle=10),
    Load(bundle=100),
    Load(),
    Load(bundle=10_000),
    Load(packed=10),
    Load(packed=100),
    Load(devices=10),
    Load(devices=1000),
    Load(size=1000),
)
_OUT = Path("build/bench")


def main() -> None:
    """Measure every load, print, and write build/bench/bench.json and bench.png."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    rounds, seconds = (1, 0.1) if quick else (7, 1.0)
    logging.disable(logging.WARNING)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    console = Console(width=None if os.isatty(1) else 200)
    measured = []
    for load in _LOADS:
        console.print(f"[dim]{load}", highlight=False)
        measured.append(measure(load, rounds, seconds))
    alone = folding.measure(rounds=3 if quick else 50)
    made_of = parts.measure(rounds=3 if quick else 200)
    overlapping = hopping.measure(rounds=3 if quick else 100)
    console.print(table(measured))
    console.print(parts.table(made_of))
    console.print(folding.table(alone))
    console.print(hopping.table(overlapping))
    console.print(cost.table(measured))
    for goal in [*goals(measured), *hopping.goals(overlapping)]:
        console.print(str(goal), highlight=False)
    _OUT.mkdir(parents=True, exist_ok=True)
    found = as_json(measured, rounds, seconds) | {"parts_micros": made_of, "fold_alone_micros_by_packing": alone}
    (_OUT / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    chart(measured, _OUT / "bench.png")
    console.print(f"Written: {_OUT}/bench.json, {_OUT}/bench.png", highlight=False)


if __name__ == "__main__":
    main()
