"""The command line of `python -m redrive`."""

import argparse
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.launch import one_line, value_types
from pipeline.sinks.bigquery import PROJECT

MESSAGE_STAGES = ("decode", "timestamp", "validate")
ROW_STAGES = ("insert",)
# Stages whose dead letters are not sent, and why.
UNSENT_STAGES = {
    "late": "sums cannot be redriven",
    "average": "sums cannot be redriven",
    "silence": "rows of the table of silences cannot be redriven",
}

DEFAULT_DAYS = 7  # as long as Pub/Sub keeps messages by default
DEFAULT_BYTES_BILLED = 10_000_000_000


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags; ends the program with one line on stderr and exit code 2 if one is wrong."""
    parser = one_line.Parser(
        prog="python -m redrive",
        description="Send dead letters back: messages to a topic, rejected rows to the output table.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    topic = value_types.pubsub_path("topic").read
    flag("--dead_letter_table", required=True, type=_reads(value_types.TABLE.read), help="project:dataset.table")
    flag("--topic", type=_reads(topic), help="the topic to send messages to, projects/PROJECT/topics/NAME")
    flag(
        "--output_table",
        type=_reads(value_types.TABLE.read),
        help="the table to write rejected rows to, project:dataset.table",
    )
    flag("--stage", choices=(*MESSAGE_STAGES, *ROW_STAGES, *UNSENT_STAGES), help="only dead letters of this stage")
    flag("--error", help="only dead letters with this error, such as NotJson")
    flag(
        "--since",
        type=_reads(_time),
        help=f"only dead letters received at this time (RFC 3339) or later (default: {DEFAULT_DAYS} days ago); also "
        "limits what is scanned",
    )
    flag("--until", type=_reads(_time), help="only dead letters received before this time (RFC 3339)")
    flag("--limit", type=_reads(_count), help="send at most this many, oldest first")
    flag(
        "--id_attribute",
        type=_reads(value_types.ATTRIBUTE.read),
        help="the pipeline's id_attribute, if it has one; it is set to the dead letter's id, because the pipeline "
        "would remove a message with the original id as a duplicate, and the readings of one message share that id",
    )
    flag(
        "--timestamp_attribute",
        type=_reads(value_types.ATTRIBUTE.read),
        default="timestamp",
        help="the pipeline's timestamp_attribute; it is set to the event time in the payload if the attributes of the "
        "message were not kept (default: %(default)s)",
    )
    flag(
        "--billing_project",
        type=_reads(_project),
        help="project that runs the queries and is billed for them, as --project_id of bq (default: that of the "
        "dead-letter table)",
    )
    flag(
        "--maximum_bytes_billed",
        type=_reads(_count),
        default=DEFAULT_BYTES_BILLED,
        help="refuse a query that would be billed for more bytes (default: %(default)s)",
    )
    flag("--execute", action="store_true", help="send; without it only print what would be sent")
    flag(
        "--retry_unconfirmed",
        action="store_true",
        help="also send dead letters that a run claimed and, because it crashed, never confirmed; one that was sent "
        "already arrives twice. Do not use it while another run is active, whose claims look the same",
    )
    args = parser.parse_args(argv)
    if args.execute and not (args.topic or args.output_table):
        parser.error("--execute needs --topic, --output_table or both")
    args.since_default = args.since is None
    args.since = args.since or datetime.now(UTC).replace(microsecond=0) - timedelta(days=DEFAULT_DAYS)
    if args.until and args.until <= args.since:
        parser.error(f"--until={args.until.isoformat()} is not after --since, {args.since.isoformat()}")
    return args


def _reads(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `read` with its ValueErrors converted to ArgumentTypeErrors, whose messages argparse shows."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{one_line.value(text)}: {error}") from None

    return reader


def _project(text: str) -> str:
    if not re.fullmatch(PROJECT, text):
        raise ValueError("expected a project id, such as my-project")
    return text


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ValueError("expected a whole number above 0")
    return int(text)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if not time.tzinfo:
        raise ValueError("expected an offset from UTC as well, for example 2026-11-22T13:00:00Z")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time of the years 1 to 9999 in UTC") from None
