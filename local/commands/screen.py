"""The output of the demo and the soak: progress while they run, then a summary and the problems."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local.verify.reconcile import Row

ROWS_ON_SCREEN = 12
STATUS_INTERVAL = 10.0  # seconds between status lines without a terminal
MAX_PROBLEMS = 50


@dataclass
class Progress:
    """The state of a run.

    Rows are in order of time. `delays` has the seconds from the end of an interval until its row was first read, by the
    interval's start.
    """

    sensors: Sequence[str]
    total_seconds: float
    started: float = field(default_factory=time.monotonic)
    published: int = 0
    rows: Sequence[Row] = ()
    delays: dict[datetime, float] = field(default_factory=dict)
    dead_letters: int = 0
    silent: Sequence[str] = ()  # devices

    @property
    def status(self) -> str:
        """The status line."""
        elapsed = time.monotonic() - self.started
        clock = f"{elapsed:.0f} of {self.total_seconds:.0f} s"
        if elapsed > self.total_seconds:
            clock = f"{self.total_seconds:.0f} s published, waiting for the last rows"
        counts = f"published {self.published}   rows {len(self.rows)}   dead letters {self.dead_letters}"
        silent = f"   silent: {', '.join(self.silent)}" if self.silent else ""
        return f"{clock}   {counts}{silent}"


@contextmanager
def screen(console: Console, progress: Progress) -> Iterator[Callable[[], None]]:
    """Show `progress` for the length of the block, as a live table in a terminal and as lines elsewhere.

    Yields the function to call whenever it has changed.
    """
    if not console.is_terminal:
        yield _Lines(console, progress).show
        return
    with Live(console=console, get_renderable=lambda: _live(progress), refresh_per_second=4) as live:
        yield live.refresh


def _live(progress: Progress) -> Group:
    table = Table("Interval (UTC)", *progress.sensors, "Row after", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in progress.rows[-ROWS_ON_SCREEN:]:
        table.add_row(*_cells(row, progress))
    return Group(Text(progress.status, style="bold cyan"), table)


def _cells(row: Row, progress: Progress) -> list[str]:
    values = (_value(row, name) for name in progress.sensors)
    return [f"{row.start:%H:%M:%S}", *values, f"{progress.delays[row.start]:.1f} s"]


def _value(row: Row, name: str) -> str:
    mean = row.means[name]
    if mean is None:
        return "-"
    least, greatest = row.ranges.get(name, (None, None))
    return f"{mean:.3f}" if least is None else f"{mean:.2f} {least:.2f}..{greatest:.2f}"


class _Lines:
    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._shown: set[datetime] = set()
        self._next_line = 0.0

    def show(self) -> None:
        for row in self._progress.rows:
            if row.start not in self._shown:
                self._shown.add(row.start)
                time_of_day, *values, delay = _cells(row, self._progress)
                named = "  ".join(f"{n} {v}" for n, v in zip(self._progress.sensors, values, strict=True))
                self._console.print(f"{time_of_day}  {named}  (after {delay})")
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + STATUS_INTERVAL
            self._console.print(self._progress.status)


def summary(title: str, lines: Mapping[str, str]) -> Table:
    """Return a table with a name and a figure in each line."""
    table = Table(box=None, show_header=False, title=title, title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    for name, figure in lines.items():
        table.add_row(name, figure)
    return table


def show_problems(console: Console, problems: Sequence[str]) -> None:
    """Print a line for each problem, at most MAX_PROBLEMS."""
    for problem in problems[:MAX_PROBLEMS]:
        console.print(f"WRONG  {problem}", style="red", markup=False)
