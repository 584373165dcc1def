"""The command line: read by the parameters' forms, and checked as a whole."""

import argparse
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions

from pipeline.bigquery import TableId
from pipeline.fixed_windows import FixedIntervals
from pipeline.hopping_windows import HoppingIntervals
from pipeline.parameters import PARAMETERS, Parameter
from pipeline.session_windows import SessionIntervals
from pipeline.statistics import Statistics

# The plain DirectRunner would try to download another runner first; this one streams with what pip installed.
LOCAL_RUNNER = "BundleBasedDirectRunner"

# Set in the template image to the image's own name. Workers run it; by default they would run Beam's, without our code.
IMAGE_VARIABLE = "SENSOR_STREAM_IMAGE"

# Intervals that hold a reading: a row every minute over the last day. Each is kept open, and costs work for each pane.
_MOST_OVERLAPS = 1_440
# What the view without gaps names besides the sensors, in lower case; see views.filled_query.
_FILLED_NAMES = frozenset(["filled", "slot", "next", "missing", "own", "spread"])


class UsageError(ValueError):
    """A parameter is wrong; the message is one line that says what and how to mend it."""


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
        if self.hop and self.hop < self.interval:
            return HoppingIntervals(self.interval, *late, *kept, hop=self.hop)
        return FixedIntervals(self.interval, *late, *kept)

    @property
    def revise(self) -> bool:
        """Whether late readings change rows that are already written."""
        return self.on_late == "revise"

    @property
    def silence_table(self) -> TableId | None:
        """Where silences go, if they are watched for and rows go to a table."""
        rows = self.output_table
        return replace(rows, table=f"{rows.table}_silences") if rows and self.silence_after else None

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
    if values["silence_topic"] and not values["silence_after"]:
        raise UsageError("--silence_topic needs --silence_after, which says how long a silence is, such as 5m")
    if values["silence_topic"] and values["silence_topic"] == values["input_topic"]:
        raise UsageError("--silence_topic is the input topic too, where silences would be taken for readings")
    if values["fill_gaps"] and values["window"] == "session":
        raise UsageError("--fill_gaps=true: sessions have no intervals to fill; use --window=fixed, or leave it out")
    taken = _FILLED_NAMES.intersection(name.lower() for name in values["sensors"])
    if values["fill_gaps"] and taken:
        raise UsageError(f"--fill_gaps=true: the view has a {min(taken)!r} of its own; rename the sensor")
    if rows and rows == letters:
        raise UsageError(f"--dead_letter_table={letters}: is the output table too; name another, or leave it out")
    _check_columns(values["sensors"], values["statistics"])
    replaced = values["on_late"] == "revise" or values["write_method"] == "upsert"
    if replaced and values["statistics"].names == ("stddev",):
        raise UsageError(
            "--statistics=stddev: one reading has no deviation, and with on_late=revise or write_method=upsert a row "
            "without any value takes back the one before it; ask for count as well"
        )
    _check_hop(values["window"], values["interval"], values["hop"])
    return Job(**values)


def _check_columns(sensors: Sequence[str], statistics: Statistics) -> None:
    taken: dict[str, str] = {}
    for sensor in sensors:
        for column, _ in statistics.columns(sensor):
            # https://cloud.google.com/bigquery/docs/schemas#column_names
            if len(column) > 300:
                raise UsageError(f"--statistics: {column[:20]}... would be longer than 300 letters; rename the sensor")
            if column.lower() in taken:
                raise UsageError(
                    f"--statistics: {column} would be a column of {taken[column.lower()]} and of {sensor}; rename one "
                    f"of these sensors, or leave the statistic out"
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


def _refuse_misspelt(flags: Sequence[str]) -> None:
    names = [parameter.name for parameter in PARAMETERS]
    for flag in flags:
        if flag.startswith("-") or "=" in flag:
            name = flag.split("=")[0].strip("-").replace("-", "_").lower()
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
            if close:
                raise UsageError(f"{flag}: no such parameter; did you mean --{close[0]}?")
