"""Writes deploy/monitoring/alerts, deploy/monitoring/log_metrics and deploy/monitoring/dashboard.json."""

import json
from pathlib import Path
from typing import Any

from deploy.monitoring.alerts import ALERTS, LOG_METRICS
from deploy.monitoring.dashboard import dashboard

HOUSE = Path(__file__).parent


def files() -> dict[str, dict[str, Any]]:
    """Return what each file must hold, by its path from here."""
    return {
        "dashboard.json": dashboard(),
        **{f"alerts/{alert.name}.json": alert.policy() for alert in ALERTS},
        **{f"log_metrics/{name}.json": metric for name, metric in LOG_METRICS.items()},
    }


def text(content: dict[str, Any]) -> str:
    """Return the content as its file holds it."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def main() -> None:
    """Write every file, and remove those of alerts and metrics that are no more."""
    for old in HOUSE.glob("*/*.json"):
        old.unlink()
    for path, content in files().items():
        (HOUSE / path).parent.mkdir(exist_ok=True)
        (HOUSE / path).write_text(text(content))


if __name__ == "__main__":
    main()
