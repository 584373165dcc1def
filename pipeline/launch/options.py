"""The command line: read by the parameters' forms, and checked as a whole."""

import argparse
import difflib
import itertools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)

from pipeline.aggregate.statistics import Statistics
from pipeline.aggregate.sums import SECOND
from pipeline.dead_letters import rfc3339
from pipeline.errors import SensorStreamError
from pipeline.launch import one_line
from pipeline.launch.parameters import PARAMETERS, Parameter
from pipeline.sinks.bigquery import TableId
from pipeline.windows.fixed import FixedIntervals
from pipeline.windows.hopping import PanedIntervals, pane_length
from pipeline.windows.session import SessionIntervals

# The plain DirectRunner would try to download another runner first; this one streams with what pip installed.
LOCAL_RUNNER = "BundleBasedDirectRunner"

# Set in the template image to the image's own name. Workers run it; by default they would run Beam's, without our code.
IMAGE_VARIABLE = "SENSOR_STREAM_IMAGE"

# Intervals that hold a reading: a row every minute over the last day. Each is kept open, and costs work for each pane.
_MOST_OVERLAPS = 1_440
# Characters of a table's name, and of a column's:
# https://cloud.google.com/bigquery/docs/tables#table_naming, https://cloud.google.com/bigquery/docs/schemas#column_names
_LONGEST_TABLE, _LONGEST_COLUMN = 1_024, 300
# Runners that hand the job to the Dataflow service.
_SERVICE_RUNNERS = frozenset(["DataflowRunner", "TestDataflowRunner"])


class UsageError(SensorStreamError):
    """A parameter is wrong; the message is one line that says what, and how to fix it."""


