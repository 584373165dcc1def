"""Messages from Pub/Sub, without the duplicates."""

from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub, _AddMetricsPassThrough
from apache_beam.metrics import Metrics
from apache_beam.transforms.deduplicate import DeduplicatePerKey

from pipeline.dead_letters import METRICS

# Seconds for which an id is remembered, as the Dataflow service does:
# https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#efficient_deduplication
REMEMBERED = 600


class ReadMessages(beam.PTransform):
    """Yields message bytes, or PubsubMessage with `keep_attributes`.

    Args:
      topic, subscription: one of them; the other is None.
      timestamp_attribute: the attribute that drives the watermark, or None for the publish time.
      id_attribute: the attribute by which duplicates are removed, or None.
      keep_attributes: yield PubsubMessage.
      runner_removes_duplicates: whether the runner does it, as Dataflow does; Beam's local runner refuses to.
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
        self._remove_here = None if runner_removes_duplicates else id_attribute
        self._keep_attributes = keep_attributes
        self._read = Read(
            topic,
            subscription,
            id_label=id_attribute if runner_removes_duplicates else None,
            with_attributes=keep_attributes or self._remove_here is not None,
            timestamp_attribute=timestamp_attribute,
        )

    def expand(self, begin: Any) -> beam.PCollection:
        """Apply the read."""
        messages = begin | "Read" >> self._read
        _ = begin | "Once" >> beam.Impulse() | "ReportLineage" >> beam.ParDo(self._read.report_lineage)
        if self._remove_here:
            messages |= "RemoveDuplicates" >> RemoveDuplicates(self._remove_here)
            if not self._keep_attributes:
                messages |= "Data" >> beam.Map(lambda message: message.data).with_output_types(bytes)
        return messages


class Read(ReadFromPubSub):
    """Beam's, without its step that hands each message on only to report, with the first, where it is from.

    That step took about an eighth of the worker's time, in bundles of ten messages and of a thousand. `report_lineage`
    is that step, to be given one element that is not a message.
    """

    @property
    def report_lineage(self) -> beam.DoFn:
        """The step."""
        source = self._source
        return _AddMetricsPassThrough(source.project, source.topic_name, source.subscription_name)

    def expand_continued(self, messages: beam.PCollection) -> beam.PCollection:
        """Apply what follows the service's own read."""
        if not self.with_attributes:
            return messages
        parse = beam.Map(PubsubMessage._from_proto_str).with_output_types(PubsubMessage)
        return messages | "Map(_from_proto_str)" >> parse


class RemoveDuplicates(beam.PTransform):
    """Of the PubsubMessages with the same `id_attribute`, lets through the first in ten minutes.

    A message without the attribute is known by its Pub/Sub id, so that only its redelivery is removed.
    """

    def __init__(self, id_attribute: str):
        super().__init__()
        self._id_attribute = id_attribute

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        """Apply the filter."""
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
