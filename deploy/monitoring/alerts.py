"""The alert policies, as `gcloud monitoring policies create` takes them.

Every file has three placeholders: ${job_name}, ${subscription} (without its project) and ${runbook} (the address of
docs/runbook.md). `envsubst` or Terraform's `templatefile` replaces them.
"""

from dataclasses import dataclass
from typing import Any

from deploy.monitoring.metrics import GOOGLE, JOB, SUBSCRIPTION, USER_COUNTER, Google

DEAD_LETTERS_IN_LOG = "sensor_stream/dead_letters_in_log"
# `pipeline/sinks/rejected_rows.py` logs this line when BigQuery rejects a dead letter.
LOG_FILTER = 'resource.type = "dataflow_step" AND severity >= ERROR AND jsonPayload.message : "dead letter not written"'
LOG_METRICS = {
    "dead_letters_in_log": {
        "name": DEAD_LETTERS_IN_LOG,
        "description": "Dead letters that are only in the log, of all Sensor Stream jobs",
        "filter": LOG_FILTER,
        "metricDescriptor": {
            "metricKind": "DELTA",
            "valueType": "INT64",
            "unit": "1",
            "labels": [{"key": "job", "valueType": "STRING"}],
        },
        "labelExtractors": {"job": "EXTRACT(resource.labels.job_name)"},
    }
}

MINUTE = 60


@dataclass(frozen=True)
class Alert:
    """An alert policy. Its file, and its section in docs/runbook.md, have its name."""

    name: str
    means: str
    metrics: tuple[str, ...]  # names of own metrics, or types of Google's
    severity: str  # CRITICAL: rows are missing or lost; WARNING: they may soon be
    condition: dict[str, Any]

    def policy(self) -> dict[str, Any]:
        """Return the AlertPolicy: https://docs.cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies."""
        policy = {
            "displayName": f"Sensor Stream ${{job_name}}: {self.name}",
            "documentation": {
                "content": f"{self.means}\n\nWhat to do: [{self.name}](${{runbook}}#{self.name})",
                "mimeType": "text/markdown",
            },
            "severity": self.severity,
            "combiner": "OR",
            "conditions": [{"displayName": self.name, **self.condition}],
        }
        if "conditionMatchedLog" in self.condition:
            # Required for a log match, and not allowed otherwise.
            policy["alertStrategy"] = {"notificationRateLimit": {"period": "300s"}, "autoClose": "1800s"}
        return policy


def series(metric: Google) -> str:
    """Return the filter for the time series of a metric, of the job or of its subscription."""
    label = 'job_name = "${job_name}"' if metric.resource == "dataflow_job" else 'subscription_id = "${subscription}"'
    return f'metric.type = "{metric.type}" AND resource.type = "{metric.resource}" AND resource.labels.{label}'


def increase(names: str, minutes: int) -> str:
    """Return PromQL for the increase of the own counters whose names match a pattern, over the last `minutes`.

    A counter appears when it is first incremented, and restarts at zero in the job that an update starts. PromQL's own
    `increase` and `delta` miss both, so a counter that was absent before is taken as zero, for each job.
    """

    def totals(window: str) -> str:
        return f"sum by (job_id) (max_over_time({counters(names)}{window}))"

    now, before = totals(f"[{minutes}m]"), totals(f"[{minutes}m] offset {minutes}m")
    return f"sum({now} - ({before} or 0 * {now}))"


def counters(names: str) -> str:
    """Return the PromQL selector of the job's own counters whose names match a pattern."""
    labels = f'monitored_resource="dataflow_job",job_name="${{job_name}}",metric_name=~"{names}"'
    return f"dataflow_googleapis_com:job_user_counter{{{labels}}}"


