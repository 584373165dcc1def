"""The live page (`dashboard/`) of the demo: a process of its own that asks the BigQuery emulator, like any other."""

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

PORT = 8080  # or a free one, if somebody else has it
START_TIMEOUT = 60.0  # seconds; 2 are usual
SHARE = 20  # counting may take one part in so many of the demo's time


@dataclass
class LivePage:
    """The page at `url`; `balance` is the file that tells it what BigQuery does not know."""

    url: str
    balance: Path
    _next: float = 0.0

    def show_now_and_then(self, count: Callable[[], Balance]) -> None:
        """Have the page show what `count` finds, unless it did so just now."""
        started = time.monotonic()
        if started >= self._next:
            self.show(count())
            self._next = time.monotonic() + max(1.0, SHARE * (time.monotonic() - started))

    def show(self, balance: Balance) -> None:
        """Have the page show this balance."""
        numbers = {name: getattr(balance, name) for name in ("published", "averaged", "dead_lettered", "duplicates")}
        # Replaced as a whole, or the page might read half of it.
        new = self.balance.with_suffix(".new")
        new.write_text(json.dumps(numbers, allow_nan=False), encoding="utf-8")
        new.replace(self.balance)


@contextmanager
def live_page(
    table: str, sensors: Sequence[str], statistics: str, messages: str, env: Mapping[str, str], folder: Path
) -> Iterator[LivePage]:
    """Serve the page of the tables P.D.T for the length of the block.

    `sensors` and `statistics` are those of the job. Log and balance are in `folder`.
    """
    port = _free_port()
    page = LivePage(f"http://{LOCALHOST}:{port}", folder / "balance.json")
    page.show(Balance())
    command = [sys.executable, "-m", "dashboard", f"--table={table}", f"--readings={messages}", f"--port={port}"]
    command += [f"--sensors={','.join(sensors)}", f"--statistics={statistics}"]
    command += [f"--balance={page.balance}", "--refresh=1s"]
    with running("The live page", command, folder / "dashboard.log", env) as child:
        wait_for(child, lambda: _answers(port), START_TIMEOUT)
        yield page


def stay(page: LivePage, check: Callable[[], None]) -> None:
    """Keep serving until Ctrl-C if a person is at the terminal; nobody waits in CI or behind a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    with suppress(KeyboardInterrupt):
        print(f"The page stays at {page.url} until Ctrl-C.", flush=True)
        while True:
            check()
            time.sleep(0.5)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0


def _free_port() -> int:
    try:
        return free_port(PORT)
    except OSError:
        return free_port()
