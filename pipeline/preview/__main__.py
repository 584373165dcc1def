"""Shows what the pipeline would read from messages, by the decoder that ships and the parameters of the launch.

    python -m pipeline.preview messages.jsonl --timestamp=time --sensors=Temp=data.temp
    python -m pipeline.preview projects/my-project/subscriptions/readings --json

docs/mapping.md describes its input and output.
"""

import argparse
import io
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from google.auth.exceptions import GoogleAuthError

from pipeline.decode import strict_json
from pipeline.decode.envelope import Envelope
from pipeline.decode.mapped import decoder_for
from pipeline.decode.schemas import SchemaService
from pipeline.errors import SensorStreamError
from pipeline.launch import one_line, options, preflight
from pipeline.launch.job import Job
from pipeline.launch.parameters import PARAMETERS
from pipeline.preview import found, messages
from pipeline.preview.decoding import Decoded, decode
from pipeline.preview.messages import Message
from pipeline.preview.report import Report
from pipeline.preview.suggest import suggest
from pipeline.timestamps import rfc3339

# The parameters of a launch name an input; a file is none.
_NO_INPUT = "--input_topic=projects/preview/topics/preview"
_LOOKED_AT = 100  # messages, for a suggestion


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the pipeline would make of messages.

    Args:
      argv: the flags; None for those of the process.

    Returns:
      The exit code: 0, or 2 if a parameter or the source is wrong, with one line on stderr.
    """
    args, flags = _parse(sys.argv[1:] if argv is None else argv)
    try:
        job = _job(args.source, flags)
        read = messages.read(args.source)
        if args.suggest:
            first = list(islice(read, _LOOKED_AT))
            suggested = suggest(first, SchemaService().fetch)
            print(*_as_command(args, suggested, flags), sep="\n")
            # What is given counts, and not what is suggested for it.
            job = _job(args.source, [f"--{name}={value}" for name, value in suggested.items()] + flags)
            read = chain(first, read)
        decoded = decode(read, job, decoder_for(job.mapping))
        for line in map(_as_json, decoded) if args.json else _report(decoded, job):
            print(line, flush=True)
    except GoogleAuthError as error:
        return _refuse(preflight.credentials_advice(error))
    except SensorStreamError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        # As after `| head`; Python would report the failed flush at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags of the preview, and those of the launch."""
    parser = one_line.Parser(
        prog="python -m pipeline.preview",
        description="Show what the pipeline would read from messages.",
        epilog="Any other flag of python -m pipeline.main as well; those not about messages are only checked.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="FILE|SUBSCRIPTION",
        help="a file with one message per line, as data or as "
        '{"data": .., "encoding": "base64", "attributes": {..}, "publish_time": ..}; or '
        f"projects/PROJECT/subscriptions/NAME, of which up to {messages.PULLED} messages are pulled, not acknowledged",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON per message")
    parser.add_argument(
        "--suggest",
        action="store_true",
        help="find likely parameters in the first messages, print them, and use them; what is given is not changed",
    )
    for name, parameter in PARAMETERS.items():
        about_messages = parameter.group == PARAMETERS["sensors"].group or name == "timestamp_attribute"
        parser.add_argument(
            f"--{name}", help=parameter.help.replace("%", "%%") if about_messages else argparse.SUPPRESS
        )
    args, others = parser.parse_known_args(argv)
    given = [f"--{name}={text}" for name in PARAMETERS if (text := getattr(args, name)) is not None]
    return args, given + others


def _job(source: str, flags: Sequence[str]) -> Job:
    inputs = [flag for flag in flags if flag.startswith(("--input_topic=", "--input_subscription="))]
    if messages.is_subscription(source):
        # Its name is checked as well.
        return options.parse([*(flag for flag in flags if flag not in inputs), f"--input_subscription={source}"])[0]
    return options.parse([*flags, *([] if inputs else [_NO_INPUT])])[0]


def _as_command(args: argparse.Namespace, suggested: dict[str, str], flags: Sequence[str]) -> list[str]:
    """Return the lines of what is suggested."""
    given = {flag.partition("=")[0].removeprefix("--") for flag in flags}
    parameters = {name: value for name, value in suggested.items() if name not in given}
    if args.json:
        return [strict_json.dumps({"parameters": parameters})]
    if not suggested:
        return ["No number found in these messages, so nothing is suggested.", ""]
    words = [f"--{name}={value}" for name, value in parameters.items()]
    lines = [f"python -m pipeline.preview {shlex.quote(args.source)}"]
    lines += [f"  {shlex.quote(word)}" for word in (*words, *flags)]
    return [*(f"{line} \\" if number < len(lines) else line for number, line in enumerate(lines, 1)), ""]


def _report(all_decoded: Iterable[Decoded], job: Job) -> Iterator[str]:
    fetch_schema = SchemaService().fetch

    def paths_of(message: Message) -> found.Found:
        envelope = Envelope(message.attributes, message.event_time(job.timestamp_attribute))
        return found.find(found.documents(message.data, envelope, job.mapping, fetch_schema))

    report = Report(job.sensors, paths_of)
    for decoded in all_decoded:
        report.add(decoded)
    return report.lines()


def _as_json(decoded: Decoded) -> str:
    readings: list[dict[str, Any]] = [
        {"timestamp": rfc3339(event_time), "device": device or None, "values": values}
        for event_time, device, values in decoded.readings
    ]
    dead_letters = [
        {"error": type(rejection.reason).__name__, "message": str(rejection.reason)} for rejection in decoded.rejections
    ]
    return strict_json.dumps({"readings": readings, "dead_letters": dead_letters})


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for a terminal that is not Unicode
    sys.exit(main())
