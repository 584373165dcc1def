"""The demo's live page: `python -m dashboard` on the tables in the BigQuery emulator."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from local.stack.emulators import LOCALHOST, free_port
from local.stack.processes import running, wait_for
from local.verify.balance import Balance

PORT = 8080  # or a free one where this is in use
START_TIMEOUT = 60.0  # seconds; 2 are usual
PAUSE_FACTOR = 20  # the pause after computing a balance, as a multiple of the time that took


@dataclass
class LivePage:
    """The page at `url`; it reads the balance of readings, which BigQuery does not hold, from the file `balance`."""

    url: str
    balance: Path
    _next: float = 0.0

    def show_now_and_then(self, compute_balance: Callable[[], Balance]) -> None:
        """Show a new balance, at most once a second and in a twentieth of the time at most."""
        started = time.monotonic()
        if started >= self._next:
            self.show(compute_balance())
            self._next = time.monotonic() + max(1.0, PAUSE_FACTOR * (time.monotonic() - started))

    def show(self, balance: Balance) -> None:
        """Show this balance."""
        numbers = {name: getattr(balance, name) for name in ("published", "averaged", "dead_lettered", "duplicates")}
        # Replaced atomically, or the page might read an incomplete file.
        new = self.balance.with_suffix(".new")
        new.write_text(json.dumps(numbers, allow_nan=False), encoding="utf-8")
        new.replace(self.balance)


@contextmanager
def live_page(
    table: str, sensors: Sequence[str], statistics: str, messages: str, env: Mapping[str, str], folder: Path
) -> Iterator[LivePage]:
    """Serve the page for the length of the block.

    Args:
      table: the table of rows, project.dataset.table.
      sensors: the pipeline's sensors.
      statistics: the pipeline's statistics, separated by commas.
      messages: the table of messages, project.dataset.table.
      env: environment variables by which the page finds the emulator.
      folder: where the log and the balance are written.
    """
    port = _choose_port()
    page = LivePage(f"http://{LOCALHOST}:{port}", folder / "balance.json")
    page.show(Balance())
    command = [sys.executable, "-m", "dashboard", f"--table={table}", f"--readings={messages}", f"--port={port}"]
    command += [f"--sensors={','.join(sensors)}", f"--statistics={statistics}"]
    command += [f"--balance={page.balance}", "--refresh=1s"]
    with running("The live page", command, folder / "dashboard.log", env) as child:
        wait_for(child, lambda: _listens(port), START_TIMEOUT)
        yield page


def keep_serving(page: LivePage, check: Callable[[], None]) -> None:
    """Keep serving until Ctrl-C if this runs at a terminal; return at once in CI and behind a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    with suppress(KeyboardInterrupt):
        print(f"The page is served at {page.url} until Ctrl-C.", flush=True)
        while True:
            check()
            time.sleep(0.5)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0


def _choose_port() -> int:
    try:
        return free_port(PORT)
    except OSError:
        return free_port()
