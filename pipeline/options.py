"""Every parameter of the pipeline, declared once."""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions

from pipeline.bigquery import TableId
from pipeline.fixed_windows import FixedIntervals
from pipeline.readings import DEVICE, TIMESTAMP
from pipeline.session_windows import SessionIntervals

# The plain DirectRunner would try to download another runner first; this one streams with what pip installed.
LOCAL_RUNNER = "BundleBasedDirectRunner"

# Set in the template image to the image's own name. Workers run it; by default they would run Beam's, without our code.
IMAGE_VARIABLE = "SENSOR_STREAM_IMAGE"


class UsageError(ValueError):
    """A parameter is wrong; the message is one line that says what and how to mend it."""


@dataclass(frozen=True)
class Form:
    """How a value is written.

    Attributes:
      pattern: of the whole text, in the part of POSIX extended syntax that Python reads in the same way, so that the
        template's form and `parse` check the very same thing.
      expected: the pattern in words.
      value: makes the value of such a text; raises ValueError for what a pattern cannot say.
      choices: the label of each value, when there are only so many.
    """

    pattern: str
    expected: str
    value: Callable[[str], Any] = str
    choices: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> Any:
        """Return the value, or raise ValueError saying what is expected."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"expected {self.expected}")
        return self.value(text)


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
      shown_when: (another parameter, its value) that this one depends on.
    """

    name: str
    type: str
    group: str
    label: str
    help: str
    form: Form
    default: str = ""
    required: bool = False
    shown_when: tuple[str, str] | None = None


# An id, in an old organisation with its domain before it: example.com:my-project. The lengths are those that Beam's
# ReadFromPubSub accepts; an emulator takes names longer than Google Cloud's thirty characters.
_PROJECT = "([a-z][-a-z0-9]*([.][a-z0-9][-a-z0-9]*)+:)?[a-z][-a-z0-9]{4,61}[a-z0-9]"


def _pubsub_path(kind: str) -> Form:
    # https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
    return Form(f"projects/{_PROJECT}/{kind}s/[A-Za-z][-A-Za-z0-9_.~+%]{{2,254}}", f"projects/PROJECT/{kind}s/NAME")


def _duration(at_least_one: bool) -> Form:
    positive = "[1-9][0-9]{0,8}[smh]"
    if at_least_one:
        return Form(positive, "a whole number above 0 with s, m or h, such as 15s, 5m or 1h", _seconds)
    return Form(f"0[smh]|{positive}", "a whole number with s, m or h, such as 0s, 5m or 1h", _seconds)


def _seconds(text: str) -> int:
    seconds = int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
    if seconds > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST // 3600}h, a year")
    return seconds


def _one_of(choices: Mapping[str, str]) -> Form:
    return Form("|".join(choices), " or ".join(choices), choices=choices)


def _attribute(text: str) -> str:
    # https://cloud.google.com/pubsub/quotas#resource_limits
    if len(text.encode()) > 256:
        raise ValueError("expected an attribute name of at most 256 bytes")
    return text


