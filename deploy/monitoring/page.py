"""The tables of docs/operate.md."""

from deploy.monitoring.alerts import ALERTS
from deploy.monitoring.metrics import GOOGLE, OWN


def own_rows() -> list[str]:
    """Return the rows of the table of the pipeline's own metrics."""
    return [f"| `{metric.name}` | {metric.counts} | {_alerts(metric.name)} |" for metric in OWN]


def google_rows() -> list[str]:
    """Return the rows of the table of Google's metrics."""
    return [f"| `{metric.type.partition('/')[2]}` | {metric.tells} | {_alerts(metric.type)} |" for metric in GOOGLE]


def _alerts(metric: str) -> str:
    found = [alert.name for alert in ALERTS if metric in alert.metrics]
    return ", ".join(f"[{name}](runbook.md#{name})" for name in found)
