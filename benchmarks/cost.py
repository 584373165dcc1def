"""What a job costs, by calculation from what `benchmarks.measure` found.

CPU is that of the worker's Python alone. Dataflow's own part of a worker, Streaming Engine and Pub/Sub are not in it;
`python -m cost` has their prices.
"""

from collections.abc import Iterable

from rich.table import Table

from benchmarks.load import INTERVAL
from benchmarks.measure import Measured
from cost import cpu

RATES = (1_000, 100_000, 1_000_000)  # readings per second


def table(measured: Iterable[Measured]) -> Table:
    """Return CPU seconds and shuffled megabytes per million readings, cores at each of RATES, and rows per hour."""
    made = Table(title="What the shipped graph costs", title_justify="left")
    made.add_column("messages x readings", no_wrap=True)
    for heading in (
        "CPU s per million",
        "MB shuffled per million",
        *(f"cores at {rate:,}/s" for rate in RATES),
        "rows/h",
    ):
        made.add_column(heading, justify="right")
    for one in measured:
        micros = one.median("shipped")
        shuffled = one.results["shipped"].shuffled_bytes / one.readings  # bytes per reading, so megabytes per million
        cores = (f"{busy:.2g}" if busy < 10 else f"{busy:.0f}" for busy in (cpu.cores(micros, rate) for rate in RATES))
        rows = cpu.rows_per_hour(one.load.devices, INTERVAL)
        made.add_row(str(one.load), f"{micros:.1f}", f"{shuffled:.2f}", *cores, f"{rows:,.0f}")
    return made
