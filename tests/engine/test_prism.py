"""Behaviour of Prism that differs from the Beam model, in plain Beam: if one of these fails, Prism has been fixed."""

import time
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import DebugOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from tests.pipeline.conftest import WITHOUT_SPLITS, captured, parse


def test_prism_repeats_accumulating_pane_when_window_expires():
    # The model's closing behaviour is FIRE_IF_NON_EMPTY: a last pane only for elements that are in no pane yet. Because
    # of Prism's last pane, run_captured leaves out revisions that repeat the one before.
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


class _CountSlowly(beam.DoFn):
    COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())

    def process(self, element: tuple[str, int], count: Any = beam.DoFn.StateParam(COUNT)) -> list[int]:
        counted = (count.read() or 0) + 1
        time.sleep(0.5)
        count.write(counted)
        return [counted]


@pytest.mark.parametrize("split", [True, False])
def test_prism_loses_state_when_it_splits_bundle_of_one_key(split):
    # In the model, at most one bundle of a key is processed at a time. Prism splits a bundle that makes no progress for
    # 0.2 s, as on a busy machine, and processes the rest at once, with the state from before the bundle. Readings of a
    # session were then silently missing from its row, so all tests run without splits.
    options = parse()[1]
    if split:
        options.view_as(DebugOptions).experiments.remove(WITHOUT_SPLITS)
    with captured() as (counts, to_counts):
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create([("key", n) for n in range(4)]) | beam.ParDo(_CountSlowly()) | to_counts
        assert len(counts) == 4
        assert (max(counts) < 4) == split
