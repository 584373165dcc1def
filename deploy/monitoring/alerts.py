"""The alert policies, as `gcloud monitoring policies create` takes them.

Three places stay open in every file: ${job_name}, ${subscription} (its last part) and ${runbook} (the address of
docs/runbook.md), for `envsubst` or Terraform's `templatefile` to fill.
"""

from dataclasses import dataclass
from typing import Any

from deploy.monitoring.metrics import GOOGLE, JOB, SUBSCRIPTION, USER_COUNTER, Google

LETTERS_IN_LOG = "sensor_stream/dead_letters_in_log"
# `rejected_rows.py` writes this line when BigQuery rejects the dead letter too.
LOG_FILTER = 'resource.type = "dataflow_step" AND severity >= ERROR AND jsonPayload.message : "dead letter not written"'
LOG_METRICS = {
    "dead_letters_in_log": {
        "name": LETTERS_IN_LOG,
        "description": "Dead letters that are only in the log, of every Sensor Stream job",
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
    """One policy, in a file of its name, with a section of that name in the runbook."""

    name: str
    means: str
    metrics: tuple[str, ...]  # those it watches: own names, or Google's types
    severity: str  # CRITICAL: rows are missing or being lost; WARNING: they may soon be
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
            # Required for a log match, and for nothing else.
            policy["alertStrategy"] = {"notificationRateLimit": {"period": "300s"}, "autoClose": "1800s"}
        return policy


def series(metric: Google) -> str:
    """Return the filter for the metric's time series of the job, or of its subscription."""
    label = 'job_name = "${job_name}"' if metric.resource == "dataflow_job" else 'subscription_id = "${subscription}"'
    return f'metric.type = "{metric.type}" AND resource.type = "{metric.resource}" AND resource.labels.{label}'


def grown(names: str, minutes: int) -> str:
    """Return PromQL for how much own counters, by a pattern of their names, have grown in the last minutes.

    A counter appears only when it first counts, and begins anew in the job that an update starts. `increase` and
    `delta` see neither, so what was not there before counts as zero, job by job.
    """

    def totals(window: str) -> str:
        return f"sum by (job_id) (max_over_time({counters(names)}{window}))"

    now, before = totals(f"[{minutes}m]"), totals(f"[{minutes}m] offset {minutes}m")
    return f"sum({now} - ({before} or 0 * {now}))"


def counters(names: str) -> str:
    """Return the PromQL selector of the job's own counters whose names fit the pattern."""
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
    # A counter does not exist before it first counts, so its existence must not be asked for.
    rule = {"query": query, "duration": "0s", "evaluationInterval": "60s", "disableMetricValidation": True}
    return {"conditionPrometheusQueryLanguage": rule}


ALERTS = (
    Alert(
        "job-failed",
        "The job has failed: no more rows are made. What was not acknowledged waits in the subscription.",
        (f"{JOB}is_failed",),
        "CRITICAL",
        _above(f"{JOB}is_failed", 0, 0),
    ),
    Alert(
        "rows-absent",
        "No row has been counted for half an hour, as if there were no job.",
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
        "Readings come, but for half an hour no row was made of them. Not for intervals longer than 20 minutes.",
        ("readings", "rows"),
        "CRITICAL",
        _promql(f"{grown('readings', 30)} > 0 unless {grown('rows', 30)} > 0"),
    ),
    Alert(
        "watermark-behind",
        "For five minutes, rows have been more than ten minutes behind.",
        (f"{JOB}data_watermark_age",),
        "CRITICAL",
        _above(f"{JOB}data_watermark_age", 10 * MINUTE, 5),
    ),
    Alert(
        "system-lag",
        "For five minutes, something has waited more than five minutes inside the job.",
        (f"{JOB}system_lag",),
        "WARNING",
        _above(f"{JOB}system_lag", 5 * MINUTE, 5),
    ),
    Alert(
        "backlog",
        "For ten minutes, the job has been more than ten minutes of work behind.",
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
        "In the last ten minutes, more than one in a hundred readings were refused.",
        ("readings", "refused_<error>"),
        "WARNING",
        _promql(f"{grown('refused_.*', 10)} > 0.01 * {grown('readings|refused_.*', 10)}"),
    ),
    Alert(
        "readings-late",
        "In the last ten minutes, readings came after their interval's row was written.",
        ("late_intervals", "expired_intervals"),
        "WARNING",
        _promql(f"{grown('late_intervals|expired_intervals', 10)} > 0"),
    ),
    Alert(
        "devices-silent",
        "In the last ten minutes, a device fell silent, or all of them did.",
        ("silent_devices_noticed",),
        "WARNING",
        _promql(f"{grown('silent_devices_noticed', 10)} > 0"),
    ),
    Alert(
        "sums-overflow",
        "An interval has no row, since the sum of its readings exceeds a 64-bit float.",
        ("overflows",),
        "WARNING",
        _promql(f"{grown('overflows', 10)} > 0"),
    ),
    Alert(
        "rows-refused",
        "BigQuery has refused rows for good. They are dead letters of the stage insert.",
        ("insert_failures",),
        "CRITICAL",
        _promql(f"{grown('insert_failures', 10)} > 0"),
    ),
    Alert(
        "dead-letters-in-log",
        "A dead letter could not be written, and is only in the job's log, which is kept for 30 days.",
        ("dead_letter_failures",),
        "CRITICAL",
        {"conditionMatchedLog": {"filter": f'{LOG_FILTER} AND resource.labels.job_name = "${{job_name}}"'}},
    ),
)
