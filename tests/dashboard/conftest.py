"""The page as a process, on tables in the BigQuery emulator, in a real browser."""

import base64
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from google.cloud import bigquery
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.stack import emulators
from local.stack.processes import running, wait_for
from pipeline.launch.tables import DEAD_LETTER_COLUMNS
from tests import tools

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
TIMEOUT_SECONDS = 30.0
expect.set_options(timeout=TIMEOUT_SECONDS * 1000)

Rows = Sequence[Mapping[str, Any]]


@dataclass
class Warehouse:
    """A dataset of one test in the BigQuery emulator at `host` (http://host:port)."""

    host: str
    project: str
    dataset: str
    bq: bigquery.Client

    def flag(self, table: str = "readings") -> str:
        return f"--table={self.project}:{self.dataset}.{table}"

    def create(self, columns: str, rows: Rows = (), table: str = "readings") -> None:
        """Create a table of columns written `name:TYPE,...` or with a description, `name:TYPE:text`, and fill it."""
        parts = [column.split(":") for column in columns.split(",")]
        schema = [bigquery.SchemaField(name, kind, description="".join(more) or None) for name, kind, *more in parts]
        self.bq.create_table(bigquery.Table(f"{self.project}.{self.dataset}.{table}", schema))
        self.insert(rows, table)

    def insert(self, rows: Rows, table: str = "readings") -> None:
        written = [{name: _written(value) for name, value in row.items()} for row in rows]
        for start in range(0, len(written), 2500):
            part = written[start : start + 2500]
            assert not self.bq.insert_rows_json(f"{self.project}.{self.dataset}.{table}", part)

    def create_dead_letters(self, dead_letters: Sequence[tuple[str, str, datetime]] = ()) -> None:
        """Create the pipeline's dead-letter table, with a dead letter for each (stage, error, received_at)."""
        name = "readings_dead_letters"
        self.bq.create_table(bigquery.Table(f"{self.project}.{self.dataset}.{name}", DEAD_LETTER_COLUMNS))
        named = [dict(zip(("stage", "error", "received_at"), one, strict=True)) for one in dead_letters]
        self.insert([{"dead_letter_id": uuid.uuid4().hex, "part": 1, "parts": 1, **one} for one in named], name)

    def rows(self, table: str = "readings") -> list[dict[str, Any]]:
        """Return all rows, newest first."""
        found = emulators.all_rows(self.bq, f"{self.project}.{self.dataset}.{table}")
        return sorted((dict(row) for row in found), key=lambda row: row["Timestamp"], reverse=True)


def _written(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


@pytest.fixture
def dataset() -> str:
    """Return the dataset's name; each test has a new dataset of that name."""
    return "page_sensors"


@pytest.fixture
def warehouse(bigquery_emulator: str, project: str, dataset: str) -> Iterator[Warehouse]:
    bq = emulators.bigquery_client(bigquery_emulator.removeprefix("http://"), project)
    bq.create_dataset(dataset)
    yield Warehouse(bigquery_emulator, project, dataset, bq)
    bq.delete_dataset(dataset, delete_contents=True)


@dataclass
class Server:
    """The page as a process."""

    url: str
    port: int
    log: Path
    pid: int

    def memory(self) -> int:
        """Return the resident memory in MB."""
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.pid)])) // 1024


@contextmanager
def running_page(host: str, *flags: str, log: Path, address: str = "127.0.0.1") -> Iterator[Server]:
    """Run `python -m dashboard` on the emulator at `host`, listening on `address`."""
    port = emulators.free_port()
    # With this variable NiceGUI behaves as in a test.
    command = [
        "env",
        "-u",
        "PYTEST_CURRENT_TEST",
        sys.executable,
        "-m",
        "dashboard",
        f"--port={port}",
        f"--host={address}",
        "--refresh=1s",
    ]
    name = f"[{address}]" if ":" in address else address
    with running("The page", [*command, *flags], log, {"BIGQUERY_EMULATOR_HOST": host}) as child:
        wait_for(child, lambda: emulators._answers(f"{name}:{port}", "/"), TIMEOUT_SECONDS)
        # `env` replaced itself with the page.
        yield Server(f"http://{name}:{port}/", port, log, child.process.pid)
    assert "Traceback" not in log.read_text()


@contextmanager
def serving(host: str, *flags: str, log: Path) -> Iterator[str]:
    """Run the page like `running_page`; yields its URL."""
    with running_page(host, *flags, log=log) as server:
        yield server.url


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tools.browser(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a URL in a new window; the window must not send requests to other hosts."""
    asked: list[str] = []
    errors: list[str] = []
    contexts = []

    def visit(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        contexts.append((context, url))
        context.set_default_timeout(TIMEOUT_SECONDS * 1000)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url.replace("ws://", "http://")))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield visit
    for context, _ in contexts:
        context.close()
    assert not errors
    assert len(asked) > 10
    assert [one for one in asked if not one.startswith((*(url for _, url in contexts), "data:"))] == []


@pytest.fixture(scope="package")
def shared_page(bigquery_emulator: str, project: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("page") / "page.log"
    with serving(bigquery_emulator, f"--table={project}:page_sensors.readings", log=log) as url:
        yield url


@pytest.fixture
def serve(warehouse: Warehouse, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that starts a page on the warehouse's table for one test, and returns its URL."""
    with ExitStack() as stack:
        yield lambda *flags: stack.enter_context(
            serving(warehouse.host, warehouse.flag(), *flags, log=tmp_path / "page.log")
        )


def drawn(page: Page) -> dict[str, list[dict[str, Any]]]:
    """Return the series of every chart by sensor, once the browser has drawn those of the newest refresh."""
    page.wait_for_function(
        "() => document.querySelector('[data-refresh]')?.dataset.refresh === document.documentElement.dataset.drawn"
    )
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.nicegui-echart')].map(element => [
            element.getAttribute('aria-label').replace(' over time', ''),
            getElement(+element.id.slice(1)).chart.getOption().series]))"""
    )


def lines(page: Page) -> dict[str, list[list[list[float]]]]:
    """Return the rows in each chart as [milliseconds, value], a list for each line, without the ends of intervals."""
    return {
        sensor: [
            [point for point in series["data"] if isinstance(point, list) and point[1] is not None]
            for series in every
            if series["type"] == "line" and series["name"] != "span"
        ]
        for sensor, every in drawn(page).items()
    }


def table(page: Page, name: str = "rows") -> list[list[str]]:
    """Return the text of a table's cells."""
    return page.locator(f".{name} tbody tr:has(td)").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.textContent.trim()))"
    )