def _sensors(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    taken = {TIMESTAMP.lower(), DEVICE.lower(), "revision", "writtenat"}
    for name in names:
        # https://cloud.google.com/bigquery/docs/schemas#column_names
        if len(name) > 300:
            raise ValueError("expected names of at most 300 letters")
        if name.upper().startswith(_RESERVED_PREFIXES):
            raise ValueError(f"{name!r} begins as BigQuery's own columns do; rename the sensor")
        if name.lower() in taken:
            raise ValueError(f"{name!r} is taken, by another sensor or by a column of ours; name each sensor once")
        taken.add(name.lower())
    return names


# A year; beyond it a window would outlive any job, and its state with it.
_LONGEST = 366 * 24 * 3600

_RESERVED_PREFIXES = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_")

_BOOLEAN = Form("true|false", "true or false", lambda text: text == "true")
_ATTRIBUTE = Form("[^ \"']+", "an attribute's name, without blanks or quotes", _attribute)
_COLUMN = " *[A-Za-z_][A-Za-z0-9_]* *"
_SENSORS = Form(
    f"{_COLUMN}(,{_COLUMN})*",
    "comma-separated column names of letters A to Z, digits and _, such as Temp,AtmP",
    _sensors,
)
_TABLE = Form(
    f"{_PROJECT}[:.][A-Za-z0-9_]+[.][-A-Za-z0-9_]+",
    "project:dataset.table, for example my-project:sensors.readings",
    TableId.parse,
)

_SOURCE, _READINGS, _WINDOWS, _TARGET = "Source", "Readings", "Windows", "Target"

PARAMETERS = (
    Parameter(
        name="input_subscription",
        type="PUBSUB_SUBSCRIPTION",
        group=_SOURCE,
        label="Pub/Sub subscription",
        help="Subscription to read, projects/PROJECT/subscriptions/NAME. Give either this or a topic, not both.",
        form=_pubsub_path("subscription"),
    ),
    Parameter(
        name="input_topic",
        type="PUBSUB_TOPIC",
        group=_SOURCE,
        label="Pub/Sub topic",
        help="Topic to read, projects/PROJECT/topics/NAME, through a subscription made for the job. Give either this "
        "or a subscription, not both.",
        form=_pubsub_path("topic"),
    ),
    Parameter(
        name="timestamp_attribute",
        type="TEXT",
        group=_SOURCE,
        label="Timestamp attribute",
        help="Message attribute with the event time (RFC 3339 or epoch milliseconds) that drives the watermark; "
        "without it the publish time does. A reading's own Timestamp always decides its window.",
        form=_ATTRIBUTE,
    ),
    Parameter(
        name="id_attribute",
        type="TEXT",
        group=_SOURCE,
        label="Id attribute",
        help="Message attribute that identifies a message; of those with the same one, the first in ten "
        "minutes counts.",
        form=_ATTRIBUTE,
    ),
    Parameter(
        name="sensors",
        type="TEXT",
        group=_READINGS,
        label="Sensors",
        help="Sensor columns, comma-separated, in table order.",
        form=_SENSORS,
        default="Airtight,AtmP,H2OC,Temp",
    ),
    Parameter(
        name="group_by_device",
        type="BOOLEAN",
        group=_READINGS,
        label="One row per device",
        help="One row per device and interval, with the column Device.",
        form=_BOOLEAN,
        default="false",
    ),
    Parameter(
        name="max_future_skew",
        type="TEXT",
        group=_READINGS,
        label="Largest lead over the clock",
        help="A reading further ahead of the clock than this is refused.",
        form=_duration(at_least_one=False),
        default="10m",
    ),
    Parameter(
        name="window",
        type="ENUM",
        group=_WINDOWS,
        label="Kind of window",
        help="fixed: intervals of one length, stamped with their start. session: bursts of readings, stamped with "
        "their end (last reading + session_gap).",
        form=_one_of({"fixed": "Fixed: intervals of one length", "session": "Session: bursts of readings"}),
        default="fixed",
    ),
    Parameter(
        name="interval",
        type="TEXT",
        group=_WINDOWS,
        label="Interval",
        help="Length of a fixed window, such as 15s, 5m or 1h.",
        form=_duration(at_least_one=True),
        default="15s",
        shown_when=("window", "fixed"),
    ),
    Parameter(
        name="session_gap",
        type="TEXT",
        group=_WINDOWS,
        label="Session gap",
        help="Silence that ends a session.",
        form=_duration(at_least_one=True),
        default="60s",
        shown_when=("window", "session"),
    ),
    Parameter(
        name="grace_period",
        type="TEXT",
        group=_WINDOWS,
        label="Grace period",
        help="How long a window is held open after its end for stragglers.",
        form=_duration(at_least_one=False),
        default="5s",
    ),
    Parameter(
        name="allowed_lateness",
        type="TEXT",
        group=_WINDOWS,
        label="Allowed lateness",
        help="How long after that late readings are still accounted for.",
        form=_duration(at_least_one=False),
        default="1h",
    ),
    Parameter(
        name="on_late",
        type="ENUM",
        group=_WINDOWS,
        label="Late readings",
        help="What becomes of late readings. dead_letter: rows are final, the late sums go to the dead-letter table. "
        "revise: the whole corrected row is written again, with Revision and WrittenAt; the view OUTPUT_TABLE_latest "
        "shows the newest.",
        form=_one_of({"dead_letter": "Dead letter: rows are final", "revise": "Revise: write the corrected row again"}),
        default="dead_letter",
    ),
    Parameter(
        name="output_table",
        type="BIGQUERY_TABLE",
        group=_TARGET,
        label="Table of rows",
        help="Table for the rows, project:dataset.table. Required on Dataflow; a local run without it prints rows.",
        form=_TABLE,
        required=True,
    ),
    Parameter(
        name="dead_letter_table",
        type="BIGQUERY_TABLE",
        group=_TARGET,
        label="Table of dead letters",
        help="Table for what cannot become a row. Default: the output table's name with _dead_letters appended.",
        form=_TABLE,
    ),
    Parameter(
        name="dead_letter_topic",
        type="PUBSUB_TOPIC",
        group=_TARGET,
        label="Topic of dead letters",
        help="Topic to publish dead letters to as well: the payload as data, the other columns as attributes.",
        form=_pubsub_path("topic"),
    ),
    Parameter(
        name="keep_attributes",
        type="BOOLEAN",
        group=_TARGET,
        label="Keep message attributes",
        help="Keep message attributes and ids in dead letters. Costs CPU for every message.",
        form=_BOOLEAN,
        default="false",
    ),
    Parameter(
        name="check_before_launch",
        type="BOOLEAN",
        group=_TARGET,
        label="Check before launch",
        help="Check topics, subscription, permissions and tables before the job starts, and create missing tables. "
        "With false nothing is looked up or created; both tables must be there.",
        form=_BOOLEAN,
        default="true",
    ),
)


@dataclass(frozen=True)
class Job:
    """The parameters, read and checked. Durations are seconds; None means not given."""

    input_subscription: str | None
    input_topic: str | None
    timestamp_attribute: str | None
    id_attribute: str | None
    output_table: TableId | None
    dead_letter_table: TableId | None
    dead_letter_topic: str | None
    sensors: tuple[str, ...]
    group_by_device: bool
    window: str
    interval: int
    session_gap: int
    grace_period: int
    allowed_lateness: int
    on_late: str
    max_future_skew: int
    keep_attributes: bool
    check_before_launch: bool

    @property
    def intervals(self) -> FixedIntervals | SessionIntervals:
        """How event time is cut into intervals, and what becomes of late readings."""
        if self.window == "session":
            return SessionIntervals(self.session_gap, self.grace_period, self.allowed_lateness, self.revise)
        return FixedIntervals(self.interval, self.grace_period, self.allowed_lateness, self.revise)

    @property
    def revise(self) -> bool:
        """Whether late readings change rows that are already written."""
        return self.on_late == "revise"


class SensorStreamOptions(PipelineOptions):
    """Makes the parameters known to Beam, so that the Dataflow job page shows them."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        for parameter in PARAMETERS:
            default = f" (default: {parameter.default})" if parameter.default else ""
            parser.add_argument(f"--{parameter.name}", default=parameter.default, help=parameter.help + default)


def parse(argv: Sequence[str]) -> tuple[Job, PipelineOptions]:
    """Read the command line: our parameters, and the rest for Beam.

    Raises:
      UsageError: a parameter is wrong, or looks like one of ours misspelt.
    """
    parser = _Parser(prog="python -m pipeline.main", allow_abbrev=False, epilog="Any flag of Apache Beam as well.")
    SensorStreamOptions._add_argparse_args(parser)
    ours, others = parser.parse_known_args(argv)
    _refuse_misspelt(others)
    job = _check({parameter.name: _read(parameter, getattr(ours, parameter.name)) for parameter in PARAMETERS})
    # The code is an installed package, so there is no main session to ship to the workers.
    beam_options = PipelineOptions([f"--runner={LOCAL_RUNNER}", *argv], streaming=True, save_main_session=False)
    if beam_options.view_as(StandardOptions).runner == "DataflowRunner":
        _check_required(job)
    workers = beam_options.view_as(WorkerOptions)
    workers.sdk_container_image = workers.sdk_container_image or os.environ.get(IMAGE_VARIABLE)
    return job, beam_options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _read(parameter: Parameter, text: str) -> Any:
    # The launcher passes parameters left blank in the form as empty text.
    text = text or parameter.default
    if not text:
        return None
    try:
        return parameter.form.read(text)
    except ValueError as error:
        raise UsageError(f"--{parameter.name}={text}: {error}") from None


def _check(values: dict[str, Any]) -> Job:
    if bool(values["input_subscription"]) == bool(values["input_topic"]):
        given = "both are" if values["input_topic"] else "neither is"
        raise UsageError(f"give exactly one of --input_subscription and --input_topic; {given} given")
    rows, letters = values["output_table"], values["dead_letter_table"]
    if rows and not letters:
        letters = values["dead_letter_table"] = replace(rows, table=f"{rows.table}_dead_letters")
    if values["dead_letter_topic"] and values["dead_letter_topic"] == values["input_topic"]:
        raise UsageError("--dead_letter_topic is the input topic too; dead letters would come back for ever")
    if rows and rows == letters:
        raise UsageError(f"--dead_letter_table={letters}: is the output table too; name another, or leave it out")
    return Job(**values)


def _check_required(job: Job) -> None:
    for parameter in PARAMETERS:
        if parameter.required and getattr(job, parameter.name) is None:
            raise UsageError(f"--{parameter.name} is missing; only a local run may go without")


def _refuse_misspelt(flags: Sequence[str]) -> None:
    names = [parameter.name for parameter in PARAMETERS]
    for flag in flags:
        if flag.startswith("-") or "=" in flag:
            name = flag.split("=")[0].strip("-").replace("-", "_").lower()
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
            if close:
                raise UsageError(f"{flag}: no such parameter; did you mean --{close[0]}?")
