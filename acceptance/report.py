"""What held, how long it took, and about what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

# US dollars, list prices in the cheapest regions; others cost up to half as much again.
# A worker of the service's own choice has 2 vCPUs and up to 8 GB: https://cloud.google.com/dataflow/pricing
WORKER_HOUR = 2 * 0.069 + 8 * 0.003557
# https://cloud.google.com/build/pricing
BUILD_MINUTE = 0.006
WORKERS = 2  # what the job is launched with at most
BUILDING, RUNNING = "build", ("launch", "every row compared", "metrics", "redrive", "update", "drain")


@dataclass(frozen=True)
class Result:
    """A step: what it is called, whether it held, how long it took in seconds, and what was found."""

    step: str
    held: bool
    seconds: float
    found: str


def cost(results: Sequence[Result]) -> float:
    """Return US dollars, at most, for build and workers; what a run stores and sends is some cents."""
    took = {result.step: result.seconds for result in results}
    hours = sum(took.get(step, 0.0) for step in RUNNING) / 3600
    return took.get(BUILDING, 0.0) / 60 * BUILD_MINUTE + hours * WORKERS * WORKER_HOUR


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table."""
    table = Table("", "step", "took", "found", box=None, header_style="bold")
    for result in results:
        minutes, seconds = divmod(round(result.seconds), 60)
        mark = "held" if result.held else "[red]FAILED[/red]"
        table.add_row(mark, result.step, f"{minutes}:{seconds:02}", result.found.rpartition("\n")[2])
    console.print(table)
    console.print(
        f"Estimated cost: at most {cost(results):.2f} USD for the build and two workers; see acceptance/report.py"
    )
