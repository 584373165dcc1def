"""Messages from Pub/Sub, without the duplicates."""

from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import Lineage
from apache_beam.transforms.deduplicate import DeduplicatePerKey

from pipeline.beam_internals import ReadFromPubSubWithoutLineage
from pipeline.metrics import METRICS

# Seconds for which an id is remembered; the Dataflow service remembers it for as long:
# https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#efficient_deduplication
REMEMBERED = 600


class ReadMessages(beam.PTransform[beam.pvalue.PBegin, beam.PCollection[Any]]):
    """Reads messages from Pub/Sub; yields their data as bytes, or PubsubMessages with `keep_attributes`.

    Args:
      topic, subscription: one of them; the other is None.
      timestamp_attribute: the attribute that drives the watermark, or None for the publish time.
      id_attribute: the attribute by which duplicates are removed, or None.
      keep_attributes: yield PubsubMessages, which also have the attributes and the id.
      runner_removes_duplicates: whether the runner removes them, as Dataflow does; Beam's local runner does not.
    """

    def __init__(
        self,
        topic: str | None,
        subscription: str | None,
        timestamp_attribute: str | None,
        id_attribute: str | None,
        keep_attributes: bool,
        runner_removes_duplicates: bool,
    ):
        super().__init__()
        self._source = topic or subscription
        self._deduplicate_by = None if runner_removes_duplicates else id_attribute
        self._keep_attributes = keep_attributes
        self._read = ReadFromPubSubWithoutLineage(
            topic,
            subscription,
            id_label=id_attribute if runner_removes_duplicates else None,
            with_attributes=keep_attributes or self._deduplicate_by is not None,
            timestamp_attribute=timestamp_attribute,
        )

    def expand(self, begin: Any) -> beam.PCollection[Any]:
        messages = begin | "Read" >> self._read
        _ = begin | "Once" >> beam.Impulse() | "ReportLineage" >> beam.FlatMap(_report_lineage, self._source)
        if self._deduplicate_by:
            messages |= "RemoveDuplicates" >> RemoveDuplicates(self._deduplicate_by)
            if not self._keep_attributes:
                messages |= "Data" >> beam.Map(lambda message: message.data).with_output_types(bytes)
        return messages


def _report_lineage(impulse: bytes, source: str) -> list[Any]:
    """Report a topic or subscription, projects/PROJECT/topics/NAME, as a source of the job; return nothing."""
    project, kind, name = source.split("/")[1:]
    Lineage.sources().add("pubsub", project, name, subtype=kind.removesuffix("s"))
    return []


class RemoveDuplicates(beam.PTransform[beam.PCollection[PubsubMessage], beam.PCollection[PubsubMessage]]):
    """Removes each message whose `id_attribute` has the value of a message of the last ten minutes.

    A message without the attribute is identified by its Pub/Sub id, so that only its redelivery is removed.
    """

    def __init__(self, id_attribute: str):
        super().__init__()
        self._id_attribute = id_attribute

    def expand(self, messages: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return (
            messages
            | "KeyById" >> beam.Map(_key_by_id, self._id_attribute).with_output_types(tuple[str, Any])
            | "First" >> DeduplicatePerKey(processing_time_duration=REMEMBERED)
            | "Message" >> beam.Values()
        )


def _key_by_id(message: PubsubMessage, id_attribute: str) -> tuple[str, PubsubMessage]:
    Metrics.counter(METRICS, "delivered").inc()
    own_id = (message.attributes or {}).get(id_attribute)
    return (f"id {own_id}" if own_id else f"message {message.message_id}"), message
