"""What the decoder makes of each message."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.decode.decoder import Decoder
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import Rejection
from pipeline.decode.mapped import MappedDecoder
from pipeline.decode.reading import Reading
from pipeline.launch.job import Job
from pipeline.preview.messages import Message


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


def decode(messages: Iterable[Message], job: Job, decoder: Decoder | MappedDecoder) -> Iterator[Decoded]:
    """Yield what the decoder makes of each message, one after the other."""
    for message in messages:
        latest = int((time.time() + job.max_future_skew) * 1_000_000)
        rejections: list[Rejection] = []
        envelope = Envelope(message.attributes, message.event_time(job.timestamp_attribute))
        readings = list(decoder.decode([message.data], latest, rejections, [envelope]))
        yield Decoded(message, readings, rejections)
