"""Goldens: what a release must not change without saying so. They are rewritten with ACCEPT_GRAPH=1."""

import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ACCEPT = "ACCEPT_GRAPH=1 .venv/bin/python -m pytest tests/contract"


def golden(name: str, now: dict[str, Any]) -> dict[str, Any]:
    """Return golden_NAME.json; with ACCEPT_GRAPH in the environment, write `now` to it first."""
    path = HERE / f"golden_{name}.json"
    if os.environ.get("ACCEPT_GRAPH"):
        path.write_text(json.dumps(now, indent=1) + "\n")
    return json.loads(path.read_text())
