"""The command line of `python -m publisher publish` and `python -m publisher listen`.

Exit codes: 0 success, 1 Pub/Sub could not be used or readings were not published, 2 the command line is wrong.
"""

import argparse
import math
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from dotenv import load_dotenv

from publisher import faults
from publisher.faults import Faults
from publisher.listen import Listener
from publisher.manifest import Manifest
from publisher.progress import progress
from publisher.publish import Publishing
from publisher.sensors import CURVES, EPOCH, SENSOR_NAME, TAKEN_NAMES, readings, rfc3339
from publisher.service import ServiceError

RESOURCE_NAME = r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
PROJECT = r"[a-z0-9][a-z0-9.:-]*[a-z0-9]"
EXIT_SECONDS = 9.0  # from the first signal to the end; containers are killed after 10
ERROR_START, ERROR_END = 300, 200  # characters printed of a long error message, which ends with the fix
PACK_LIMIT = 1000  # readings; keeps a message below a megabyte
SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a wrong command line as one line on stderr, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2. Control characters are escaped, and a long message loses its middle."""
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
        if len(line) > ERROR_START + ERROR_END:
            line = f"{line[:ERROR_START]}...{line[-ERROR_END:]}"
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (default: this process's arguments) and return its exit code."""
    try:
        load_dotenv(".env")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a value with a zero byte
        print(f"python -m publisher: .env cannot be read ({error}); it must be UTF-8 text", file=sys.stderr)
        return 2
    options = _parser().parse_args(arguments)
    try:
        return _publish(options) if options.command == "publish" else _listen(options)
    except ServiceError as error:
        print(f"python -m publisher {options.command}: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader of our output has ended, as `head` does. Python would report the broken pipe again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _publish(options: argparse.Namespace) -> int:
    now_ms = time.time_ns() // 1_000_000
    start_ms = now_ms if options.start is None else options.start
    limits = [] if options.messages is None else [options.messages]
    if options.duration is not None:
        limits.append(math.ceil(round(options.duration * options.rate, 6)))
    total = min(limits, default=None)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"The same readings again: --seed={seed} --start={rfc3339(start_ms)}", flush=True)

    run = Publishing(
        options.topic,
        Faults(options.faults, options.late_by, seed, options.dropout_for),
        options.manifest,
        pack=options.pack,
    )
    _on_signals(run.stop)
    with progress(run, total):
        run.run(
            readings(
                options.sensors, devices=options.devices, rate=options.rate, start_ms=start_ms, total=total, seed=seed
            )
        )
    print(run.summary, flush=True)
    return 1 if run.failed else 0


def _listen(options: argparse.Namespace) -> int:
    listener = Listener(options.subscription)
    _on_signals(listener.stop)
    print(f"Listening to {options.subscription}; Ctrl-C ends.", file=sys.stderr)
    printed = listener.run(options.messages, options.timeout)
    print(f"Received {printed} messages.", file=sys.stderr)
    return 0


def _on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on the first SIGINT or SIGTERM, from a separate thread.

    The process ends immediately on a second signal, and EXIT_SECONDS after the first.

    Python runs a signal handler in the main thread, when that executes bytecode again: a signal that arrives while it
    begins to wait is handled only after the wait. The wake-up file descriptor is written to immediately.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def watch() -> None:
        with writer:  # kept open as long as this thread lives
            reader.recv(1)
            stop()
            reader.settimeout(EXIT_SECONDS)
            try:
                number = reader.recv(1)[0]
            except TimeoutError:
                number = signal.SIGKILL
                print(
                    f"python -m publisher: killed, still running {EXIT_SECONDS:.0f} s after the stop", file=sys.stderr
                )
            os._exit(128 + number)

    threading.Thread(target=watch, daemon=True).start()


