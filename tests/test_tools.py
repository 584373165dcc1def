"""Tests whose tool is missing are left out and listed; with CI=true the run fails instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools

ROOT = Path(__file__).parents[1]
CONFTEST = """
import pytest
from tests import tools

def pytest_configure(config):
    tools.leave_out_what_is_missing(config)

@pytest.fixture
def gcloud_env():
    raise AssertionError("gcloud is missing")

@pytest.fixture
def through_another_fixture(gcloud_env):
    pass

@pytest.fixture(params=["ours", pytest.param("official", marks=pytest.mark.needs("Pub/Sub emulator"))])
def server(request):
    return request.param
"""
TESTS = """
def test_without_a_tool(): pass
def test_on_each_server(server): assert server == "ours"
def test_with_gcloud(gcloud_env): pass
def test_with_gcloud_in_the_end(through_another_fixture): pass
"""


def run(tmp_path: Path, *flags: str, **env: str) -> subprocess.CompletedProcess:
    """Run TESTS on a machine that has apt-get and none of the tools."""
    (tmp_path / "apt-get").touch(mode=0o755)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "PUBSUB_EMULATOR_HOST")}
    plugins = ["-p", "no:cacheprovider", "-p", "no:bqemulator", "-p", "no:playwright"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *flags],
        cwd=tmp_path,
        env={**clean, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("flags", [[], ["--numprocesses=2"]], ids=["one process", "two workers"])
def test_missing_tools_leave_out_their_tests_and_are_listed_with_the_install_command(flags, tmp_path):
    ran = run(tmp_path, *flags)

    assert ran.returncode == 0, ran.stdout
    *_, title, gcloud, emulator, closing = filter(None, ran.stdout.splitlines())
    assert "left out" in title
    assert gcloud.split()[:4] == ["2", "tests", "gcloud", "apt-get"]
    assert emulator.split()[:5] == ["1", "tests", "Pub/Sub", "emulator", "apt-get"]
    assert "2 passed" in closing


def test_missing_tools_fail_the_run_before_any_test_in_ci(tmp_path):
    ran = run(tmp_path, CI="true")

    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "passed" not in ran.stdout
    assert "Terraform: apt-get install terraform" in ran.stderr


def test_tool_command_is_a_page_without_a_known_package_manager(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all(tool.command().startswith("https://") for tool in tools.TOOLS)


def test_tool_fixtures_exist():
    conftests = "".join(conftest.read_text() for conftest in (ROOT / "tests").rglob("conftest.py"))
    for fixture in frozenset().union(*(tool.fixtures for tool in tools.TOOLS)):
        assert f"def {fixture}(" in conftests
