"""Each peer's packages, in a virtual environment of its own under build/peers."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.process import ROOT
from benchmarks.report import CONSOLE


class NotInstalled(RuntimeError):
    """A peer that this Python or machine has no package for; the text says what pip said."""


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
