"""Every parameter of the pipeline, declared once."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.fixed_windows import FixedIntervals
from pipeline.readings import DEVICE, TIMESTAMP
from pipeline.session_windows import SessionIntervals
from pipeline.tables import TableId

# The plain DirectRunner would try to download another runner first; this one streams with what pip installed.
LOCAL_RUNNER = "BundleBasedDirectRunner"


class UsageError(ValueError):
    """A parameter is wrong; the message is one line that says what and how to mend it."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of the template.

    Attributes:
      name: of the flag and of the template parameter.
      type: the template's paramType.
      default: as text; empty means not given.
      help: one line for the form, the README and --help.
      read: turns the text into the value; raises ValueError saying what is expected.
    """

    name: str
    type: str
    default: str
    help: str
    read: Callable[[str], Any]


def _pubsub_path(kind: str) -> Callable[[str], str]:
    # Project ids as Beam's ReadFromPubSub accepts them; names as Pub/Sub does:
    # https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
    path = re.compile(rf"projects/[a-z][-a-z0-9:.]{{4,61}}[a-z0-9]/{kind}s/[A-Za-z][-\w.~+%]{{2,254}}", re.ASCII)

    def read(text: str) -> str:
        if not path.fullmatch(text):
            raise ValueError(f"expected projects/PROJECT/{kind}s/NAME")
        return text

    return read


def _seconds(at_least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        match = re.fullmatch(r"(\d{1,9})([smh])", text, re.ASCII)
        if not match:
            raise ValueError("expected a whole number followed by s, m or h, for example 15s, 5m or 1h")
        seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
        if not at_least <= seconds <= _LONGEST:
            raise ValueError(f"expected between {at_least}s and {_LONGEST // 3600}h")
        return seconds

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected {' or '.join(choices)}")
        return text

    return read


def _boolean(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


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
        if not re.fullmatch(r"[A-Za-z_]\w{0,299}", name, re.ASCII):
            raise ValueError(
                f"{name!r} is not a column name; expected comma-separated names of letters, digits and _, such as "
                "Temp,AtmP"
            )
        if name.upper().startswith(_RESERVED_PREFIXES):
            raise ValueError(f"{name!r} begins as BigQuery's own columns do; rename the sensor")
        if name.lower() in taken:
            raise ValueError(f"{name!r} is taken, by another sensor or by a column of ours; name each sensor once")
        taken.add(name.lower())
    return names


# A year; beyond it a window would outlive any job, and its state with it.
_LONGEST = 366 * 24 * 3600

_RESERVED_PREFIXES = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_")

PARAMETERS = (
    Parameter(
        "input_subscription",
        "PUBSUB_SUBSCRIPTION",
        "",
        "Subscription to read, projects/PROJECT/subscriptions/NAME. Exactly one of subscription and topic.",
        _pubsub_path("subscription"),
    ),
    Parameter(
        "input_topic",
        "PUBSUB_TOPIC",
        "",
        "Topic to read, projects/PROJECT/topics/NAME, through a subscription made for the job.",
        _pubsub_path("topic"),
    ),
    Parameter(
        "timestamp_attribute",
        "TEXT",
        "",
        "Message attribute with the event time (RFC 3339 or epoch milliseconds) that drives the watermark; without it "
        "the publish time does. A reading's own Timestamp always decides its window.",
        _attribute,
    ),
    Parameter(
        "id_attribute",
        "TEXT",
        "",
        "Message attribute that identifies a message; of those with the same one, the first in ten minutes counts.",
        _attribute,
    ),
    Parameter(
        "output_table",
        "BIGQUERY_TABLE",
        "",
        "Table for the rows, project:dataset.table. Without it rows are printed.",
        TableId.parse,
    ),
    Parameter(
        "dead_letter_table",
        "BIGQUERY_TABLE",
        "",
        "Table for what cannot become a row. Default: the output table's name with _dead_letters appended.",
        TableId.parse,
    ),
    Parameter(
        "dead_letter_topic",
        "PUBSUB_TOPIC",
        "",
        "Topic to publish dead letters to as well: the payload as data, the other columns as attributes.",
        _pubsub_path("topic"),
    ),
    Parameter("sensors", "TEXT", "Airtight,AtmP,H2OC,Temp", "Sensor columns, in table order.", _sensors),
    Parameter(
        "group_by_device", "BOOLEAN", "false", "One row per device and interval, with the column Device.", _boolean
    ),
    Parameter(
        "window",
        "ENUM",
        "fixed",
        "fixed: intervals of one length, stamped with their start. session: bursts of readings, stamped with their "
        "end (last reading + session_gap).",
        _one_of("fixed", "session"),
    ),
    Parameter("interval", "TEXT", "15s", "Length of a fixed window, such as 15s, 5m or 1h.", _seconds(at_least=1)),
    Parameter("session_gap", "TEXT", "60s", "Silence that ends a session.", _seconds(at_least=1)),
    Parameter(
        "grace_period",
        "TEXT",
        "5s",
        "How long a window is held open after its end for stragglers.",
        _seconds(at_least=0),
    ),
    Parameter(
        "allowed_lateness",
        "TEXT",
        "1h",
        "How long after that late readings are still accounted for.",
        _seconds(at_least=0),
    ),
    Parameter(
        "on_late",
        "ENUM",
        "dead_letter",
        "What becomes of late readings. dead_letter: rows are final, the late sums go to the dead-letter table. "
        "revise: the whole corrected row is written again, with Revision and WrittenAt; the view OUTPUT_TABLE_latest "
        "shows the newest.",
        _one_of("dead_letter", "revise"),
    ),
    Parameter(
        "max_future_skew",
        "TEXT",
        "10m",
        "A reading further ahead of the clock than this is refused.",
        _seconds(at_least=0),
    ),
    Parameter(
        "keep_attributes",
        "BOOLEAN",
        "false",
        "Keep message attributes and ids in dead letters. Costs CPU for every message.",
        _boolean,
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
        return parameter.read(text)
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


def _refuse_misspelt(flags: Sequence[str]) -> None:
    names = [parameter.name for parameter in PARAMETERS]
    for flag in flags:
        if flag.startswith("-") or "=" in flag:
            name = flag.split("=")[0].strip("-").replace("-", "_").lower()
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
            if close:
                raise UsageError(f"{flag}: no such parameter; did you mean --{close[0]}?")
