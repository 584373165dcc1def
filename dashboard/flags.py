"""The command line of `python -m dashboard`."""

import argparse
import os
import re
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from dashboard.tables import TableName

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "M": 10**6, "G": 10**9, "T": 10**12}


class Parser(argparse.ArgumentParser):
    """argparse, but with one line on stderr in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the flags (default: this process's); a wrong one, or a port that is taken, ends it with exit code 2."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    flags.dead_letters = flags.dead_letters or replace(flags.table, table=f"{flags.table.table}_dead_letters")
    with socket.socket() as probe:
        # As servers do: a port is not in use because a connection to it was closed a moment ago.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((flags.host, flags.port))
        except OSError as error:
            parser.error(f"cannot listen on {flags.host}:{flags.port} ({error.strerror}); pick another with --port")
    return flags


def _parser() -> Parser:
    parser = Parser(
        prog="python -m dashboard",
        description="A live page on the tables of rows and dead letters.",
        allow_abbrev=False,
    )
    table = "PROJECT:DATASET.TABLE"
    parser.add_argument("--table", type=_table, required=True, metavar=table, help="the rows")
    parser.add_argument("--dead-letters", type=_table, metavar=table, help="default: TABLE_dead_letters")
    parser.add_argument("--readings", type=_table, metavar=table, help="messages, kept by a BigQuery subscription")
    parser.add_argument("--balance", type=Path, metavar="FILE", help="counts that BigQuery does not know, as JSON")
    parser.add_argument("--span", type=_time, default="1h", help="how far to look back (default: %(default)s)")
    parser.add_argument("--refresh", type=_time, default="10s", help="between looks (default: %(default)s)")
    parser.add_argument("--max-bytes", type=_size, default="1G", help="refuse a query of more (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT") or "8080", help="default: PORT, or 8080")
    return parser


def _table(text: str) -> TableName:
    try:
        return TableName.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _time(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write a whole number with its unit: 10s, 15m, 1h, 7d"
        )
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,11})([MGT]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write bytes, or with a unit: 500M, 1G")
    return int(match[1]) * _BYTES[match[2]]


def _port(text: str) -> int:
    if re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 1 to 65535")
