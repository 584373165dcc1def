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
from apache_beam.transforms.window import GlobalWindow, GlobalWindows, TimestampCombiner
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

# Tag of what was set aside, among the outputs of a step.
ASIDE = "aside"

# Over which it is spread, should it ever be much.
_KEYS = 64

_EVERYWHEN = (GlobalWindow(),)


def set_aside(tag: str, element: Any, timestamp: Timestamp) -> beam.pvalue.TaggedOutput:
    """Return an element that `TellApart` puts out by `tag`; its timestamp holds the watermark back until then."""
    keyed = int(random.random() * _KEYS), (tag, element)
    return beam.pvalue.TaggedOutput(ASIDE, WindowedValue(keyed, timestamp, _EVERYWHEN))


def in_windows(elements: beam.PCollection, windowing: beam.Windowing) -> beam.PCollection:
    """Declare the windows in which a ParDo puts its elements out, and return them.

    It spares WindowInto, a step of its own. Beam's Reshuffle does the same by its `get_windowing`, but that speaks for
    all outputs of a step.
    """
    elements._windowing = windowing
    return elements


class TellApart(beam.PTransform):
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
            GlobalWindows(),
            triggerfn=Repeatedly(AfterCount(1)),
            accumulation_mode=AccumulationMode.DISCARDING,
            timestamp_combiner=TimestampCombiner.OUTPUT_AT_EARLIEST,
        )
        tell = beam.ParDo(_Tell()).with_output_types(Any, **self._tags)
        grouped = in_windows(aside, windowing) | "Group" >> beam.GroupByKey()
        told = grouped | "Tell" >> tell.with_outputs(*self._tags)
        return {tag: in_windows(told[tag], beam.Windowing(GlobalWindows())) for tag in self._tags}


class _Tell(beam.DoFn):
    def process(self, element: tuple[int, Iterable[tuple[str, Any]]]) -> Iterator[Any]:
        _, tagged = element
        for tag, value in tagged:
            yield beam.pvalue.TaggedOutput(tag, value)
