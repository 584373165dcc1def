"""The dashboard, as `gcloud monitoring dashboards create` takes it, with the placeholders of `alerts`."""

from typing import Any

from deploy.monitoring.alerts import DEAD_LETTERS_IN_LOG, counters, series
from deploy.monitoring.metrics import GOOGLE

_TITLES = {
    "is_failed": "Failed (1)",
    "data_watermark_age": "Watermark age (s)",
    "system_lag": "System lag (s)",
    "estimated_backlog_processing_time": "Backlog, by stage (s of work)",
    "backlog_bytes": "Backlog, by stage (bytes)",
    "current_num_vcpus": "vCPUs",
    "duplicates_filtered_out_count": "Duplicates removed per second",
    "oldest_unacked_message_age": "Oldest unacknowledged message (s)",
    "num_undelivered_messages": "Unacknowledged messages",
}
_COUNTERS = {
    "Messages and readings per minute": "messages|readings",
    "Rows per minute": "rows|revised_rows",
    "Refused per minute, by error": "refused_.*",
    "Late, expired and before rows_since, per minute": "late_intervals|expired_intervals|intervals_before_start",
    "Silences noticed per minute": "silent_devices_noticed",
    "Overflows, rejected rows and lost dead letters per minute": "overflows|insert_failures|dead_letter_failures",
    "Ignored keys and documents, and delivered messages, per minute": "ignored_keys|without_reading|delivered",
}


def dashboard() -> dict[str, Any]:
    """Return the Dashboard: https://docs.cloud.google.com/monitoring/api/ref_dashboards/rest/v1/projects.dashboards."""
    by_name = {metric.type.rpartition("/")[2]: metric for metric in GOOGLE}
    charts = [
        _chart(
            title,
            timeSeriesFilter={
                "filter": series(by_name[name]),
                "aggregation": {
                    "alignmentPeriod": "60s",
                    "perSeriesAligner": "ALIGN_RATE" if by_name[name].kind == "DELTA" else "ALIGN_MAX",
                },
            },
        )
        for name, title in _TITLES.items()
    ]
    charts += [
        _chart(title, prometheusQuery=f"sum by (metric_name) (delta({counters(names)}[5m])) / 5")
        for title, names in _COUNTERS.items()
    ]
    in_log = (
        f'metric.type = "logging.googleapis.com/user/{DEAD_LETTERS_IN_LOG}" AND metric.labels.job = "${{job_name}}"'
    )
    charts.append(
        _chart(
            "Dead letters only in the log, per minute",
            timeSeriesFilter={
                "filter": in_log,
                "aggregation": {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_DELTA"},
            },
        )
    )
    return {
        "displayName": "Sensor Stream ${job_name}",
        "gridLayout": {"columns": "3", "widgets": charts},
    }


def _chart(title: str, **query: Any) -> dict[str, Any]:
    return {"title": title, "xyChart": {"dataSets": [{"plotType": "LINE", "timeSeriesQuery": query}]}}
