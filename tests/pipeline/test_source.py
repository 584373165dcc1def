"""Duplicates, where the runner does not remove them."""

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from apache_beam.metrics.metric import Lineage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream

from pipeline.launch.options import LOCAL_RUNNER
from pipeline.source import Read, ReadMessages, RemoveDuplicates
from tests.pipeline.conftest import captured


def message(data: bytes, message_id: str, **attributes: str) -> PubsubMessage:
    return PubsubMessage(data, attributes, message_id)


def pass_through(stream: TestStream) -> list[bytes]:
    with captured() as (seen, capture):
        options = PipelineOptions([f"--runner={LOCAL_RUNNER}"], streaming=True)
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | stream | RemoveDuplicates("reading_id") | capture
        return sorted(message.data for message in seen)


class TestRemoveDuplicates:
    def test_of_one_id_the_first_counts_across_bundles(self):
        stream = TestStream().add_elements([message(b"a", "1", reading_id="x"), message(b"b", "2", reading_id="y")])
        stream.add_elements([message(b"c", "3", reading_id="x"), message(b"d", "4", reading_id="z")])
        assert pass_through(stream.advance_watermark_to_infinity()) == [b"a", b"b", b"d"]

    def test_without_the_attribute_only_a_redelivery_is_removed(self):
        stream = TestStream().add_elements([message(b"a", "1"), message(b"a", "2")]).add_elements([message(b"a", "1")])
        assert pass_through(stream.advance_watermark_to_infinity()) == [b"a", b"a"]


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
    def test_reports_where_messages_are_from_as_lineage(self, monkeypatch, topic, subscription, source):
        # In place of the service's own read, with no message at all.
        monkeypatch.setattr(Read, "expand", lambda self, begin: begin | beam.Create([]))
        pipeline = beam.Pipeline(runner="FnApiRunner")
        _ = pipeline | ReadMessages(topic, subscription, None, None, False, True)
        result = pipeline.run()
        result.wait_until_finish()
        # As names of https://cloud.google.com/data-catalog/docs/fully-qualified-names
        assert Lineage.query(result.metrics(), Lineage.SOURCE) == {source}


class TestRead:
    @pytest.mark.parametrize("with_attributes", [True, False])
    def test_yields_what_beams_own_does_of_what_the_service_hands_over(self, with_attributes):
        sent = PubsubMessage(b"a", {"k": "v"}, "1")
        fed = sent._to_proto_str() if with_attributes else sent.data
        found = []
        for read in Read, ReadFromPubSub:
            one = read(topic="projects/test-project/topics/t-1", with_attributes=with_attributes)
            with captured() as (seen, capture), beam.Pipeline(runner="FnApiRunner") as pipeline:
                _ = one.expand_continued(pipeline | beam.Create([fed])) | capture
            found.append(seen)
        assert found == [[sent if with_attributes else b"a"]] * 2
