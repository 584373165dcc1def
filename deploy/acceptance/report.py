"""The report: which steps passed, how long they took, and the estimated cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from deploy.cost import prices
from deploy.cost.bill import WORKER_HOUR

WORKERS = 2  # the maximum number of workers of the job
BUILDING, RUNNING = "build", ("launch", "every row compared", "metrics", "redrive", "update", "drain")


@dataclass(frozen=True)
class Result:
    """The result of a step: its name, whether it passed, its duration in seconds, and what it found."""

    step: str
    passed: bool
    seconds: float
    found: str


def cost(results: Sequence[Result]) -> float:
    """Return US dollars at the list prices of us-central1, for the build and the maximum number of workers."""
    took = {result.step: result.seconds for result in results}
    hours = sum(took.get(step, 0.0) for step in RUNNING) / 3600
    return took.get(BUILDING, 0.0) / 60 * prices.BUILD.dollars + hours * WORKERS * WORKER_HOUR


def show(results: Sequence[Result], console: Console) -> None:
    """Print the report."""
    table = Table("", "step", "took", "found", box=None, header_style="bold")
    for result in results:
        minutes, seconds = divmod(round(result.seconds), 60)
        mark = "passed" if result.passed else "[red]FAILED[/red]"
        table.add_row(mark, result.step, f"{minutes}:{seconds:02}", result.found.rpartition("\n")[2])
    console.print(table)
    console.print(
        f"Estimated cost: {cost(results):.2f} USD: the build and {WORKERS} workers at the prices of "
        "deploy/cost/prices.py, without storage, messages and logs"
    )
