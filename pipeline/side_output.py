"""One output for all elements that the fold rarely emits; they are split by tag after a GroupByKey.

Every output costs each bundle about 6 us of metrics, and every step tens of microseconds, even if a bundle has nothing
for them; and a bundle may have only ten messages. A runner ends its fused stage at a GroupByKey. Steps after it, such
as the sink of dead letters, therefore only run when they have elements.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, Repeatedly
from apache_beam.transforms.window import FixedWindows, GlobalWindows, IntervalWindow, TimestampCombiner
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.beam_internals import declare_windowing

# Tag of the side output, among the outputs of a step.
SIDE_OUTPUT = "side_output"

# Number of keys over which the elements are spread, so that several workers can process them if there are many.
_KEYS = 64

# Seconds for which a GroupByKey that must not drop anything accepts elements after the end of their window. No
# Timestamp before 2000 is accepted, so nothing is dropped before the watermark reaches the year 2200. Runners keep
# durations as 64-bit numbers, Prism of nanoseconds, which hold 292 years.
NEVER_DROPPED = 200 * 366 * 24 * 3600

_YEAR_2000 = 946_684_800  # in seconds

# The window of all elements: from 1970 to 2000, before every Timestamp. When the watermark has passed an element's
# timestamp, runners give the element the end of its window as timestamp when it leaves a GroupByKey. In the global
# window that is the end of time, at which the element would no longer hold the watermark.
_BEFORE_2000 = (IntervalWindow(Timestamp(0), Timestamp(_YEAR_2000)),)


def to_side_output(tag: str, element: Any, timestamp: Timestamp) -> beam.pvalue.TaggedOutput[str, Any]:
    """Return a side output that `SplitByTag` emits by `tag`; until then its `timestamp` holds back the watermark."""
    keyed = int(random.random() * _KEYS), (tag, element)
    return beam.pvalue.TaggedOutput(SIDE_OUTPUT, WindowedValue(keyed, timestamp, _BEFORE_2000))


class SplitByTag(beam.PTransform[beam.PCollection[Any], dict[str, beam.PCollection[Any]]]):
    """Emits the elements of the side output by their tags, in the global window, as soon as they arrive.

    Output: a dict of PCollections by tag.

    Args:
      tags: the element type of each tag.
    """

    def __init__(self, **tags: Any):
        super().__init__()
        self._tags = tags

    def expand(self, side_output: beam.PCollection[Any]) -> Any:
        windowing = beam.Windowing(
            FixedWindows(_YEAR_2000),
            triggerfn=Repeatedly(AfterCount(1)),
            accumulation_mode=AccumulationMode.DISCARDING,
            timestamp_combiner=TimestampCombiner.OUTPUT_AT_EARLIEST,
            allowed_lateness=NEVER_DROPPED,
        )
        split = beam.ParDo(_Split()).with_output_types(Any, **self._tags)
        grouped = declare_windowing(side_output, windowing) | "Group" >> beam.GroupByKey()
        by_tag = grouped | "Split" >> split.with_outputs(*self._tags)
        return {tag: declare_windowing(by_tag[tag], beam.Windowing(GlobalWindows())) for tag in self._tags}


class _Split(beam.DoFn):
    def process(
        self, element: tuple[int, Iterable[tuple[str, Any]]], timestamp: Any = beam.DoFn.TimestampParam
    ) -> Iterator[Any]:
        _, tagged = element
        for tag, value in tagged:
            yield beam.pvalue.TaggedOutput(tag, GlobalWindows.windowed_value(value, timestamp))
