"""`python -m deploy.acceptance --project=ID --region=REGION`: run everything once in a real project, then delete it.

It needs gcloud with an account that owns the project, and `gcloud auth application-default login`. Exit code: 0 if
every step passed and nothing is left, else 1.
"""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console

from deploy.acceptance.names import Run
from deploy.acceptance.project import Project, StepError
from deploy.acceptance.report import Result, show
from deploy.acceptance.steps import Steps
from local.stack.processes import ignore_interrupts, interrupt_once, scratch_folder
from pipeline.launch import one_line, preflight


def main(argv: list[str] | None = None) -> int:
    """Run every step and tear down; return the exit code."""
    args = _parse(argv)
    run = Run(args.project, args.region, timedelta(seconds=args.interval), args.rate, args.live)
    console = Console(highlight=False, soft_wrap=True)
    try:
        if not args.dry_run and not os.environ.get("BIGQUERY_EMULATOR_HOST"):
            # Some calls do not go through gcloud. Their credentials are checked before anything is created.
            preflight.check_credentials()
    except preflight.CheckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    project = Project(run, console, args.dry_run, args.pause)
    interrupt_once(patient=True)
    with scratch_folder("acceptance-") as folder:
        results = _run_steps(Steps(project, folder), console)
    ignore_interrupts()
    console.print("Tear down", style="bold")
    left = project.tear_down()
    if args.dry_run:
        console.print("Dry run: no command was run.")
        return 0
    show(results, console)
    for command in left:
        console.print(f"LEFT  {command}", style="red", markup=False)
    return 0 if not left and all(result.passed for result in results) else 1


def _run_steps(steps: Steps, console: Console) -> list[Result]:
    """Run the steps until one fails. Ctrl-C counts as a failure, so that everything is torn down."""
    results = []
    for name, step in steps.all.items():
        console.print(name.capitalize(), style="bold")
        started = time.monotonic()
        try:
            found, passed = step(), True
        except StepError as error:
            found, passed = str(error), False
        except KeyboardInterrupt:
            found, passed = "stopped", False
        except Exception as error:
            found, passed = f"{type(error).__name__}: {one_line.reason(error)}", False
        results.append(Result(name, passed, time.monotonic() - started, found))
        if not passed:
            console.print(f"  {found}", style="red", markup=False)
            break
    return results


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = one_line.Parser(prog="python -m deploy.acceptance", allow_abbrev=False)
    parser.add_argument(
        "--project", required=True, type=_project, help="id of the project; its existing resources are not changed"
    )
    parser.add_argument("--region", required=True, help="region of all resources, such as europe-west1")
    parser.add_argument("--dry-run", action="store_true", help="print every command and run none")
    positive, positive_int = _positive(float), _positive(int)
    parser.add_argument("--rate", type=positive, default=10.0, help="readings per second (default: 10)")
    parser.add_argument(
        "--interval", type=positive_int, default=15, help="length of an interval in seconds (default: 15)"
    )
    parser.add_argument(
        "--live", type=positive, default=120.0, help="seconds of readings published after the update (default: 120)"
    )
    parser.add_argument(
        "--pause", type=positive, default=10.0, help="seconds between two polls of a service (default: 10)"
    )
    return parser.parse_args(argv)


def _project(text: str) -> str:
    if not re.fullmatch(r"[a-z][-a-z0-9]{4,28}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(
            f"{one_line.value(text)!r} is not a project id: expected 6 to 30 lower-case letters, digits and -"
        )
    return text


def _positive(number: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = number(text)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a number above 0, not {one_line.value(text)!r}")
        return value

    return read


if __name__ == "__main__":
    sys.exit(main())