@dataclass(frozen=True)
class Job:
    """The parameters, read and checked. Durations are seconds, times microseconds since the epoch; None: not given."""

    input_subscription: str | None
    input_topic: str | None
    timestamp_attribute: str | None
    id_attribute: str | None
    output_table: TableId | None
    write_method: str
    dead_letter_table: TableId | None
    dead_letter_topic: str | None
    sensors: tuple[str, ...]
    statistics: Statistics
    group_by_device: bool
    window: str
    interval: int
    hop: int | None
    session_gap: int
    grace_period: int
    allowed_lateness: int
    on_late: str
    silence_after: int | None
    silence_topic: str | None
    fill_gaps: bool
    rows_since: int | None
    max_future_skew: int
    keep_attributes: bool
    check_before_launch: bool

    @property
    def intervals(self) -> FixedIntervals | SessionIntervals:
        """How event time is cut into intervals, and what becomes of late readings."""
        late = self.grace_period, self.allowed_lateness, self.revise
        kept = self.statistics, self.group_by_device
        if self.window == "session":
            return SessionIntervals(self.session_gap, *late, *kept)
        hop = self.hop or self.interval
        pane = pane_length(hop)
        if pane < self.interval:
            return PanedIntervals(self.interval, *late, *kept, self.max_future_skew, hop=hop, pane=pane)
        return FixedIntervals(self.interval, *late, *kept, self.max_future_skew)

    @property
    def revise(self) -> bool:
        """Whether late readings change rows that are already written."""
        return self.on_late == "revise"

    @property
    def silence_table(self) -> TableId | None:
        """Where silences go, if they are watched for and rows go to a table."""
        rows = self.output_table
        return rows.with_suffix("_silences") if rows and self.silence_after else None

    @property
    def latest_view(self) -> TableId | None:
        """The view of the newest revisions, if rows of a table have several."""
        rows = self.output_table
        return rows.with_suffix("_latest") if rows and self.revisions_in_table else None

    @property
    def filled_view(self) -> TableId | None:
        """The view without gaps, if it is asked for and rows go to a table."""
        rows = self.output_table
        return rows.with_suffix("_filled") if rows and self.fill_gaps else None

    @property
    def named_tables(self) -> dict[str, TableId]:
        """Every table and view that the job writes to or creates, by what it is to the user."""
        named = {
            "--output_table": self.output_table,
            "--dead_letter_table": self.dead_letter_table,
            "the table of silences": self.silence_table,
            "the view of the newest revisions": self.latest_view,
            "the view without gaps": self.filled_view,
        }
        return {name: table_id for name, table_id in named.items() if table_id}

    def feedback_error(self, topic: str | None, flag: str) -> str | None:
        """Return why the job must not read this topic, which `flag` names: it publishes to it; None if it may."""
        if topic and topic == self.dead_letter_topic:
            came_back = "--dead_letter_topic", "dead letters would come back for ever"
        elif topic and topic == self.silence_topic:
            came_back = "--silence_topic", "silences would be taken for readings"
        else:
            return None
        ours, harm = came_back
        return f"{ours}={one_line.value(topic)} is the topic that {flag} reads: {harm}; name another topic"

    @property
    def sensor_columns(self) -> list[str]:
        """The columns of all sensors, in table order."""
        return [column for sensor in self.sensors for column, _ in self.statistics.columns(sensor)]

    @property
    def upsert(self) -> bool:
        """Whether a row takes the place of the one with its key."""
        return self.write_method == "upsert"

    @property
    def revisions_in_table(self) -> bool:
        """Whether the revisions of a row are all in the table, side by side."""
        return self.revise and not self.upsert


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
      UsageError: a parameter or a flag of Beam is wrong, or looks like one of ours misspelt.
    """
    parser = _Parser(prog="python -m pipeline.main", allow_abbrev=False, epilog="Any flag of Apache Beam as well.")
    SensorStreamOptions._add_argparse_args(parser)
    ours, _ = parser.parse_known_args(argv)
    _refuse_misspelt(_unknown_flags(argv))
    job = _check({parameter.name: _read(parameter, getattr(ours, parameter.name)) for parameter in PARAMETERS})
    # The code is an installed package, so there is no main session to ship to the workers.
    beam_options = PipelineOptions(argv, streaming=True, save_main_session=False)
    _refuse_at_least_once(beam_options)
    standard = beam_options.view_as(StandardOptions)
    standard.runner = _runner(standard.runner or LOCAL_RUNNER)
    if runs_on_dataflow(beam_options):
        _check_required(job)
    workers = beam_options.view_as(WorkerOptions)
    workers.sdk_container_image = workers.sdk_container_image or os.environ.get(IMAGE_VARIABLE)
    return job, beam_options


def runs_on_dataflow(beam_options: PipelineOptions) -> bool:
    """Return whether the options that `parse` returned name a runner of the Dataflow service."""
    return beam_options.view_as(StandardOptions).runner in _SERVICE_RUNNERS


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(one_line.reason(message).removeprefix("argument "))


def _unknown_flags(argv: Sequence[str]) -> list[str]:
    """Return the arguments that neither we nor Beam knows; raises UsageError for a wrong value of a flag of Beam."""
    found: list[argparse.ArgumentParser] = []
    # Beam offers its parser, with every option of every runner, to whoever wants to add to it.
    PipelineOptions([]).get_all_options(add_extra_args_fn=found.append)
    [parser] = found
    parser.exit_on_error = False
    try:
        return parser.parse_known_args(argv)[1]
    except argparse.ArgumentError as error:
        raise UsageError(one_line.reason(error).removeprefix("argument ")) from None
    except ValueError as error:
        raise UsageError(f"a flag of Apache Beam has a wrong value: {one_line.reason(error)}") from None


def _runner(name: str) -> str:
    """Return the name of the runner's class, by whichever of the spellings that Beam takes it was given."""
    module, _, short = name.rpartition(".")
    for known in StandardOptions.KNOWN_RUNNER_NAMES if module.startswith("apache_beam") or not module else ():
        if short.lower() in (known.lower(), known.lower().removesuffix("runner")):
            return known
    if not module:
        known_names = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
        raise UsageError(f"--runner={one_line.value(name)}: expected one of {known_names}")
    return name


def _read(parameter: Parameter, text: str) -> Any:
    # The launcher passes parameters left blank in the form as empty text.
    text = text or parameter.default
    if not text:
        return None
    try:
        return parameter.value_type.read(text)
    except ValueError as error:
        raise UsageError(f"--{parameter.name}={one_line.value(text)}: {error}") from None


def _check(values: dict[str, Any]) -> Job:
    if bool(values["input_subscription"]) == bool(values["input_topic"]):
        given = "both are" if values["input_topic"] else "neither is"
        raise UsageError(f"give exactly one of --input_subscription and --input_topic; {given} given")
    if values["output_table"] and not values["dead_letter_table"]:
        values["dead_letter_table"] = values["output_table"].with_suffix("_dead_letters")
    if values["silence_topic"] and not values["silence_after"]:
        raise UsageError("--silence_topic needs --silence_after, which says how long a silence is, such as 5m")
    if values["fill_gaps"] and values["window"] == "session":
        raise UsageError("--fill_gaps=true: sessions have no intervals to fill; use --window=fixed, or leave it out")
    _check_rows_since(values["rows_since"])
    _check_columns(values["sensors"], values["statistics"])
    replaced = values["on_late"] == "revise" or values["write_method"] == "upsert"
    if replaced and values["statistics"].names == ("stddev",):
        raise UsageError(
            "--statistics=stddev: one reading has no deviation, and with on_late=revise or write_method=upsert a row "
            "without any value takes back the one before it; ask for count as well"
        )
    _check_hop(values["window"], values["interval"], values["hop"])
    job = Job(**values)
    _check_tables(job)
    feedback = job.feedback_error(job.input_topic, "--input_topic")
    if feedback:
        raise UsageError(feedback)
    return job


