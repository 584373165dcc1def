"""The real terraform on a stand-in for Google's provider."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.terraform import stand_in

ROOT = Path(__file__).parents[3]


@dataclass
class Terraform:
    """terraform in a copy of a configuration; `root` is the root of the copied repository."""

    folder: Path
    root: Path
    env: dict[str, str]
    run: Callable[..., subprocess.CompletedProcess]

    def apply(self, **variables: str) -> None:
        """Apply the configuration; raises AssertionError with terraform's output if it fails."""
        ran = self.run("apply", "-auto-approve", *_flags(variables))
        assert ran.returncode == 0, ran.stderr

    def changes(self, **variables: str) -> dict[str, list[str]]:
        """Return the planned actions by address, without resources that do not change."""
        plan = str(self.folder / "plan")
        ran = self.run("plan", f"-out={plan}", *_flags(variables))
        assert ran.returncode == 0, ran.stderr
        shown = json.loads(self.run("show", "-json", plan).stdout)
        actions = {found["address"]: found["change"]["actions"] for found in shown.get("resource_changes", ())}
        return {address: action for address, action in actions.items() if action != ["no-op"]}

    def resources(self) -> dict[str, dict[str, Any]]:
        """The resources in the state, by address within the module."""
        root = json.loads(self.run("show", "-json").stdout)["values"]["root_module"]
        found = [*root.get("resources", ()), *(one for child in root["child_modules"] for one in child["resources"])]
        return {one["address"].removeprefix("module.sensor_stream."): one["values"] for one in found}

    def outputs(self) -> dict[str, Any]:
        """The outputs."""
        return {name: found["value"] for name, found in json.loads(self.run("output", "-json").stdout).items()}


def _flags(variables: dict[str, str]) -> Sequence[str]:
    return [f"-var={name}={value}" for name, value in variables.items()]


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which terraform uses only the stand-in, and downloads nothing."""
    with stand_in.serving(tmp_path_factory.mktemp("provider")) as env:
        yield {
            **os.environ,
            **env,
            "TF_CLI_CONFIG_FILE": os.devnull,
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }


@pytest.fixture
def example(provider: dict[str, str], tmp_path: Path) -> Callable[[str], Terraform]:
    """A function of a name that initialises a copy of the module and of that example."""
    for folder in ("deploy/terraform", "deploy/monitoring"):
        if (ROOT / folder).exists():
            shutil.copytree(
                ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*")
            )

    def prepare(name: str) -> Terraform:
        folder = tmp_path / "deploy/terraform/examples" / name

        def run(command: str, *arguments: str) -> subprocess.CompletedProcess:
            flags = () if command == "show" else ("-no-color",)
            return subprocess.run(
                ["terraform", f"-chdir={folder}", command, *flags, *arguments],
                env=provider,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )

        initialised = run("init")
        assert initialised.returncode == 0, initialised.stderr
        return Terraform(folder, tmp_path, provider, run)

    return prepare
