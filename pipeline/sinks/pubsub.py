"""Dead letters and silences: to a table, and, if a topic is named, as Pub/Sub messages too."""

import base64
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, WriteToPubSub

from pipeline.decode import strict_json
from pipeline.decode.reading import DEVICE
from pipeline.decode.timestamps import parse_timestamp
from pipeline.rows import REVISION, WRITTEN_AT
from pipeline.silences import BACK_AT, NOTICED_AT

# Bytes of a dead letter's payload in a message; the rest of Pub/Sub's 10 MB is for the attributes.
MAX_PUBLISHED = 9_000_000

# https://cloud.google.com/pubsub/quotas#resource_limits
_MAX_ATTRIBUTES, _MAX_VALUE_BYTES, _RESERVED_PREFIX = 100, 1_024, "goog"

# The year 10000, in microseconds.
_LATEST = 253_402_300_800_000_000


class WriteDeadLetters(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[Any]]):
    """Hands dead letters to a sink and, if a topic is named, publishes them too.

    In a message the payload is the data. The other columns are attributes, followed by the attributes of the rejected
    message as far as Pub/Sub's limits allow. A dead letter with a payload of more than MAX_PUBLISHED bytes goes to the
    sink only.

    A Reshuffle comes first, so that a retried bundle writes the dead letters that were committed, and no others.

    Args:
      sink: takes dead letters.
      topic: to publish to, or None.
    """

    def __init__(self, sink: beam.PTransform[Any, Any], topic: str | None):
        super().__init__()
        self._sink = sink
        self._topic = topic

    def expand(self, dead_letters: beam.PCollection[Any]) -> beam.PCollection[Any]:
        dead_letters |= "Reshuffle" >> beam.Reshuffle()
        if self._topic:
            messages = dead_letters | "ToMessages" >> beam.FlatMap(to_messages).with_output_types(PubsubMessage)
            _ = messages | "Publish" >> WriteToPubSub(self._topic, with_attributes=True)
        return dead_letters | "Store" >> self._sink


class WriteSilences(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[Any]]):
    """Hands silences to a sink of rows and, if a topic is named, publishes them too; returns what the sink returns.

    A message is the silence as JSON, with the attributes `event` (`silent` or `back`) and, unless the whole stream is
    silent, `device`.

    A Reshuffle comes first: the bundle that notices a silence may be retried with a reading that prevents the silence.

    Args:
      sink: takes rows, returns those that it could not write.
      topic: to publish to, or None.
      revise: add the columns Revision and WrittenAt, by which a sink that upserts orders the rows of a silence.
    """

    def __init__(self, sink: beam.PTransform[Any, Any], topic: str | None, revise: bool = False):
        super().__init__()
        self._sink = sink
        self._topic = topic
        self._revise = revise

    def expand(self, silences: beam.PCollection[Any]) -> beam.PCollection[Any]:
        silences |= "Reshuffle" >> beam.Reshuffle()
        if self._topic:
            messages = silences | "ToMessages" >> beam.Map(silence_message).with_output_types(PubsubMessage)
            _ = messages | "Publish" >> WriteToPubSub(self._topic, with_attributes=True)
        if self._revise:
            silences |= "Revise" >> beam.Map(revision_of_silence).with_output_types(Any)
        return silences | "Store" >> self._sink


def to_messages(dead_letter: dict[str, Any]) -> list[PubsubMessage]:
    """Return a list of the dead letter's Pub/Sub message; an empty one if the payload exceeds MAX_PUBLISHED bytes."""
    payload = base64.b64decode(dead_letter["payload"])
    if len(payload) > MAX_PUBLISHED:
        return []
    attributes = {key: value for key, value in dead_letter.items() if key != "payload" and isinstance(value, str)}
    for attribute in dead_letter["attributes"]:
        key = attribute["key"]
        if len(attributes) < _MAX_ATTRIBUTES and key not in attributes and not key.lower().startswith(_RESERVED_PREFIX):
            attributes[key] = attribute["value"]
    return [PubsubMessage(payload, {key: _within_limit(value) for key, value in attributes.items()})]


def silence_message(silence: dict[str, Any]) -> PubsubMessage:
    """Return the silence as a Pub/Sub message."""
    attributes = {"event": "back" if silence[BACK_AT] else "silent"}
    if silence[DEVICE]:
        attributes["device"] = _within_limit(silence[DEVICE])
    return PubsubMessage(strict_json.dumps(silence).encode(), attributes)


def revision_of_silence(silence: dict[str, Any]) -> dict[str, Any]:
    """Return the silence with a Revision, which is 0 while it lasts and greater the earlier it ends, and WrittenAt."""
    back_at = silence[BACK_AT]
    revision = _LATEST - parse_timestamp(back_at) if back_at else 0
    return {**silence, REVISION: revision, WRITTEN_AT: silence[NOTICED_AT]}


def _within_limit(value: str) -> str:
    return value.encode()[:_MAX_VALUE_BYTES].decode(errors="ignore")
