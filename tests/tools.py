"""Programs that some tests need. If one is missing, its tests are left out, and the run ends with a table of them.

A test needs a tool if it uses one of the tool's fixtures, or has a parameter marked `needs(name)`.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


@dataclass(frozen=True)
class Tool:
    """A program that tests need, the fixtures that use it, and the command that installs it, by package manager."""

    name: str
    fixtures: frozenset[str]
    found: Callable[[], bool]
    install: Mapping[str, str]

    def command(self) -> str:
        """Return the command that installs it with this machine's package manager, or the page that says how."""
        return next((how for manager, how in self.install.items() if shutil.which(manager)), self.install[""])


def browser() -> str | None:
    """Return the path of a Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, (*BROWSERS, BROWSER_ON_MACOS))), None)


def _pubsub_emulator() -> bool:
    """Return whether gcloud's Pub/Sub emulator can be started, or PUBSUB_EMULATOR_HOST names a running one."""
    if os.environ.get("PUBSUB_EMULATOR_HOST"):
        return True
    gcloud = shutil.which("gcloud")
    if not gcloud or not shutil.which("java"):
        return False
    return (Path(gcloud).resolve().parents[1] / "platform/pubsub-emulator").exists()


_GOOGLE_REPOSITORY = "  # https://cloud.google.com/sdk/docs/install#deb"
TOOLS = (
    Tool(
        "gcloud",
        frozenset({"gcloud_env"}),
        lambda: bool(shutil.which("gcloud")),
        {
            "apt-get": f"apt-get install google-cloud-cli{_GOOGLE_REPOSITORY}",
            "brew": "brew install --cask gcloud-cli",
            "": "https://cloud.google.com/sdk/docs/install",
        },
    ),
    Tool(
        "Pub/Sub emulator",
        frozenset({"pubsub_emulator"}),
        _pubsub_emulator,
        {
            "apt-get": f"apt-get install google-cloud-cli-pubsub-emulator default-jre-headless{_GOOGLE_REPOSITORY}",
            "brew": "brew install openjdk && gcloud components install beta pubsub-emulator",
            "": "https://cloud.google.com/pubsub/docs/emulator",
        },
    ),
    Tool(
        "Terraform",
        frozenset({"provider"}),
        lambda: bool(shutil.which("terraform")),
        {
            "apt-get": "apt-get install terraform  # https://developer.hashicorp.com/terraform/install#linux",
            "brew": "brew install hashicorp/tap/terraform",
            "": "https://developer.hashicorp.com/terraform/install",
        },
    ),
    Tool(
        "Chromium",
        frozenset({"browser"}),
        lambda: bool(browser()),
        {
            "apt-get": "apt-get install chromium",
            "brew": "brew install --cask google-chrome",
            "": "https://www.chromium.org/getting-involved/download-chromium/",
        },
    ),
)


def leave_out_what_is_missing(config: pytest.Config) -> None:
    """Leave out the tests whose tools this machine lacks; with CI=true raise UsageError instead, before any test."""
    config.addinivalue_line("markers", "needs(tool): left out where this tool of tests/tools.py is missing")
    missing = [tool for tool in TOOLS if not tool.found()]
    if missing and os.environ.get("CI") == "true":
        lines = [f"{tool.name}: {tool.command()}" for tool in missing]
        raise pytest.UsageError("With CI=true no test is left out, but these tools are missing.", *lines)
    config.pluginmanager.register(LeftOut(missing))


class LeftOut:
    """Pytest plugin that leaves out the tests of missing tools, and lists them at the end of the run."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._missing = {tool.name: tool for tool in tools}
        self._counts: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the tests that need a missing tool; each counts for the first tool that it lacks."""
        lacking = {item: [tool for tool in self._missing.values() if _needs(item, tool)] for item in items}
        config.hook.pytest_deselected(items=[item for item, tools in lacking.items() if tools])
        items[:] = [item for item, tools in lacking.items() if not tools]
        self._counts = Counter(tools[0].name for tools in lacking.values() if tools)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a worker of pytest-xdist, pass the counts to the process that reports."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = dict(self._counts)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the counts of a worker of pytest-xdist; every worker collects all tests, so all counts are equal."""
        self._counts |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
        """Print last how many tests of which tool were left out, and the command that installs it."""
        yield
        if self._counts:
            terminalreporter.section("left out because a tool is missing")
            for name, tool in self._missing.items():
                if count := self._counts[name]:
                    terminalreporter.line(f"{count:5} tests  {name:17}  {tool.command()}")


def _needs(item: pytest.Item, tool: Tool) -> bool:
    marked = {name for mark in item.iter_markers("needs") for name in mark.args}
    return tool.name in marked or not tool.fixtures.isdisjoint(getattr(item, "fixturenames", ()))
