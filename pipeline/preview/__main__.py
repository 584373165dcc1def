"""Shows what the pipeline would read from messages, by the decoder that ships and the parameters of the launch.

python -m pipeline.preview messages.jsonl --timestamp=time --sensors=Temp=data.temp
python -m pipeline.preview projects/my-project/subscriptions/readings --json
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from google.auth.exceptions import GoogleAuthError

from pipeline.decode.decoder import Decoder
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import Rejection
from pipeline.decode.mapped import MappedDecoder, decoder_for
from pipeline.decode.reading import Reading
from pipeline.errors import SensorStreamError
from pipeline.launch import one_line, options, preflight
from pipeline.launch.job import Job
from pipeline.launch.parameters import PARAMETERS
from pipeline.preview import messages
from pipeline.preview.messages import Message
from pipeline.timestamps import rfc3339

# The parameters of a launch name an input; a file is none.
_NO_INPUT = "--input_topic=projects/preview/topics/preview"


class Decoded(NamedTuple):
    """What the pipeline makes of one message.

    Attributes:
      message: the message.
      readings: its readings.
      rejections: what would become dead letters.
    """

    message: Message
    readings: list[Reading]
    rejections: list[Rejection]


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
        for decoded in decode(messages.read(args.source), job, decoder_for(job.mapping)):
            print(_as_json(decoded), flush=True)
    except GoogleAuthError as error:
        return _refuse(preflight.credentials_advice(error))
    except SensorStreamError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        # As after `| head`; Python would report the failed flush at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def decode(read: Iterator[Message], job: Job, decoder: Decoder | MappedDecoder) -> Iterator[Decoded]:
    """Yield what the decoder makes of each message, one after the other."""
    for message in read:
        latest = int((time.time() + job.max_future_skew) * 1_000_000)
        rejections: list[Rejection] = []
        envelope = Envelope(message.attributes, message.event_time(job.timestamp_attribute))
        readings = list(decoder.decode([message.data], latest, rejections, [envelope]))
        yield Decoded(message, readings, rejections)


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
    for name, parameter in PARAMETERS.items():
        about_messages = parameter.group == PARAMETERS["sensors"].group or name == "timestamp_attribute"
        parser.add_argument(
            f"--{name}", help=parameter.help.replace("%", "%%") if about_messages else argparse.SUPPRESS
        )
    args, others = parser.parse_known_args(argv)
    given = [f"--{name}={text}" for name in PARAMETERS if (text := getattr(args, name)) is not None]
    return args, given + others


def _job(source: str, flags: list[str]) -> Job:
    has_input = any(flag.startswith(("--input_topic=", "--input_subscription=")) for flag in flags)
    if messages.is_subscription(source):
        # Also checks its name.
        flags = [flag for flag in flags if not flag.startswith(("--input_topic=", "--input_subscription="))]
        flags.append(f"--input_subscription={source}")
    elif not has_input:
        flags.append(_NO_INPUT)
    return options.parse(flags)[0]


def _as_json(decoded: Decoded) -> str:
    readings: list[dict[str, Any]] = [
        {"timestamp": rfc3339(event_time), "device": device or None, "values": values}
        for event_time, device, values in decoded.readings
    ]
    dead_letters = [
        {"error": type(rejection.reason).__name__, "message": str(rejection.reason)} for rejection in decoded.rejections
    ]
    return json.dumps({"readings": readings, "dead_letters": dead_letters})


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
