"""The command line: a monthly bill as a table, and a chart of what it depends on."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.cost import prices
from deploy.cost.bill import WRITE_METHODS, Usage, bill, total
from pipeline.launch import one_line
from pipeline.launch.value_types import duration


def main(argv: Sequence[str] | None = None) -> None:
    """Print the bill of a job; a wrong flag ends the process with one line and exit code 2."""
    parser = one_line.Parser(
        prog="python -m deploy.cost",
        description="Estimate the monthly cost of a job at list prices.",
        allow_abbrev=False,
    )
    parser.add_argument("--rate", type=_positive, required=True, help="readings per second, of all devices together")
    parser.add_argument("--devices", type=_positive, default=1, help="devices with their own rows (default 1)")
    parser.add_argument("--interval", type=_seconds, default="15s", help="interval of the template (default 15s)")
    parser.add_argument("--pack", type=_positive, default=1, help="readings per message (default 1)")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="also draw the effect of packing, interval and devices"
    )
    flags = parser.parse_args(argv)
    usage = Usage(flags.rate, flags.devices, flags.interval, flags.pack)
    console = Console()
    console.print(table(usage))
    for price in prices.ALL:
        console.print(
            f"{price.dollars:g} $ per {price.unit}: {price.source} ({price.read})", style="dim", soft_wrap=True
        )
    if flags.chart:
        # Imported here, because matplotlib takes a second to load.
        from deploy.cost.chart import draw  # noqa: PLC0415

        draw(usage, flags.chart)


def table(usage: Usage) -> Table:
    """Return the bill as a table: every part, and the total for each write method."""
    bill_table = Table(title="A month at list prices, us-central1", title_justify="left")
    bill_table.add_column("part", no_wrap=True)
    bill_table.add_column("how much")
    bill_table.add_column("$ a month", justify="right")
    bills = {method: bill(usage, method) for method in WRITE_METHODS}
    *shared, _, storage = bills["streaming_inserts"]
    for part in (*shared, *(parts[-2] for parts in bills.values()), storage):
        bill_table.add_row(part.name, part.amount, f"{part.dollars:,.2f}")
    bill_table.add_section()
    for method, parts in bills.items():
        bill_table.add_row(f"total with {method}", "", f"{total(parts):,.2f}")
    return bill_table


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError("expected a whole number above 0")
    return int(text)


def _seconds(text: str) -> int:
    try:
        return duration(at_least_one=True).read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()
