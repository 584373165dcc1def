"""What seldom leaves the fold leaves it by one output, whatever it is, and is told apart after a grouping.

A step takes tens of microseconds of each bundle, even of one that has nothing for it, and a bundle may be ten messages.
The grouping is where a runner ends its stage, so what only few messages need, such as all steps of the dead letters'
sink, is run when there is something for it, and not for every bundle.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, Repeatedly
from apache_beam.transforms.window import FixedWindows, GlobalWindows, IntervalWindow, TimestampCombiner
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

# Tag of what was set aside, among the outputs of a step.
SIDE_OUTPUT = "aside"

# Over which it is spread, should it ever be much.
_KEYS = 64

# Seconds for which a grouping that must not drop anything accepts elements after the end of their window. No Timestamp
# before 2000 is accepted, so nothing is dropped before the watermark reaches the year 2200. Runners keep durations as
# 64-bit numbers, Prism of nanoseconds, which hold 292 years.
NEVER_DROPPED = Duration(seconds=200 * 366 * 24 * 3600)

_YEAR_2000 = 946_684_800  # in seconds

# The window of all that is set aside: from 1970 to 2000, before every Timestamp. When the watermark has passed an
# element's timestamp, runners give the element the end of its window as timestamp when it leaves a grouping. In the
# global window that is the end of time, at which the element would no longer hold the watermark.
_BEFORE_ALL = (IntervalWindow(Timestamp(0), Timestamp(_YEAR_2000)),)


def to_side_output(tag: str, element: Any, timestamp: Timestamp) -> beam.pvalue.TaggedOutput:
    """Return an element that `SplitByTag` puts out by `tag`; its timestamp holds the watermark back until then."""
    keyed = int(random.random() * _KEYS), (tag, element)
    return beam.pvalue.TaggedOutput(SIDE_OUTPUT, WindowedValue(keyed, timestamp, _BEFORE_ALL))


def declare_windowing(elements: beam.PCollection, windowing: beam.Windowing) -> beam.PCollection:
    """Declare the windows in which a ParDo puts its elements out, and return them.

    It spares WindowInto, a step of its own. Beam's Reshuffle does the same by its `get_windowing`, but that speaks for
    all outputs of a step.
    """
    elements._windowing = windowing
    return elements


class SplitByTag(beam.PTransform):
    """Puts out what was set aside, by its tag, as soon as it is there.

    Args:
      tags: all there are, with the types of what is under them.
    """

    def __init__(self, **tags: Any):
        super().__init__()
        self._tags = tags

    def expand(self, aside: beam.PCollection) -> Any:
        """Apply the grouping."""
        windowing = beam.Windowing(
            FixedWindows(_YEAR_2000),
            triggerfn=Repeatedly(AfterCount(1)),
            accumulation_mode=AccumulationMode.DISCARDING,
            timestamp_combiner=TimestampCombiner.OUTPUT_AT_EARLIEST,
            allowed_lateness=NEVER_DROPPED,
        )
        tell = beam.ParDo(_Tell()).with_output_types(Any, **self._tags)
        grouped = declare_windowing(aside, windowing) | "Group" >> beam.GroupByKey()
        told = grouped | "Tell" >> tell.with_outputs(*self._tags)
        return {tag: declare_windowing(told[tag], beam.Windowing(GlobalWindows())) for tag in self._tags}


class _Tell(beam.DoFn):
    def process(
        self, element: tuple[int, Iterable[tuple[str, Any]]], timestamp: Any = beam.DoFn.TimestampParam
    ) -> Iterator[Any]:
        _, tagged = element
        for tag, value in tagged:
            yield beam.pvalue.TaggedOutput(tag, GlobalWindows.windowed_value(value, timestamp))
