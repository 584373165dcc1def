"""A live page on the pipeline's tables: `python -m dashboard --table=project:dataset.table`."""

import argparse
import os
import re
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from nicegui import Client, app, ui

from dashboard.feed import Feed
from dashboard.page import Page
from dashboard.queries import Source
from dashboard.tables import TableName

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "M": 10**6, "G": 10**9, "T": 10**12}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#3a86d8" stroke-width="2">'
    '<path d="M1 11h4V5h5v3h5"/></svg>'
)


class Parser(argparse.ArgumentParser):
    """argparse, but with one line on stderr in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def main() -> None:
    """Serve the page until SIGINT or SIGTERM."""
    parser = _parser()
    flags = parser.parse_args()
    letters = flags.dead_letters or replace(flags.table, table=f"{flags.table.table}_dead_letters")
    source = Source(flags.table, letters, flags.readings, flags.span, flags.max_bytes)
    with socket.socket() as probe:
        # As servers do: a port is not in use because a connection to it was closed a moment ago.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((flags.host, flags.port))
        except OSError as error:
            parser.error(f"cannot listen on {flags.host}:{flags.port} ({error.strerror}); pick another with --port")
    feed = Feed(source, flags.balance, _watched)

    @ui.page("/")
    def index() -> None:
        Page(feed)

    app.on_connect(feed.look)
    app.timer(flags.refresh.total_seconds(), feed.look)
    print(f"Serving {flags.table} on http://{flags.host}:{flags.port}", flush=True)
    ui.run(
        host=flags.host,
        port=flags.port,
        title=f"{flags.table.table} - Sensor Stream",
        favicon=_ICON,
        dark=None,  # as the browser is
        tailwind=False,
        reload=False,
        show=False,
        show_welcome_message=False,
    )


def _watched() -> bool:
    return any(client.has_socket_connection for client in Client.instances.values())


def _parser() -> Parser:
    parser = Parser(prog="python -m dashboard", description=__doc__, allow_abbrev=False)
    table = "PROJECT:DATASET.TABLE"
    parser.add_argument("--table", type=_table, required=True, metavar=table, help="the rows")
    parser.add_argument("--dead-letters", type=_table, metavar=table, help="default: TABLE_dead_letters")
    parser.add_argument("--readings", type=_table, metavar=table, help="messages, kept by a BigQuery subscription")
    parser.add_argument("--balance", type=Path, metavar="FILE", help="counts that BigQuery does not know, as JSON")
    parser.add_argument("--span", type=_time, default="1h", help="how far to look back (default: %(default)s)")
    parser.add_argument("--refresh", type=_time, default="10s", help="between looks (default: %(default)s)")
    parser.add_argument("--max-bytes", type=_size, default="1G", help="refuse a query of more (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT") or "8080", help="default: PORT, or 8080")
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


if __name__ == "__main__":
    main()