def _check_rows_since(micros: int | None) -> None:
    now = int(time.time() * SECOND)
    if micros is not None and micros > now:
        ahead = timedelta(seconds=math.ceil((micros - now) / SECOND))
        raise UsageError(
            f"--rows_since={rfc3339(micros)}: this is {ahead} (h:mm:ss) in the future, and no row would be written "
            "until then; give a time that has passed"
        )


def _check_tables(job: Job) -> None:
    tables = job.named_tables
    for name, table_id in tables.items():
        if len(table_id.table) > _LONGEST_TABLE:
            raise UsageError(
                f"--output_table: {name} would be {one_line.value(table_id.table)}, and BigQuery's names have at most "
                f"{_LONGEST_TABLE:,} characters; choose a shorter one"
            )
    for (name, table_id), (other_name, other) in itertools.combinations(tables.items(), 2):
        if table_id == other:
            raise UsageError(f"{one_line.value(str(table_id))} is both {name} and {other_name}; name another table")
    if job.fill_gaps and "filled" in {column.lower() for column in job.sensor_columns}:
        raise UsageError("--fill_gaps=true: the view has a column Filled of its own; rename the sensor")


def _check_columns(sensors: Sequence[str], statistics: Statistics) -> None:
    taken: dict[str, str] = {}
    for sensor in sensors:
        for column, _ in statistics.columns(sensor):
            if len(column) > _LONGEST_COLUMN:
                raise UsageError(
                    f"--statistics: {one_line.value(column)} would be longer than {_LONGEST_COLUMN} characters; rename "
                    "the sensor"
                )
            if column.lower() in taken:
                raise UsageError(
                    f"--statistics: {one_line.value(column)} would be a column of "
                    f"{one_line.value(taken[column.lower()])} and of {one_line.value(sensor)}; rename one of these "
                    "sensors, or leave the statistic out"
                )
            taken[column.lower()] = sensor


def _check_hop(window: str, interval: int, hop: int | None) -> None:
    if window != "hopping":
        if hop:
            raise UsageError(f"--hop={hop}s: only hopping windows hop; give --window=hopping too, or leave it out")
    elif not hop:
        raise UsageError("--window=hopping needs --hop, how often a row is made, such as --hop=5s")
    elif interval % hop:
        raise UsageError(f"--hop={hop}s: --interval={interval}s is not a multiple of it; make it one")
    elif interval // hop > _MOST_OVERLAPS:
        raise UsageError(
            f"--hop={hop}s: each reading would be in {interval // hop:,} rows, of at most {_MOST_OVERLAPS:,}; make it "
            f"longer, or --interval shorter"
        )


def _check_required(job: Job) -> None:
    for parameter in PARAMETERS:
        if parameter.required and getattr(job, parameter.name) is None:
            raise UsageError(f"--{parameter.name} is missing; only a local run may go without")


def _refuse_at_least_once(beam_options: PipelineOptions) -> None:
    # A service option; a template's --additional-experiments arrive as experiments, which the service takes as well:
    # https://cloud.google.com/dataflow/docs/guides/streaming-modes
    service_options = beam_options.view_as(GoogleCloudOptions).dataflow_service_options or []
    experiments = beam_options.view_as(DebugOptions).experiments or []
    for option in (*service_options, *experiments):
        if option.partition("=")[0].strip().lower() == "streaming_mode_at_least_once":
            raise UsageError(
                f"{option}: Dataflow may then process a message twice, and its readings would count twice; leave it "
                f"out, for exactly-once mode"
            )


def _refuse_misspelt(unknown: Sequence[str]) -> None:
    names = [parameter.name for parameter in PARAMETERS]
    for before, argument in itertools.pairwise(["", *unknown]):
        # As in Beam, `--unknown value` is a flag with its value.
        is_value = before.startswith("--") and "=" not in before and not argument.startswith("-")
        if is_value or not (argument.startswith("-") or "=" in argument):
            continue
        name = argument.split("=")[0].strip("-").replace("-", "_").lower()
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
        close = close or [known for known in names if name and known.startswith(name)]
        if close:
            raise UsageError(f"{one_line.value(argument)}: no such parameter; did you mean --{close[0]}?")
