"""Writes deploy/monitoring/alerts, deploy/monitoring/log_metrics and deploy/monitoring/dashboard.json."""

import json
from pathlib import Path
from typing import Any

from deploy.monitoring.alerts import ALERTS, LOG_METRICS
from deploy.monitoring.dashboard import dashboard

FOLDER = Path(__file__).parent


def files() -> dict[str, dict[str, Any]]:
    """Return the content of each file, by its path below deploy/monitoring."""
    return {
        "dashboard.json": dashboard(),
        **{f"alerts/{alert.name}.json": alert.policy() for alert in ALERTS},
        **{f"log_metrics/{name}.json": metric for name, metric in LOG_METRICS.items()},
    }


def text(content: dict[str, Any]) -> str:
    """Return the text of a file with this content."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def main() -> None:
    """Write every file, and remove those of alerts and metrics that no longer exist."""
    for old in FOLDER.glob("*/*.json"):
        old.unlink()
    for path, content in files().items():
        (FOLDER / path).parent.mkdir(exist_ok=True)
        (FOLDER / path).write_text(text(content))


if __name__ == "__main__":
    main()
