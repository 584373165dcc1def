"""What Prism does that the Beam model does not say, in plain Beam: when one of these fails, Prism has been fixed."""

import apache_beam as beam
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from tests.pipeline.conftest import captured, parse


def test_a_pane_is_repeated_when_its_window_expires_though_nothing_came():
    # The model's closing behaviour is FIRE_IF_NON_EMPTY: a last pane only for elements that are in none yet. Because
    # of this, run_captured leaves out revisions that repeat the one before.
    stream = TestStream().add_elements([TimestampedValue(("key", 1), 5)]).advance_watermark_to(20)
    windowing = beam.WindowInto(
        FixedWindows(10),
        trigger=AfterWatermark(late=AfterCount(1)),
        accumulation_mode=AccumulationMode.ACCUMULATING,
        allowed_lateness=30,
    )
    with captured() as (sums, to_sums):
        with beam.Pipeline(options=parse()[1]) as pipeline:
            _ = pipeline | stream.advance_watermark_to_infinity() | windowing | beam.CombinePerKey(sum) | to_sums
        assert sums == [("key", 1), ("key", 1)]
