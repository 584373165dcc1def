"""Engines in processes of their own, each with its own packages in an environment under build/peers."""

import hashlib
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers import engine
from benchmarks.report import CONSOLE

ROOT = Path(__file__).parents[2]


class NotInstalled(RuntimeError):
    """A peer that this Python or machine has no package for; the text says what pip said."""


class Process:
    """One engine, on this process's cores; its methods are those of `engine.Host`.

    Args:
      module: the engine's module in this package.
      python: of its environment.
      log: where it writes what it has to say.
    """

    def __init__(self, module: str, python: Path | str, log: Path):
        context = multiprocessing.get_context("spawn")
        context.set_executable(str(python))
        self.module = module
        self._pool = ProcessPoolExecutor(1, context)
        self.forms, self.version = self._pool.submit(engine.begin, module, log).result()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the host there."""
        return self._pool.submit(engine.ask, method, *arguments).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def install(name: str) -> Path:
    """Return the Python of a peer's environment, made from `<name>.txt` unless that was done before.

    Raises:
      NotInstalled: it cannot be made.
    """
    requirements = Path(__file__).with_name(f"{name}.txt")
    venv = ROOT / "build/peers" / name
    python, ready = venv / "bin/python", venv / ".ready"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not ready.exists() or ready.read_text() != wanted:
        CONSOLE.print(f"Installing {name} into {venv.relative_to(ROOT)} (once)")
        shutil.rmtree(venv, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(venv))
        flags = ("--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps", "--require-hashes")
        _run(str(python), "-m", "pip", "install", *flags, "-r", str(requirements))
        _run(str(python), "-m", "pip", "check")
        ready.write_text(wanted)
    return python


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "ERROR" in line]
        said = said or [(error.stderr or error.stdout).strip()]
        raise NotInstalled(f"Python {sys.version.split()[0]}: {said[-1]}") from None