def _parser() -> Parser:
    parser = Parser(prog="python -m publisher", description="Simulated sensors for Pub/Sub, and a plain listener.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="publish | listen")

    publish = commands.add_parser("publish", help="publish simulated readings", allow_abbrev=False)
    _add_resource(publish, "topic", "TOPIC_NAME")
    publish.add_argument(
        "--sensors",
        type=_sensors,
        default=",".join(CURVES),
        help="comma-separated (default: %(default)s); other names get a generic curve",
    )
    publish.add_argument("--devices", type=_count, default=1, metavar="N", help="number of devices (default: 1)")
    publish.add_argument(
        "--rate", type=_rate, default=10.0, help="readings per second of event time, in total (default: 10)"
    )
    publish.add_argument(
        "--duration", type=_duration, help="stop after this much event time: seconds, or as in 90s, 5m, 1h"
    )
    publish.add_argument("--messages", type=_count, metavar="N", help="stop after this many readings")
    publish.add_argument(
        "--pack",
        type=_pack,
        default=1,
        metavar="N",
        help="send up to N readings of the same 20 ms in one message, as a JSON array (default: 1)",
    )
    publish.add_argument("--seed", type=int, metavar="N", help="make the values reproducible")
    publish.add_argument(
        "--start",
        type=_start,
        metavar="RFC3339",
        help="timestamp of the first reading; readings of the past are sent as fast as possible (default: now)",
    )
    publish.add_argument(
        "--faults",
        type=_faults,
        default={},
        metavar="NAME=RATE,...",
        help="faults to inject, as probabilities per reading: late, duplicate, malformed, out_of_order, skew, dropout; "
        "and burst=N, N readings at once every 10 s (default: none)",
    )
    publish.add_argument(
        "--late-by", type=_duration, default=60.0, metavar="TIME", help="how late, give or take a quarter (default: 60)"
    )
    publish.add_argument(
        "--dropout-for", type=_duration, default=60.0, metavar="TIME", help="how long a device drops out (default: 60)"
    )
    publish.add_argument(
        "--manifest",
        type=_manifest,
        metavar="FILE",
        help="append a line of JSON for each reading that Pub/Sub has accepted; see publisher/manifest.py",
    )

    listen = commands.add_parser("listen", help="print and acknowledge messages", allow_abbrev=False)
    _add_resource(listen, "subscription", "SUBSCRIPTION_NAME")
    listen.add_argument("--messages", type=_count, metavar="N", help="stop after this many messages")
    listen.add_argument("--timeout", type=_duration, metavar="SECONDS", help="stop after this long without a message")
    return parser


def _add_resource(parser: argparse.ArgumentParser, kind: str, variable: str) -> None:
    """Add --topic or --subscription, whose default is built from PROJECT_ID and `variable`."""
    project, name = os.environ.get("PROJECT_ID"), os.environ.get(variable)
    shape = f"projects/PROJECT/{kind}s/NAME"

    def path(text: str) -> str:
        if re.fullmatch(f"projects/{PROJECT}/{kind}s/{RESOURCE_NAME}", text):
            return text
        if not text:
            raise argparse.ArgumentTypeError(f"none given; write --{kind} {shape}, or set PROJECT_ID and {variable}")
        raise argparse.ArgumentTypeError(
            f"{text!r} is not {shape}; a name is 3 to 255 letters, digits or -._~+% and starts with a letter"
        )

    parser.add_argument(
        f"--{kind}",
        type=path,
        default=f"projects/{project}/{kind}s/{name}" if project and name else "",
        metavar="PATH",
        help=f"{shape} (default: from PROJECT_ID and {variable}, which a .env file may set)",
    )


def _sensors(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not SENSOR_NAME.fullmatch(name):
            raise argparse.ArgumentTypeError(
                f"{name!r} is not a sensor name; use letters, digits and _, not starting with a digit"
            )
        if name.lower() in TAKEN_NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is a field of every message; choose another sensor name")
    lowered = [name.lower() for name in names]
    for name in names:
        if lowered.count(name.lower()) > 1:
            raise argparse.ArgumentTypeError(f"{name!r} is given twice (case does not count); name each sensor once")
    return names


def _count(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,15}", text) and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _pack(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,4}", text) and 0 < int(text) <= PACK_LIMIT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of readings from 1 to {PACK_LIMIT}")


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if 1e-6 <= rate <= 1e6:
        return rate
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of readings per second above 0 (at most 1000000)")


def _duration(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh]?)", text)
    seconds = float(match[1]) * SECONDS_PER_UNIT[match[2]] if match else 0.0
    if 0 < seconds <= 1e9:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0; write seconds, or with a unit: 90s, 5m, 1h")


def _faults(text: str) -> dict[str, float]:
    try:
        return faults.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _manifest(text: str) -> Manifest:
    try:
        return Manifest(Path(text))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {text!r}: {error.strerror}") from None


def _start(text: str) -> int:
    """Convert a time of the past in RFC 3339 to milliseconds since 1970 UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an RFC 3339 time with its offset, such as 2026-11-22T13:00:00Z"
        )
    start_ms = (moment - EPOCH) // timedelta(milliseconds=1)
    if start_ms > time.time() * 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is in the future; give a past moment, or leave --start out")
    if moment.year < 2000:
        raise argparse.ArgumentTypeError(
            f"{text!r} is before the year 2000, which the pipeline takes for a unit mix-up"
        )
    return start_ms
