"""The contract of the windows, which fixed, hopping and session windows implement; other modules rely on nothing else.

FoldReadings    new_buckets()   adds the readings of a bundle up in memory
                place()         assigns windows and timestamps to the sums, at the end of the bundle
EmitIntervals   emit()          combines the sums of all bundles, and emits each interval when its row is due
MakeRows                        converts `Interval`s to rows and dead letters
"""

from typing import Any, Protocol

import apache_beam as beam

from pipeline.aggregate.buckets import Bucketing


class Intervals(Bucketing, Protocol):
    """How event time is divided into intervals, and what happens to late readings."""

    @property
    def label(self) -> str:
        """The label of the step that `emit` returns, with every parameter that an update of a job must not change."""

    def emit(self) -> beam.PTransform[Any, beam.PCollection[Any]]:
        """Return the transform from sums to `Interval`s.

        Its input are two PCollections of what `place` yields: elements of `element_type`, and, as (start of the
        interval in microseconds since the epoch, key, sums), those whose interval may have expired. Its output are
        `Interval`s in the global window: each interval once when the watermark has passed the time its row is due,
        then again for late readings, and those that have expired.
        """
