"""What the parameters of a job must satisfy together.

Each rule is a function that returns None, or one line that says what is wrong and how to fix it.
"""

import itertools
import math
import time
from collections.abc import Callable
from datetime import timedelta

from pipeline.aggregate.sums import SECOND
from pipeline.decode.paths import Path, PathError, parse_path
from pipeline.launch import one_line
from pipeline.launch.job import Job
from pipeline.launch.views import FILLED
from pipeline.timestamps import rfc3339

# Hopping intervals that hold one reading: as many as in a day with a hop of a minute. Each open interval is state, and
# costs CPU for each pane.
_MOST_OVERLAPS = 1_440
# Characters of a table's name, and of a column's:
# https://cloud.google.com/bigquery/docs/tables#table_naming, https://cloud.google.com/bigquery/docs/schemas#column_names
_LONGEST_TABLE, _LONGEST_COLUMN = 1_024, 300


def broken(job: Job) -> str | None:
    """Return the error of the first rule that the job breaks, one line; None if it breaks none."""
    errors = (rule(job) for rule in RULES)
    return next((error for error in errors if error), None)


def feedback(job: Job, topic: str | None, flag: str) -> str | None:
    """Return an error, one line, if the job publishes to `topic`, which it reads as `flag` says; otherwise None."""
    outputs = {
        "--dead_letter_topic": (job.dead_letter_topic, "the job would read its own dead letters in an endless loop"),
        "--silence_topic": (job.silence_topic, "the job would read silences as if they were readings"),
    }
    for output, (published_to, harm) in outputs.items():
        if topic and topic == published_to:
            return f"{output}={one_line.value(topic)} is the topic that {flag} reads: {harm}; name another topic"
    return None


def _one_input(job: Job) -> str | None:
    if bool(job.input_subscription) != bool(job.input_topic):
        return None
    given = "both are" if job.input_topic else "neither is"
    return f"give exactly one of --input_subscription and --input_topic; {given} given"


def _sensor_paths_can_be_parsed(job: Job) -> str | None:
    for column, place in job.sensors.places.items():
        if not job.sensor_name:
            try:
                parse_path(place)
            except PathError as error:
                return f"--sensors={one_line.value(f'{column}={place}')}: {error}"
    return None


def _mapping_fits_together(job: Job) -> str | None:
    for name, problem in job.mapping.problems():
        value = getattr(job, name)
        text = value.text if isinstance(value, Path) else ",".join(value) if isinstance(value, tuple) else value
        return f"--{name}={one_line.value(text)}: {one_line.reason(problem)}"
    return None


def _silence_topic_needs_silence_after(job: Job) -> str | None:
    if job.silence_topic and not job.silence_after:
        return "--silence_topic requires --silence_after, the length of a silence, such as 5m"
    return None


def _sessions_have_no_gaps(job: Job) -> str | None:
    if job.fill_gaps and job.window == "session":
        return "--fill_gaps=true: sessions have no intervals to fill; use --window=fixed, or remove --fill_gaps"
    return None


def _rows_since_has_passed(job: Job) -> str | None:
    now = int(time.time() * SECOND)
    if job.rows_since is None or job.rows_since <= now:
        return None
    ahead = timedelta(seconds=math.ceil((job.rows_since - now) / SECOND))
    return (
        f"--rows_since={rfc3339(job.rows_since)}: this is {ahead} (h:mm:ss) in the future, and no row would be written "
        "until then; give a time in the past"
    )


def _columns_are_short(job: Job) -> str | None:
    for column in job.sensor_columns:
        if len(column) > _LONGEST_COLUMN:
            return (
                f"--statistics: {one_line.value(column)} would be longer than {_LONGEST_COLUMN} characters; rename the "
                "sensor"
            )
    return None


def _columns_are_distinct(job: Job) -> str | None:
    sensor_of: dict[str, str] = {}
    for sensor in job.sensors:
        for column, _ in job.statistics.columns(sensor):
            other = sensor_of.setdefault(column.lower(), sensor)
            if other != sensor:
                return (
                    f"--statistics: {one_line.value(column)} would be a column of {one_line.value(other)} and of "
                    f"{one_line.value(sensor)}; rename one of these sensors, or remove the statistic"
                )
    return None


def _rows_differ_from_retractions(job: Job) -> str | None:
    if (job.revise or job.upsert) and job.statistics.names == ("stddev",):
        return (
            "--statistics=stddev: one reading has no standard deviation, and with on_late=revise or "
            "write_method=upsert a row without values retracts the earlier row; add count"
        )
    return None


def _hop_divides_interval(job: Job) -> str | None:
    if job.window != "hopping":
        unused = f"--hop={job.hop}s: only hopping windows have a hop; add --window=hopping, or remove --hop"
        return unused if job.hop else None
    if not job.hop:
        return "--window=hopping requires --hop, the time between two rows, such as --hop=5s"
    if job.interval % job.hop:
        return f"--hop={job.hop}s: --interval={job.interval}s is not a multiple of it; choose one that is"
    overlaps = job.interval // job.hop
    if overlaps > _MOST_OVERLAPS:
        return (
            f"--hop={job.hop}s: each reading would be in {overlaps:,} rows, and at most {_MOST_OVERLAPS:,} are "
            "allowed; choose a longer --hop or a shorter --interval"
        )
    return None


def _table_names_are_short(job: Job) -> str | None:
    for name, table_id in job.named_tables.items():
        if len(table_id.table) > _LONGEST_TABLE:
            return (
                f"--output_table: {name} would be {one_line.value(table_id.table)}, and a table name in BigQuery has "
                f"at most {_LONGEST_TABLE:,} characters; choose a shorter one"
            )
    return None


def _tables_are_distinct(job: Job) -> str | None:
    for (name, table_id), (other_name, other) in itertools.combinations(job.named_tables.items(), 2):
        if table_id == other:
            return f"{one_line.value(str(table_id))} is both {name} and {other_name}; name another table"
    return None


def _no_column_is_named_filled(job: Job) -> str | None:
    if job.fill_gaps and FILLED.lower() in {column.lower() for column in job.sensor_columns}:
        return f"--fill_gaps=true: the view adds a column {FILLED}; rename the sensor"
    return None


def _input_is_no_output(job: Job) -> str | None:
    return feedback(job, job.input_topic, "--input_topic")


RULES: tuple[Callable[[Job], str | None], ...] = (
    _one_input,
    _sensor_paths_can_be_parsed,
    _mapping_fits_together,
    _silence_topic_needs_silence_after,
    _sessions_have_no_gaps,
    _rows_since_has_passed,
    _columns_are_short,
    _columns_are_distinct,
    _rows_differ_from_retractions,
    _hop_divides_interval,
    _table_names_are_short,
    _tables_are_distinct,
    _no_column_is_named_filled,
    _input_is_no_output,
)
