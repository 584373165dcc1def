"""What held, how long it took, and about what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from deploy.cost import prices
from deploy.cost.bill import WORKER_HOUR

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
    """Return US dollars at the list prices of us-central1, for the build and as many workers as there may be."""
    took = {result.step: result.seconds for result in results}
    hours = sum(took.get(step, 0.0) for step in RUNNING) / 3600
    return took.get(BUILDING, 0.0) / 60 * prices.BUILD.dollars + hours * WORKERS * WORKER_HOUR


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table."""
    table = Table("", "step", "took", "found", box=None, header_style="bold")
    for result in results:
        minutes, seconds = divmod(round(result.seconds), 60)
        mark = "held" if result.held else "[red]FAILED[/red]"
        table.add_row(mark, result.step, f"{minutes}:{seconds:02}", result.found.rpartition("\n")[2])
    console.print(table)
    console.print(
        f"Estimated cost: {cost(results):.2f} USD: the build and {WORKERS} workers at the prices of "
        "deploy/cost/prices.py; storage, messages and logs are not in it"
    )
