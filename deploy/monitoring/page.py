"""The lists of metrics in docs/operate.md."""

import textwrap

from deploy.monitoring.alerts import ALERTS
from deploy.monitoring.metrics import GOOGLE, OWN


def own_metrics() -> str:
    """Return the list of the pipeline's own metrics, in Markdown."""
    return "\n".join(_entry(metric.name, metric.counts, metric.name) for metric in OWN)


def google_metrics() -> str:
    """Return the list of Google's metrics, in Markdown."""
    return "\n".join(_entry(metric.type.partition("/")[2], metric.meaning, metric.type) for metric in GOOGLE)


def _entry(name: str, meaning: str, metric: str) -> str:
    alerts = ", ".join(f"[{alert.name}](runbook.md#{alert.name})" for alert in ALERTS if metric in alert.metrics)
    entry = f"- `{name}`: {meaning}" + (f". Alert: {alerts}" if alerts else "")
    return textwrap.fill(entry, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
