"""Every parameter of the template, declared once."""

from dataclasses import dataclass

from pipeline.launch.value_types import (
    ATTRIBUTE,
    BOOLEAN,
    RFC3339,
    SENSORS,
    STATISTICS,
    TABLE,
    ValueType,
    duration,
    one_of,
    pubsub_path,
)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of the template.

    Attributes:
      name: of the flag and of the template parameter.
      type: the template's paramType.
      group: heading in the template's form.
      label: name in the template's form.
      help: one line for the form, the README and --help.
      form: how its value is written.
      default: as text; empty means not given.
      required: by the template; a local run may go without.
      shown_when: (another parameter, those of its values) that this one depends on.
    """

    name: str
    type: str
    group: str
    label: str
    help: str
    value_type: ValueType
    default: str = ""
    required: bool = False
    shown_when: tuple[str, tuple[str, ...]] | None = None


_SOURCE, _READINGS, _WINDOWS, _SILENCES, _TARGET = "Source", "Readings", "Windows", "Silences", "Target"

PARAMETERS = (
    Parameter(
        name="input_subscription",
        type="PUBSUB_SUBSCRIPTION",
        group=_SOURCE,
        label="Pub/Sub subscription",
        help="Subscription to read, projects/PROJECT/subscriptions/NAME. Give either this or a topic, not both.",
        value_type=pubsub_path("subscription"),
    ),
    Parameter(
        name="input_topic",
        type="PUBSUB_TOPIC",
        group=_SOURCE,
        label="Pub/Sub topic",
        help="Topic to read, projects/PROJECT/topics/NAME, through a subscription made for the job. Give either this "
        "or a subscription, not both.",
        value_type=pubsub_path("topic"),
    ),
    Parameter(
        name="timestamp_attribute",
        type="TEXT",
        group=_SOURCE,
        label="Timestamp attribute",
        help="Message attribute with the event time (RFC 3339 or epoch milliseconds) that drives the watermark; "
        "without it the publish time does. A reading's own Timestamp always decides its window.",
        value_type=ATTRIBUTE,
    ),
    Parameter(
        name="id_attribute",
        type="TEXT",
        group=_SOURCE,
        label="Id attribute",
        help="Message attribute that identifies a message; of those with the same one, the first in ten "
        "minutes counts.",
        value_type=ATTRIBUTE,
    ),
    Parameter(
        name="sensors",
        type="TEXT",
        group=_READINGS,
        label="Sensors",
        help="Sensor columns, comma-separated, in table order.",
        value_type=SENSORS,
        default="Airtight,AtmP,H2OC,Temp",
    ),
    Parameter(
        name="statistics",
        type="TEXT",
        group=_READINGS,
        label="Statistics",
        help="What a row says of each sensor, comma-separated: mean, count, min, max, sum, stddev, first, last. The "
        "mean has the sensor's name for a column, the others SENSOR_STATISTIC, such as Temp_max.",
        value_type=STATISTICS,
        default="mean",
    ),
    Parameter(
        name="group_by_device",
        type="BOOLEAN",
        group=_READINGS,
        label="One row per device",
        help="One row per device and interval, with the column Device.",
        value_type=BOOLEAN,
        default="false",
    ),
    Parameter(
        name="max_future_skew",
        type="TEXT",
        group=_READINGS,
        label="Largest lead over the clock",
        help="A reading further ahead of the clock than this is refused.",
        value_type=duration(at_least_one=False),
        default="10m",
    ),
    Parameter(
        name="window",
        type="ENUM",
        group=_WINDOWS,
        label="Kind of window",
        help="fixed: intervals of one length, stamped with their start. hopping: the same, but one starts every hop, "
        "so that they overlap. session: bursts of readings, stamped with their end (last reading + session_gap).",
        value_type=one_of(
            {
                "fixed": "Fixed: intervals of one length",
                "hopping": "Hopping: intervals that overlap",
                "session": "Session: bursts of readings",
            }
        ),
        default="fixed",
    ),
    Parameter(
        name="interval",
        type="TEXT",
        group=_WINDOWS,
        label="Interval",
        help="Length of a fixed or hopping window, such as 15s, 5m or 1h.",
        value_type=duration(at_least_one=True),
        default="15s",
        shown_when=("window", ("fixed", "hopping")),
    ),
    Parameter(
        name="hop",
        type="TEXT",
        group=_WINDOWS,
        label="Hop",
        help="How often a hopping window starts, such as 5s. Needed for hopping windows; the interval must be a "
        "multiple of it, at most 1,440 times as long.",
        value_type=duration(at_least_one=True),
        shown_when=("window", ("hopping",)),
    ),
    Parameter(
        name="session_gap",
        type="TEXT",
        group=_WINDOWS,
        label="Session gap",
        help="Silence that ends a session.",
        value_type=duration(at_least_one=True),
        default="60s",
        shown_when=("window", ("session",)),
    ),
    Parameter(
        name="grace_period",
        type="TEXT",
        group=_WINDOWS,
        label="Grace period",
        help="How long a window is held open after its end for stragglers.",
        value_type=duration(at_least_one=False),
        default="5s",
    ),
    Parameter(
        name="allowed_lateness",
        type="TEXT",
        group=_WINDOWS,
        label="Allowed lateness",
        help="How long after that late readings are still accounted for.",
        value_type=duration(at_least_one=False),
        default="1h",
    ),
    Parameter(
        name="on_late",
        type="ENUM",
        group=_WINDOWS,
        label="Late readings",
        help="What becomes of late readings. dead_letter: rows are final, the late sums go to the dead-letter table. "
        "revise: the whole corrected row is written again, with Revision and WrittenAt; the view OUTPUT_TABLE_latest "
        "shows the newest. With write_method=upsert it takes the place of the one before.",
        value_type=one_of(
            {"dead_letter": "Dead letter: rows are final", "revise": "Revise: write the corrected row again"}
        ),
        default="dead_letter",
    ),
    Parameter(
        name="rows_since",
        type="TEXT",
        group=_WINDOWS,
        label="Rows since",
        help="Intervals that begin before this time, such as 2026-11-22T13:00:00Z, are only counted. For a replay: "
        "seek the subscription to a little before it.",
        value_type=RFC3339,
    ),
    Parameter(
        name="silence_after",
        type="TEXT",
        group=_SILENCES,
        label="Silence after",
        help="Note in the table OUTPUT_TABLE_silences when no reading of a device, or none at all, came for this long, "
        "such as 5m, and when it is back. Without it nobody watches.",
        value_type=duration(at_least_one=True),
    ),
    Parameter(
        name="silence_topic",
        type="PUBSUB_TOPIC",
        group=_SILENCES,
        label="Topic of silences",
        help="Topic to publish silences to as well, to be paged: the row as JSON, with the attributes device and event "
        "(silent or back). Needs silence_after.",
        value_type=pubsub_path("topic"),
    ),
    Parameter(
        name="output_table",
        type="BIGQUERY_TABLE",
        group=_TARGET,
        label="Table of rows",
        help="Table for the rows, project:dataset.table. Required on Dataflow; a local run without it prints rows.",
        value_type=TABLE,
        required=True,
    ),
    Parameter(
        name="write_method",
        type="ENUM",
        group=_TARGET,
        label="How rows are written",
        help="streaming_inserts: BigQuery's older API. storage_write: appended through the Storage Write API, at least "
        "once, so a row may be there twice. upsert: through the same API by primary key, so that each interval has one "
        "row whatever is retried, revised or replayed.",
        value_type=one_of(
            {
                "streaming_inserts": "Streaming inserts: the older API",
                "storage_write": "Storage Write API: append, at least once",
                "upsert": "Storage Write API: one row per interval, by primary key",
            }
        ),
        default="streaming_inserts",
    ),
    Parameter(
        name="fill_gaps",
        type="BOOLEAN",
        group=_TARGET,
        label="View without gaps",
        help="Create the view OUTPUT_TABLE_filled: a row for every interval of the last 30 days, values carried "
        "forward for up to 20 intervals.",
        value_type=BOOLEAN,
        default="false",
        shown_when=("window", ("fixed", "hopping")),
    ),
    Parameter(
        name="dead_letter_table",
        type="BIGQUERY_TABLE",
        group=_TARGET,
        label="Table of dead letters",
        help="Table for what cannot become a row. Default: the output table's name with _dead_letters appended.",
        value_type=TABLE,
    ),
    Parameter(
        name="dead_letter_topic",
        type="PUBSUB_TOPIC",
        group=_TARGET,
        label="Topic of dead letters",
        help="Topic to publish dead letters to as well: the payload as data, the other columns as attributes.",
        value_type=pubsub_path("topic"),
    ),
    Parameter(
        name="keep_attributes",
        type="BOOLEAN",
        group=_TARGET,
        label="Keep message attributes",
        help="Keep message attributes and ids in dead letters. Costs CPU for every message.",
        value_type=BOOLEAN,
        default="false",
    ),
    Parameter(
        name="check_before_launch",
        type="BOOLEAN",
        group=_TARGET,
        label="Check before launch",
        help="Check topics, subscription, permissions and tables before the job starts, and create missing tables. "
        "With false nothing is looked up or created; all tables must be there.",
        value_type=BOOLEAN,
        default="true",
    ),
)
