"""The metrics that alerts, dashboard and docs/operate.md use: the pipeline's own, and Google's.

Documentation of Google's metrics: https://docs.cloud.google.com/monitoring/api/metrics_gcp_d_h (Dataflow) and
https://docs.cloud.google.com/monitoring/api/metrics_gcp_p_z (Pub/Sub). A counter of the pipeline appears there as
`job/user_counter`, a GAUGE of its total since the start, with its name in the label `metric_name`. How a distribution
appears is not documented, so nothing here relies on `seconds_to_row`.
"""

from dataclasses import dataclass

REFUSALS = (
    "NotJson",
    "BadFormat",
    "NotAReading",
    "UnequalLists",
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

    name: str  # `refused_<error>` stands for one metric for each of REFUSALS
    counts: str


@dataclass(frozen=True)
class Google:
    """A metric of Google's services."""

    type: str
    kind: str
    unit: str
    meaning: str

    @property
    def resource(self) -> str:
        """The type of the monitored resource."""
        return "dataflow_job" if self.type.startswith("dataflow") else "pubsub_subscription"


OWN = (
    Own("messages", "messages read"),
    Own("readings", "readings read; a packed message has several"),
    Own(
        "delivered",
        "messages with their duplicates, so `delivered` - `messages` is the number of duplicates; only in a local run, "
        "where the pipeline removes duplicates itself",
    ),
    Own("ignored_keys", "keys that are neither Timestamp, Device nor a sensor; jumps when a sensor is renamed"),
    Own("without_reading", "documents in which no sensor was found and that were ignored, with `no_reading=ignore`"),
    Own(
        "refused_<error>",
        f"refused messages, array items and values by error: {', '.join(f'`{error}`' for error in REFUSALS)} "
        "(a defect in the decoder)",
    ),
    Own(
        "late_intervals",
        "dead letters of sums that arrived after the grace period; in hopping windows, one for each interval",
    ),
    Own("expired_intervals", "dead letters of sums that arrived after the allowed lateness"),
    Own("intervals_before_start", "rows and late sums left out because their interval begins before `rows_since`"),
    Own("overflows", "intervals whose sum exceeds a 64-bit float"),
    Own("rows", "rows computed"),
    Own("revised_rows", "rows that replace an earlier row"),
    Own(
        "seconds_to_row",
        "distribution of the seconds from the end of an interval to its row, before it is written; normally "
        "`grace_period` and a few seconds",
    ),
    Own("silent_devices_noticed", "silences noticed, of devices and of the whole stream; only with `silence_after`"),
    Own("insert_failures", "rows and silences that BigQuery rejected for good"),
    Own("dead_letter_failures", "dead letters that are only in the log"),
)

JOB = "dataflow.googleapis.com/job/"
SUBSCRIPTION = "pubsub.googleapis.com/subscription/"

USER_COUNTER = Google(f"{JOB}user_counter", "GAUGE", "1", "the pipeline's own counters, by `metric_name`")
GOOGLE = (
    Google(f"{JOB}is_failed", "GAUGE", "1", "1 if the job has failed; absent for a job that fails before it starts"),
    Google(
        f"{JOB}data_watermark_age", "GAUGE", "s", "age of the newest data up to which everything has been processed"
    ),
    Google(f"{JOB}system_lag", "GAUGE", "s", "longest time that an item has been processed or has waited"),
    Google(f"{JOB}estimated_backlog_processing_time", "GAUGE", "s", "time to process the backlog, by stage"),
    Google(f"{JOB}backlog_bytes", "GAUGE", "By", "size of the backlog, by stage"),
    Google(f"{JOB}current_num_vcpus", "GAUGE", "1", "vCPUs of all workers"),
    Google(f"{JOB}duplicates_filtered_out_count", "DELTA", "1", "duplicates removed, by stage"),
    Google(f"{SUBSCRIPTION}oldest_unacked_message_age", "GAUGE", "s", "age of the oldest unacknowledged message"),
    Google(f"{SUBSCRIPTION}num_undelivered_messages", "GAUGE", "1", "unacknowledged messages"),
    USER_COUNTER,
)
