"""Every metric a job is watched by: the pipeline's own, and Google's.

Sources of Google's: https://docs.cloud.google.com/monitoring/api/metrics_gcp_d_h (Dataflow) and
https://docs.cloud.google.com/monitoring/api/metrics_gcp_p_z (Pub/Sub). A counter of the pipeline's own arrives there as
`job/user_counter`, a GAUGE of its total since the start, with the name in the label `metric_name`. How a distribution
arrives is not said there, so nothing here relies on `seconds_to_row`.
"""

from dataclasses import dataclass

REFUSALS = (
    "NotJson",
    "NotAReading",
    "BadTimestamp",
    "FutureTimestamp",
    "BadDevice",
    "BadValue",
    "NoKnownSensor",
    "UnexpectedError",
)


@dataclass(frozen=True)
class Own:
    """A metric of the pipeline, in its namespace `sensor_stream`."""

    name: str  # `refused_<error>` stands for one for each of REFUSALS
    counts: str


@dataclass(frozen=True)
class Google:
    """A metric that Google's services keep."""

    type: str
    kind: str
    unit: str
    tells: str

    @property
    def resource(self) -> str:
        """The type of the monitored resource."""
        return "dataflow_job" if self.type.startswith("dataflow") else "pubsub_subscription"


OWN = (
    Own("messages", "messages read"),
    Own("readings", "readings read; several to a message when packed"),
    Own(
        "delivered",
        "messages with their duplicates (`delivered` - `messages` = duplicates); only where the pipeline removes them "
        "itself, with `python -m pipeline.main` on one machine",
    ),
    Own("ignored_keys", "keys that are neither Timestamp, Device nor a sensor; it jumps when a sensor was renamed"),
    Own(
        "refused_<error>",
        f"refused messages and array items by error: {', '.join(f'`{error}`' for error in REFUSALS)} "
        "(which nobody foresaw, so ask what the decoder met)",
    ),
    Own(
        "late_intervals",
        "dead letters of sums that came after the grace period; of hopping windows, one for each interval",
    ),
    Own("expired_intervals", "dead letters of sums that came after the allowed lateness"),
    Own("intervals_before_start", "rows and late sums left out because their interval begins before `rows_since`"),
    Own("overflows", "intervals whose sum exceeds a float"),
    Own("rows", "rows made"),
    Own("revised_rows", "rows that revise another"),
    Own(
        "seconds_to_row",
        "distribution: from an interval's end to its row, before the insert; `grace_period` + a few seconds is sound",
    ),
    Own("silent_devices_noticed", "silences noticed, of devices and of the whole stream; only with `silence_after`"),
    Own("insert_failures", "rows that BigQuery refused for good"),
    Own("dead_letter_failures", "dead letters only in the log"),
)

JOB = "dataflow.googleapis.com/job/"
SUBSCRIPTION = "pubsub.googleapis.com/subscription/"

USER_COUNTER = Google(f"{JOB}user_counter", "GAUGE", "1", "the pipeline's own counters, by `metric_name`")
GOOGLE = (
    Google(f"{JOB}is_failed", "GAUGE", "1", "1 when the job has failed; not kept for one that fails before launch"),
    Google(f"{JOB}data_watermark_age", "GAUGE", "s", "the age up to which all data has been processed"),
    Google(f"{JOB}system_lag", "GAUGE", "s", "how long an item has been processed or waited for it, at most"),
    Google(f"{JOB}estimated_backlog_processing_time", "GAUGE", "s", "to work off what waits, by stage"),
    Google(f"{JOB}backlog_bytes", "GAUGE", "By", "what waits, by stage"),
    Google(f"{JOB}current_num_vcpus", "GAUGE", "1", "vCPUs of all workers"),
    Google(f"{JOB}duplicates_filtered_out_count", "DELTA", "1", "duplicates removed, by stage"),
    Google(f"{SUBSCRIPTION}oldest_unacked_message_age", "GAUGE", "s", "the age of the oldest message that waits"),
    Google(f"{SUBSCRIPTION}num_undelivered_messages", "GAUGE", "1", "messages that wait"),
    USER_COUNTER,
)
