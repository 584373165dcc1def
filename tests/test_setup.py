"""Everything that a user or a build installs is in a lock, and a failed setup says why."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
LOCKS = [name for name in TRACKED if name.endswith(".txt")]

# The project's own package, whose dependencies are in the lock.
_OURS = re.compile(r"--no-deps --no-build-isolation( --editable)? (\.|/src|build/wheel/\*\.whl)(\s|$)")


def _installs(text: str) -> list[str]:
    """Return each command that installs packages, on one line, with make's variables filled in."""
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    for name, value in re.findall(r"^(\w+) := (.*)$", text, re.MULTILINE):
        text = text.replace(f"$({name})", value)
    commands = re.split(r"\n|&&|;|\|\|", text)
    return [command for command in commands if re.search(r"\b(pip|uv)\b.* (install|sync)\b", command)]


@pytest.mark.parametrize("file", ["Makefile", *(name for name in TRACKED if name.endswith("Dockerfile"))])
def test_installs_take_a_complete_lock_with_hashes(file):
    installs = _installs((ROOT / file).read_text())

    assert installs
    for command in installs:
        if not _OURS.search(command):
            assert "--require-hashes" in command, command
            # ${image#*:} is a lock too, in the loop over name:lock of `make sbom`.
            assert re.search(r"\.txt\b|\$\{image#\*:\}", command), command
            assert "--no-deps" in command or "uv pip sync" in command, command
            # Otherwise a package without a wheel would be built with the newest setuptools.
            assert re.search("--no-build-isolation|--only-binary=:all:|--build-constraints=", command), command


def test_installs_are_followed_by_pip_check():
    for file in ["Makefile", *(name for name in TRACKED if name.endswith("Dockerfile"))]:
        text = (ROOT / file).read_text()
        assert text.rindex("pip check") > text.rindex("--require-hashes"), file


def test_installs_are_only_in_the_makefile_and_dockerfiles():
    places = [*(name for name in TRACKED if name.endswith((".yaml", ".sh", "Makefile", "Dockerfile"))), ".ci/run"]
    installing = {place for place in places if _installs((ROOT / place).read_text())}

    assert installing == {"Makefile", *(name for name in TRACKED if name.endswith("Dockerfile"))}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_all_requirements_of_their_packages(lock):
    # uv writes extras to no lock, but follows them: a package missing here would be in the answer.
    command = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "compile",
        "--universal",
        "--python-version=3.11",
        "--no-header",
        lock,
    ]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert len(_pins((ROOT / lock).read_text())) > 1
    assert _pins(answer) == _pins((ROOT / lock).read_text())


def _pins(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+==[^ \n]+)", text, re.MULTILINE))


def _setup(tmp_path: Path, **scripts: str) -> str:
    """Return the errors of `make demo` without a .venv, where python3 and other programs are these scripts."""
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    command = ["make", "demo", f"VENV={tmp_path}/venv"]
    path = f"{tmp_path}:/usr/bin:/bin"
    ran = subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    return ran.stderr


def test_setup_names_the_unsupported_python_and_a_supported_one(tmp_path):
    old = '[ "$1" = -V ] && echo Python 3.9.18 || exit 1'
    none = dict.fromkeys(("python3.11", "python3.12", "python3.13", "python3.14"), "exit 1")

    assert "python3 is Python 3.9.18" in _setup(tmp_path, python3=old, **none)
    assert "Install one " in _setup(tmp_path, python3=old, **none)
    assert "make demo PYTHON=python3.12" in _setup(tmp_path, python3=old, **{**none, "python3.12": "exit 0"})


def test_setup_names_the_failed_step_and_its_reason(tmp_path):
    answer = 'case "$*" in -V) echo Python 3.13.1 ;; "-m venv"*) echo "No space left on device" >&2; exit 1 ;; esac'
    errors = _setup(tmp_path, python3=answer)

    assert "No space left on device" in errors
    assert "failed: no environment created" in errors
    assert len(errors.splitlines()) < 24