def _above(type: str, threshold: float, minutes: int) -> dict[str, Any]:
    [metric] = [metric for metric in GOOGLE if metric.type == type]
    return {
        "conditionThreshold": {
            "filter": series(metric),
            "aggregations": [
                {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MAX", "crossSeriesReducer": "REDUCE_MAX"}
            ],
            "comparison": "COMPARISON_GT",
            "thresholdValue": threshold,
            "duration": f"{minutes * MINUTE}s",
        }
    }


def _promql(query: str) -> dict[str, Any]:
    # A counter does not exist before it is first incremented, so its existence must not be validated.
    rule = {"query": query, "duration": "0s", "evaluationInterval": "60s", "disableMetricValidation": True}
    return {"conditionPrometheusQueryLanguage": rule}


ALERTS = (
    Alert(
        "job-failed",
        "The job has failed and writes no more rows. Unacknowledged messages wait in the subscription.",
        (f"{JOB}is_failed",),
        "CRITICAL",
        _above(f"{JOB}is_failed", 0, 0),
    ),
    Alert(
        "rows-absent",
        "The counter of rows has had no value for half an hour, as if no job were running.",
        ("rows",),
        "CRITICAL",
        {
            "conditionAbsent": {
                "filter": f'{series(USER_COUNTER)} AND metric.labels.metric_name = "rows"',
                "aggregations": [
                    {"alignmentPeriod": "60s", "perSeriesAligner": "ALIGN_MAX", "crossSeriesReducer": "REDUCE_MAX"}
                ],
                "duration": f"{30 * MINUTE}s",
            }
        },
    ),
    Alert(
        "rows-stand-still",
        "Readings have arrived for half an hour, and no row was computed. Not for intervals of more than 20 minutes.",
        ("readings", "rows"),
        "CRITICAL",
        _promql(f"{increase('readings', 30)} > 0 unless {increase('rows', 30)} > 0"),
    ),
    Alert(
        "watermark-behind",
        "The watermark has been more than ten minutes behind for five minutes, so rows are late.",
        (f"{JOB}data_watermark_age",),
        "CRITICAL",
        _above(f"{JOB}data_watermark_age", 10 * MINUTE, 5),
    ),
    Alert(
        "system-lag",
        "An item has waited for more than five minutes inside the job, for five minutes.",
        (f"{JOB}system_lag",),
        "WARNING",
        _above(f"{JOB}system_lag", 5 * MINUTE, 5),
    ),
    Alert(
        "backlog",
        "The backlog has been more than ten minutes of work, for ten minutes.",
        (f"{JOB}estimated_backlog_processing_time",),
        "WARNING",
        _above(f"{JOB}estimated_backlog_processing_time", 10 * MINUTE, 10),
    ),
    Alert(
        "messages-wait",
        "A message has waited in the subscription for more than ten minutes.",
        (f"{SUBSCRIPTION}oldest_unacked_message_age",),
        "WARNING",
        _above(f"{SUBSCRIPTION}oldest_unacked_message_age", 10 * MINUTE, 5),
    ),
    Alert(
        "readings-refused",
        "More than 1% of the readings of the last ten minutes were refused.",
        ("readings", "refused_<error>"),
        "WARNING",
        _promql(f"{increase('refused_.*', 10)} > 0.01 * {increase('readings|refused_.*', 10)}"),
    ),
    Alert(
        "readings-late",
        "In the last ten minutes, readings arrived after the row of their interval was written.",
        ("late_intervals", "expired_intervals"),
        "WARNING",
        _promql(f"{increase('late_intervals|expired_intervals', 10)} > 0"),
    ),
    Alert(
        "devices-silent",
        "In the last ten minutes, a device or the whole stream fell silent.",
        ("silent_devices_noticed",),
        "WARNING",
        _promql(f"{increase('silent_devices_noticed', 10)} > 0"),
    ),
    Alert(
        "sums-overflow",
        "An interval has no row, because the sum of its readings exceeds a 64-bit float.",
        ("overflows",),
        "WARNING",
        _promql(f"{increase('overflows', 10)} > 0"),
    ),
    Alert(
        "rows-refused",
        "BigQuery has rejected rows for good. They are dead letters with the stage insert or silence.",
        ("insert_failures",),
        "CRITICAL",
        _promql(f"{increase('insert_failures', 10)} > 0"),
    ),
    Alert(
        "dead-letters-in-log",
        "A dead letter could not be written and is only in the log of the job, which is kept for 30 days.",
        ("dead_letter_failures",),
        "CRITICAL",
        {"conditionMatchedLog": {"filter": f'{LOG_FILTER} AND resource.labels.job_name = "${{job_name}}"'}},
    ),
)
