"""`make mutants`: the tests it knows of, and the changed lines of a small repository."""

import subprocess
from pathlib import Path

import pytest

from tests import mutants

MODULE, TEST = "pipeline/shop.py", "tests/pipeline/test_shop.py"
BEFORE = "def total(prices):\n    return sum(prices) * 2\n"
AFTER = BEFORE + "\n\ndef is_free(price):\n    return not price\n\n\ndef is_due(paid):\n    return not paid\n"


def test_modules_and_tests_of_the_table_exist():
    files = {file.split("::")[0] for tests in mutants.TESTS.values() for file in tests if ".py" in file}
    expected = [*mutants.TESTS, *(f"tests/pipeline/{file}" for file in files)]
    assert [path for path in expected if not (mutants.ROOT / path).exists()] == []


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository whose second commit adds two functions that its test does not call, with one mutant each."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "BUILD", tmp_path / "build")
    monkeypatch.setattr(mutants, "COPY", tmp_path / "build/copy")
    monkeypatch.setattr(mutants, "TESTS", {MODULE: ("test_shop.py",)})
    test = "from pipeline.shop import total\n\n\ndef test_total():\n    assert total([1, 2]) == 6\n"
    git(tmp_path, "init", "--quiet", "--initial-branch=master")
    for module in (BEFORE, AFTER):
        files = {"pipeline/__init__.py": "", MODULE: module, "pipeline/other.py": module, TEST: test}
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        git(tmp_path, "add", "pipeline", "tests")
        git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=x")
    return tmp_path


def git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=repository, check=True)


def test_since_tries_a_sample_of_the_changed_lines_and_prints_what_survived(repository, capfd):
    assert mutants.main(["--since=HEAD~1", "--sample=1"]) == 1
    out = capfd.readouterr().out
    assert out.startswith("pipeline/other.py: changed, but no tests are named for it\n")
    assert out.count("\n-    return not ") == 1
    assert out.endswith("pipeline/shop.py: 0 of 1 mutants noticed of 2\n")


def test_since_leaves_out_what_has_changed_on_the_other_branch_alone(repository, capfd):
    git(repository, "checkout", "--quiet", "-b", "change", "HEAD~1")
    assert mutants.main(["--since=master"]) == 0
    assert capfd.readouterr().out.startswith("no module has changed since ")


def test_since_an_unknown_commit_is_an_error_of_one_line(repository, capfd):
    with pytest.raises(SystemExit, match="2"):
        mutants.main(["--since=nothing"])
    assert capfd.readouterr().err.splitlines()[-1].startswith("make mutants: error: --since=nothing: fatal: ")
