"""What is asked of Pub/Sub, and duplicates where the runner does not remove them."""

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.metrics.metric import Lineage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream

from pipeline.beam_internals import ReadFromPubSubWithoutLineage
from pipeline.launch.options import LOCAL_RUNNER
from pipeline.source import ReadMessages, RemoveDuplicates
from tests.pipeline.conftest import captured


def message(data: bytes, message_id: str, **attributes: str) -> PubsubMessage:
    return PubsubMessage(data, attributes, message_id)


def deduplicated(stream: TestStream) -> list[bytes]:
    with captured() as (seen, capture):
        options = PipelineOptions([f"--runner={LOCAL_RUNNER}"], streaming=True)
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | stream | RemoveDuplicates("reading_id") | capture
        return sorted(message.data for message in seen)


class TestRemoveDuplicates:
    def test_passes_on_the_first_message_of_an_id_across_bundles(self):
        stream = TestStream().add_elements([message(b"a", "1", reading_id="x"), message(b"b", "2", reading_id="y")])
        stream.add_elements([message(b"c", "3", reading_id="x"), message(b"d", "4", reading_id="z")])
        assert deduplicated(stream.advance_watermark_to_infinity()) == [b"a", b"b", b"d"]

    def test_removes_only_redeliveries_without_the_attribute(self):
        stream = TestStream().add_elements([message(b"a", "1"), message(b"a", "2")]).add_elements([message(b"a", "1")])
        assert deduplicated(stream.advance_watermark_to_infinity()) == [b"a", b"a"]


class TestReadMessages:
    @pytest.mark.parametrize(
        ("id_attribute", "keep", "on_dataflow", "label", "with_attributes"),
        [
            (None, False, False, None, False),
            (None, True, False, None, True),
            ("reading_id", False, False, None, True),
            ("reading_id", False, True, "reading_id", False),
            ("reading_id", True, True, "reading_id", True),
        ],
    )
    def test_asks_the_service_for_no_more_than_it_needs(self, id_attribute, keep, on_dataflow, label, with_attributes):
        source = ReadMessages("projects/test-project/topics/t-1", None, "ts", id_attribute, keep, on_dataflow)
        read = source._read._source
        assert (read.id_label, read.with_attributes, read.timestamp_attribute) == (label, with_attributes, "ts")

    @pytest.mark.parametrize(
        ("topic", "subscription", "source"),
        [
            ("projects/test-project/topics/t-1", None, "pubsub:topic:test-project.t-1"),
            (None, "projects/test-project/subscriptions/s-1", "pubsub:subscription:test-project.s-1"),
        ],
    )
    def test_reports_its_source_as_lineage_without_any_message(self, monkeypatch, topic, subscription, source):
        # In place of the service's own read.
        monkeypatch.setattr(ReadFromPubSubWithoutLineage, "expand", lambda self, begin: begin | beam.Create([]))
        pipeline = beam.Pipeline(runner="FnApiRunner")
        _ = pipeline | ReadMessages(topic, subscription, None, None, False, True)
        result = pipeline.run()
        result.wait_until_finish()
        # As names of https://cloud.google.com/data-catalog/docs/fully-qualified-names
        assert Lineage.query(result.metrics(), Lineage.SOURCE) == {source}
