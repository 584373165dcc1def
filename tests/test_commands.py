"""The gcloud commands in the pages exist, with flags that they take."""

import re
import runpy
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.template.fake_google import ROOT, serving
from tests.test_readme import PAGES


@pytest.fixture(scope="module")
def tree(gcloud_env) -> dict[str, Any]:
    """gcloud's own list of its commands and flags, which it uses for completion."""
    asked = ["gcloud", "info", "--format=value(installation.sdk_root)"]
    root = subprocess.run(asked, env=gcloud_env, capture_output=True, text=True, check=True).stdout.strip()
    return runpy.run_path(str(Path(root) / "data/cli/gcloud_completions.py"))["STATIC_COMPLETION_CLI_TREE"]


def commands(page: str) -> list[str]:
    """Return the gcloud commands of its blocks and of code in its text, each on one line."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines() + re.findall(r"`(gcloud (?:[a-z-]+ ){2}[^`]+)`", page)
    return [match[1] for line in lines for match in re.finditer(r"\b(gcloud [^|;#]*)", line)]


def unknown(command: str, tree: dict[str, Any]) -> str | None:
    """Return the part of a command that gcloud does not have, or None."""
    words = re.sub(r"'[^']*'|\"[^\"]*\"", "X", command).split()[1:]
    node, flags = tree, dict(tree["flags"])
    while words and words[0] in node["commands"]:
        node = node["commands"][words.pop(0)]
        flags |= node["flags"]
    if node["commands"]:
        return f"no such command: {command}"
    given = {re.match(r"--[a-z-]+", word)[0] for word in words if re.match("--[a-z]", word)}
    wrong = {flag for flag in given if flag not in flags and flag.replace("--no-", "--", 1) not in flags}
    return f"{', '.join(sorted(wrong))}: {command}" if wrong else None


def test_unknown_names_the_fault_of_a_command(tree):
    assert unknown("gcloud dataflow jobs drian 1", tree) == "no such command: gcloud dataflow jobs drian 1"
    assert (
        unknown("gcloud dataflow jobs drain 1 --regoin=x", tree) == "--regoin: gcloud dataflow jobs drain 1 --regoin=x"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_use_existing_commands_and_flags_of_gcloud(page, tree):
    assert [fault for command in commands(page.read_text()) if (fault := unknown(command, tree))] == []


def test_pages_have_more_than_50_commands():
    assert sum(len(commands(page.read_text())) for page in PAGES) > 50


@dataclass
class Recorder:
    """A service that accepts and records every request."""

    sent: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Record a request, and return its body."""
        self.sent.append((method, path.rpartition("/")[2], body))
        return 200, body


def test_operate_page_requests_workers_and_snapshots(gcloud_env):
    page = (ROOT / "docs/operate.md").read_text()
    blocks = [
        block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "--min-num" in block or "ttl" in block
    ]
    dataflow = Recorder()
    with serving(dataflow) as address:
        env = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": address, "JOB_ID": "job-1", "SNAPSHOT_ID": "snapshot-1"}
        command = ["bash", "-euc", "".join(blocks)]
        subprocess.run(command, env=gcloud_env | env | {"REGION": "europe-west1"}, check=True, capture_output=True)
    assert dataflow.sent == [
        ("PUT", "job-1", {"runtimeUpdatableParams": {"minNumWorkers": 1, "maxNumWorkers": 6}}),
        ("POST", "job-1:snapshot", {"location": "europe-west1", "snapshotSources": True, "ttl": "604800s"}),
        ("GET", "snapshots", {}),
        ("GET", "snapshot-1", {}),
    ]
