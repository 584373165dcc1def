"""The progress of a run: a bar on a terminal, elsewhere a line every few seconds."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from publisher.publish import Publishing

BAR_SECONDS = 0.25
LINE_SECONDS = 5.0


@contextmanager
def progress(run: Publishing, total: int | None) -> Iterator[None]:
    """Show the progress of `run` on stdout for the length of the block; `total` is None for an endless run."""
    done = threading.Event()
    show = _bar if sys.stdout.isatty() else _lines
    thread = threading.Thread(target=show, args=(run, total, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _bar(run: Publishing, total: int | None, done: threading.Event) -> None:
    columns = (
        TextColumn("Publishing"),
        BarColumn(),
        TextColumn("{task.completed:.0f} published"),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=total, rate=0.0)
        while not done.wait(BAR_SECONDS):
            # Rich's estimate is the mean of the last 30 seconds.
            bar.update(task, completed=run.published, rate=bar.tasks[task].speed or 0.0)


def _lines(run: Publishing, total: int | None, done: threading.Event) -> None:
    of_total = "" if total is None else f" of {total}"
    before = 0
    while not done.wait(LINE_SECONDS):
        now = run.published
        failed = f", {run.failed} failed: {run.last_error}" if run.failed else ""
        print(
            f"{now}{of_total} readings published, {(now - before) / LINE_SECONDS:.1f}/s, {run.seconds:.0f} s{failed}",
            flush=True,
        )
        before = now
