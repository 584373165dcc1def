"""Every parameter of the template, declared once.

The template's form, Terraform's variables, `--help` and the table in docs/parameters.md follow from `PARAMETERS`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from pipeline.aggregate.statistics import Statistics
from pipeline.decode.paths import Path
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.launch.value_types import (
    ATTRIBUTE,
    BOOLEAN,
    CSV_COLUMNS,
    PATH,
    RFC3339,
    SENSORS,
    STATISTICS,
    TABLE,
    TIME_ZONE,
    Sensors,
    ValueType,
    duration,
    one_of,
    pubsub_path,
)
from pipeline.sinks.bigquery import TableId


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """How one parameter is presented and written.

    Attributes:
      type: the template's paramType.
      group: heading in the template's form.
      label: name in the template's form.
      help: one line for the form, docs/parameters.md and --help.
      value_type: how its value is written.
      default: as text; empty means not given.
      required: by the template; a local run may go without.
      shown_when: (another parameter, those of its values) that this one depends on.
    """

    type: str
    group: str
    label: str
    help: str
    value_type: ValueType[Any]
    default: str = ""
    required: bool = False
    shown_when: tuple[str, tuple[str, ...]] | None = None


_SOURCE, _READINGS, _WINDOWS, _SILENCES, _TARGET = "Source", "Readings", "Windows", "Silences", "Target"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The value of each parameter, in the order of the template's form.

    Durations are in seconds, times in microseconds since the epoch. A parameter without a default is None if not given.
    """

    input_subscription: Annotated[
        str | None,
        Parameter(
            type="PUBSUB_SUBSCRIPTION",
            group=_SOURCE,
            label="Pub/Sub subscription",
            help="Subscription to read, projects/PROJECT/subscriptions/NAME. Give either this or a topic, not both.",
            value_type=pubsub_path("subscription"),
        ),
    ]
    input_topic: Annotated[
        str | None,
        Parameter(
            type="PUBSUB_TOPIC",
            group=_SOURCE,
            label="Pub/Sub topic",
            help="Topic to read, projects/PROJECT/topics/NAME, through a subscription that is created for the job. "
            "Give either this or a subscription, not both.",
            value_type=pubsub_path("topic"),
        ),
    ]
    timestamp_attribute: Annotated[
        str | None,
        Parameter(
            type="TEXT",
            group=_SOURCE,
            label="Timestamp attribute",
            help="Message attribute that holds the event time (RFC 3339 or epoch milliseconds) and drives the "
            "watermark. If empty, the publish time drives it. The Timestamp of a reading always decides its "
            "window.",
            value_type=ATTRIBUTE,
        ),
    ]
    id_attribute: Annotated[
        str | None,
        Parameter(
            type="TEXT",
            group=_SOURCE,
            label="ID attribute",
            help="Message attribute that identifies a message. Of several messages with the same value within ten "
            "minutes, only the first counts.",
            value_type=ATTRIBUTE,
        ),
    ]
    sensors: Annotated[
        Sensors,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Sensors",
            help="Sensor columns, comma-separated, in table order; COLUMN=PATH where the path in the message differs.",
            value_type=SENSORS,
            default="Airtight,AtmP,H2OC,Temp",
        ),
    ]
    format: Annotated[
        str,
        Parameter(
            type="ENUM",
            group=_READINGS,
            label="Format",
            help="How the bytes of a message become documents. json: an object, an array of objects, or either per "
            "line. influx: line protocol. senml: RFC 8428. csv: columns named by csv_columns. form: URL-encoded. text: "
            "the text is the document. avro: records of the topic's schema.",
            value_type=one_of(
                {
                    "json": "JSON: objects, arrays, or lines of them",
                    "influx": "InfluxDB line protocol",
                    "senml": "SenML (RFC 8428)",
                    "csv": "CSV",
                    "form": "URL-encoded form",
                    "text": "Text",
                    "avro": "Avro records of the topic's schema",
                }
            ),
            default="json",
        ),
    ]
    csv_columns: Annotated[
        tuple[str, ...] | None,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="CSV columns",
            help="Names of the columns of CSV, comma-separated. Needed with the format csv.",
            value_type=CSV_COLUMNS,
            shown_when=("format", ("csv",)),
        ),
    ]
    timestamp: Annotated[
        Path,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Path of the event time",
            help="Path of a reading's event time, such as uplink.received_at, attribute:ts or message:time.",
            value_type=PATH,
            default=TIMESTAMP,
        ),
    ]
    device: Annotated[
        Path,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Path of the device",
            help="Path of a reading's device, such as end_device_ids.device_id or attribute:topic/1.",
            value_type=PATH,
            default=DEVICE,
        ),
    ]
    sensor_name: Annotated[
        Path | None,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Path of sensor names",
            help="Path of the sensor's name in documents that list names and values, such as data[*].name. Needs "
            "sensor_value; sensors then says COLUMN=NAME.",
            value_type=PATH,
        ),
    ]
    sensor_value: Annotated[
        Path | None,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Path of sensor values",
            help="Path of the value that belongs to sensor_name, such as data[*].value.",
            value_type=PATH,
        ),
    ]
    values: Annotated[
        str,
        Parameter(
            type="ENUM",
            group=_READINGS,
            label="Values",
            help="strict: JSON numbers only. lenient: also numbers in text, with or without a unit, and booleans as 0 "
            "and 1; empty text, nan, null, unknown and unavailable are absent.",
            value_type=one_of(
                {
                    "strict": "Strict: JSON numbers only",
                    "lenient": "Lenient: also numbers in text, and booleans",
                }
            ),
            default="strict",
        ),
    ]
    time_zone: Annotated[
        str,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Time zone",
            help="IANA zone of timestamps without an offset, such as Europe/Berlin.",
            value_type=TIME_ZONE,
            default="UTC",
        ),
    ]
    no_reading: Annotated[
        str,
        Parameter(
            type="ENUM",
            group=_READINGS,
            label="Messages without a reading",
            help="What happens to a document in which no sensor was found. dead_letter: it is a dead letter. ignore: "
            "it is only counted, as for status messages on the same topic.",
            value_type=one_of({"dead_letter": "Dead letter", "ignore": "Ignore: only count them"}),
            default="dead_letter",
        ),
    ]
    statistics: Annotated[
        Statistics,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Statistics",
            help="Statistics of each sensor, comma-separated: mean, count, min, max, sum, stddev, first, last. The "
            "column of the mean is named as the sensor, the others SENSOR_STATISTIC, such as Temp_max.",
            value_type=STATISTICS,
            default="mean",
        ),
    ]
    group_by_device: Annotated[
        bool,
        Parameter(
            type="BOOLEAN",
            group=_READINGS,
            label="One row per device",
            help="Write one row per device and interval, with the column Device.",
            value_type=BOOLEAN,
            default="false",
        ),
    ]
    max_future_skew: Annotated[
        int,
        Parameter(
            type="TEXT",
            group=_READINGS,
            label="Maximum future skew",
            help="Refuse readings whose Timestamp is further ahead of the clock than this.",
            value_type=duration(at_least_one=False),
            default="10m",
        ),
    ]
    window: Annotated[
        str,
        Parameter(
            type="ENUM",
            group=_WINDOWS,
            label="Window type",
            help="fixed: intervals of one length, stamped with their start. hopping: intervals of one length that "
            "start every hop, so they overlap. session: bursts of readings, stamped with their end (last reading "
            "+ session_gap).",
            value_type=one_of(
                {
                    "fixed": "Fixed: intervals of one length",
                    "hopping": "Hopping: intervals that overlap",
                    "session": "Session: bursts of readings",
                }
            ),
            default="fixed",
        ),
    ]
    interval: Annotated[
        int,
        Parameter(
            type="TEXT",
            group=_WINDOWS,
            label="Interval",
            help="Length of a fixed or hopping window, such as 15s, 5m or 1h.",
            value_type=duration(at_least_one=True),
            default="15s",
            shown_when=("window", ("fixed", "hopping")),
        ),
    ]
    hop: Annotated[
        int | None,
        Parameter(
            type="TEXT",
            group=_WINDOWS,
            label="Hop",
            help="Time from the start of one hopping window to the start of the next, such as 5s. Required for "
            "hopping windows. The interval must be a multiple of it, at most 1,440 times as long.",
            value_type=duration(at_least_one=True),
            shown_when=("window", ("hopping",)),
        ),
    ]
    session_gap: Annotated[
        int,
        Parameter(
            type="TEXT",
            group=_WINDOWS,
            label="Session gap",
            help="Time without readings that ends a session.",
            value_type=duration(at_least_one=True),
            default="60s",
            shown_when=("window", ("session",)),
        ),
    ]
    grace_period: Annotated[
        int,
        Parameter(
            type="TEXT",
            group=_WINDOWS,
            label="Grace period",
            help="How long a window stays open after its end for stragglers.",
            value_type=duration(at_least_one=False),
            default="5s",
        ),
    ]
    allowed_lateness: Annotated[
        int,
        Parameter(
            type="TEXT",
            group=_WINDOWS,
            label="Allowed lateness",
            help="How long after the grace period a reading counts as late. A reading that arrives after that is "
            "expired and becomes a dead letter.",
            value_type=duration(at_least_one=False),
            default="1h",
        ),
    ]
    on_late: Annotated[
        str,
        Parameter(
            type="ENUM",
            group=_WINDOWS,
            label="Late readings",
            help="What happens to late readings. dead_letter: rows are final, and the late sums go to the dead-letter "
            "table. revise: the corrected row is written again, with Revision and WrittenAt, and the view "
            "OUTPUT_TABLE_latest shows the newest revision. With write_method=upsert it replaces the earlier "
            "row.",
            value_type=one_of(
                {"dead_letter": "Dead letter: rows are final", "revise": "Revise: write the corrected row again"}
            ),
            default="dead_letter",
        ),
    ]
    rows_since: Annotated[
        int | None,
        Parameter(
            type="TEXT",
            group=_WINDOWS,
            label="Rows since",
            help="For a replay: intervals that begin before this time, such as 2026-11-22T13:00:00Z, are counted and "
            "not written. Seek the subscription to a little before this time.",
            value_type=RFC3339,
        ),
    ]
    silence_after: Annotated[
        int | None,
        Parameter(
            type="TEXT",
            group=_SILENCES,
            label="Silence after",
            help="Write a row to OUTPUT_TABLE_silences when a device or the whole stream has sent nothing for this "
            "long, such as 5m, and when it resumes. Disabled if empty.",
            value_type=duration(at_least_one=True),
        ),
    ]
    silence_topic: Annotated[
        str | None,
        Parameter(
            type="PUBSUB_TOPIC",
            group=_SILENCES,
            label="Silence topic",
            help="Topic to publish silences to as well, for example to page somebody: the row as JSON, with the "
            "attributes device and event (silent or back). Requires silence_after.",
            value_type=pubsub_path("topic"),
        ),
    ]
    output_table: Annotated[
        TableId | None,
        Parameter(
            type="BIGQUERY_TABLE",
            group=_TARGET,
            label="Output table",
            help="Table for the rows, project:dataset.table. Required on Dataflow; a local run without it prints the "
            "rows.",
            value_type=TABLE,
            required=True,
        ),
    ]
    write_method: Annotated[
        str,
        Parameter(
            type="ENUM",
            group=_TARGET,
            label="Write method",
            help="streaming_inserts: BigQuery's older API. storage_write: append through the Storage Write API, at "
            "least once, so a row may be stored twice. upsert: write through the same API by primary key, so "
            "that each interval has one row, also after retries, revisions and replays.",
            value_type=one_of(
                {
                    "streaming_inserts": "Streaming inserts: the older API",
                    "storage_write": "Storage Write API: append, at least once",
                    "upsert": "Storage Write API: one row per interval, by primary key",
                }
            ),
            default="streaming_inserts",
        ),
    ]
    fill_gaps: Annotated[
        bool,
        Parameter(
            type="BOOLEAN",
            group=_TARGET,
            label="View without gaps",
            help="Create the view OUTPUT_TABLE_filled, which has a row for every interval of the last 30 days and "
            "carries values forward for up to 20 intervals.",
            value_type=BOOLEAN,
            default="false",
            shown_when=("window", ("fixed", "hopping")),
        ),
    ]
    dead_letter_table: Annotated[
        TableId | None,
        Parameter(
            type="BIGQUERY_TABLE",
            group=_TARGET,
            label="Dead-letter table",
            help="Table for what cannot become a row. Default: the name of the output table with _dead_letters "
            "appended.",
            value_type=TABLE,
        ),
    ]
    dead_letter_topic: Annotated[
        str | None,
        Parameter(
            type="PUBSUB_TOPIC",
            group=_TARGET,
            label="Dead-letter topic",
            help="Topic to publish dead letters to as well: the payload as data, the other columns as attributes.",
            value_type=pubsub_path("topic"),
        ),
    ]
    keep_attributes: Annotated[
        bool,
        Parameter(
            type="BOOLEAN",
            group=_TARGET,
            label="Keep message attributes",
            help="Keep the attributes and ids of messages in dead letters. Costs CPU for every message.",
            value_type=BOOLEAN,
            default="false",
        ),
    ]
    check_before_launch: Annotated[
        bool,
        Parameter(
            type="BOOLEAN",
            group=_TARGET,
            label="Check before launch",
            help="Check topics, subscription, permissions and tables before the job starts, and create missing "
            "tables. If false, nothing is checked or created, and all tables must exist.",
            value_type=BOOLEAN,
            default="true",
        ),
    ]


# Each parameter by its name, in the order of the form.
PARAMETERS: dict[str, Parameter] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Parameters, include_extras=True).items()
}
