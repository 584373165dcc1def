"""The command line of `python -m dashboard`."""

import argparse
import os
import re
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dashboard.tables import STATISTICS
from pipeline.launch import one_line
from pipeline.sinks.bigquery import PROJECT, TableId

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=3650)
_BYTES = {"": 1, "M": 10**6, "G": 10**9, "T": 10**12}
_MOST_BYTES = 2**63 - 1


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags (default: those of this process); a wrong flag or a port in use ends it with exit code 2."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    flags.dead_letters = flags.dead_letters or replace(flags.table, table=f"{flags.table.table}_dead_letters")
    if flags.statistics and not flags.sensors:
        parser.error("--statistics needs --sensors; set both to the job's values")
    flags.statistics = flags.statistics or ("mean",)
    try:
        _try_to_listen(flags.host, flags.port)
    except OSError as error:
        parser.error(f"cannot listen on {flags.host}:{flags.port} ({error.strerror}); choose another with --port")
    return flags


def _try_to_listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: without it, a port counts as in use for a while after its connections were closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _parser() -> one_line.Parser:
    parser = one_line.Parser(
        prog="python -m dashboard",
        description="A live page on the tables of rows and dead letters.",
        allow_abbrev=False,
    )
    table = "PROJECT:DATASET.TABLE"
    parser.add_argument("--table", type=_table, required=True, metavar=table, help="the table of rows")
    parser.add_argument("--dead-letters", type=_table, metavar=table, help="default: TABLE_dead_letters")
    parser.add_argument(
        "--readings", type=_table, metavar=table, help="a table of messages that a BigQuery subscription writes"
    )
    parser.add_argument(
        "--sensors",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="the job's sensors (default: every FLOAT column)",
    )
    parser.add_argument("--statistics", type=_statistics, metavar="NAME,...", help="the job's (default: mean)")
    parser.add_argument(
        "--max-future-skew", type=_time, default="10m", help="the job's, for --readings (default: %(default)s)"
    )
    parser.add_argument("--balance", type=Path, metavar="FILE", help="counts that are not in BigQuery, as JSON")
    parser.add_argument("--span", type=_time, default="1h", help="how much time to show (default: %(default)s)")
    parser.add_argument("--refresh", type=_time, default="10s", help="time between refreshes (default: %(default)s)")
    parser.add_argument(
        "--max-bytes",
        type=_size,
        default="1G",
        help="refuse a query that would be billed for more (default: %(default)s)",
    )
    parser.add_argument(
        "--billing-project",
        type=_project,
        metavar="PROJECT",
        help="runs the queries and is billed, as --project_id of bq (default: that of the table)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT") or "8080", help="default: PORT, or 8080")
    parser.add_argument(
        "--allowed-host",
        type=_host,
        action="append",
        default=[],
        metavar="NAME",
        help="a host name at which browsers may open the page, besides localhost and --host; may be repeated",
    )
    return parser


def _table(text: str) -> TableId:
    try:
        return TableId.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{_quoted(text)}: {error}") from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise argparse.ArgumentTypeError(f"{_quoted(name)} is not the name of a sensor; write them as Temp,AtmP")
    if len({name.lower() for name in names}) < len(names):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} names a sensor twice")
    return names


def _statistics(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in STATISTICS:
            raise argparse.ArgumentTypeError(f"{_quoted(name)} is not one of {', '.join(STATISTICS)}")
    return tuple(dict.fromkeys(names))


def _project(text: str) -> str:
    if not re.fullmatch(PROJECT, text):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a project id, such as my-project")
    return text


def _host(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9._-]+|[0-9A-Fa-f:]+", text):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a host name; write it without scheme and port")
    return text


def _time(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(
            f"{_quoted(text)} is not a time; write a whole number with its unit: 10s, 15m, 1h, 7d"
        )
    time = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    if time > _LONGEST:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is longer than {_LONGEST.days}d")
    return time


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,18})([MGT]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a size; write bytes, or with a unit: 500M, 1G")
    size = int(match[1]) * _BYTES[match[2]]
    if size > _MOST_BYTES:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is more than {_MOST_BYTES} bytes")
    return size


def _quoted(text: str) -> str:
    return f"'{one_line.value(text)}'"


def _port(text: str) -> int:
    if re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a port, a number from 1 to 65535")
