"""The command line of `python -m redrive`."""

import argparse
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn

from pipeline.bigquery import TableId

MESSAGE_STAGES = ("decode", "timestamp", "validate")
ROW_STAGES = ("insert",)
# Those whose letters stay, and why.
STAYING_STAGES = {
    "late": "sums cannot be redriven",
    "average": "sums cannot be redriven",
    "silence": "its payload is a row of the table of silences",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the flags; ends the program with one line on stderr and exit code 2 if one is wrong."""
    parser = _Parser(
        prog="python -m redrive",
        description="Send dead letters back: messages to a topic, refused rows to the output table.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("--dead_letter_table", required=True, type=_reads(TableId.parse), help="project:dataset.table")
    flag("--topic", type=_reads(_topic), help="where messages go, projects/PROJECT/topics/NAME")
    flag("--output_table", type=_reads(TableId.parse), help="where refused rows go, project:dataset.table")
    flag("--stage", choices=(*MESSAGE_STAGES, *ROW_STAGES, *STAYING_STAGES), help="only letters of this stage")
    flag("--error", help="only letters with this error, such as NotJson")
    flag("--since", type=_reads(_time), help="only letters received at this time (RFC 3339) or later")
    flag("--until", type=_reads(_time), help="only letters received before this time (RFC 3339)")
    flag("--limit", type=int, help="send at most so many, oldest first")
    flag(
        "--id_attribute",
        help="the id_attribute of the pipeline, if it has one: is then set to the dead letter's id, because the "
        "pipeline has seen the original, and the readings of one message share it",
    )
    flag("--execute", action="store_true", help="send; without it only print what would be sent")
    flag(
        "--retry_unconfirmed",
        action="store_true",
        help="also send what a run claimed but did not live to confirm; it may have been sent already and would then "
        "arrive twice. Never while another run is at work, whose claims look the same",
    )
    args = parser.parse_args(argv)
    if args.execute and not (args.topic or args.output_table):
        parser.error("--execute needs --topic, --output_table or both")
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be above 0")
    return args


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def _reads(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `read` so that argparse shows the words of its ValueError."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None

    return reader


def _topic(text: str) -> str:
    # https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
    if not re.fullmatch(r"projects/[a-z][-a-z0-9:.]{4,61}[a-z0-9]/topics/[A-Za-z][-\w.~+%]{2,254}", text, re.ASCII):
        raise ValueError("expected projects/PROJECT/topics/NAME")
    return text


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if not time.tzinfo:
        raise ValueError("expected an offset from UTC as well, for example 2026-11-22T13:00:00Z")
    return time
