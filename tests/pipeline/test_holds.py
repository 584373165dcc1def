"""What holds the watermark while sums are on their way to the step that combines their interval."""

import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.transforms.trigger import Repeatedly
from apache_beam.utils.timestamp import Timestamp

from pipeline.fixed_windows import FixedIntervals, _AssignExpiryWindow
from pipeline.hopping_windows import HoppingIntervals
from pipeline.sums import SECOND
from tests.pipeline.conftest import NOON

FIXED = FixedIntervals(15, 5, 3600, False)
HOPPING = HoppingIntervals(15, 5, 3600, False, hop=5)


@pytest.mark.parametrize(
    ("intervals", "due"),
    [(FIXED, [20]), (HOPPING, [10, 15, 20])],
    ids=["fixed", "hopping"],
)
def test_sums_until_expiry_have_the_time_that_their_row_is_due_as_timestamp(intervals, due):
    # Hopping: the pane of 00:00 to 00:05 is in the intervals that start at -00:10, -00:05 and 00:00.
    element = NOON * SECOND, "", {"Temp": [1.0, 1]}
    found = list(_AssignExpiryWindow(intervals).process(element))
    # The last microsecond before it: the watermark passes it when it reaches the due time.
    assert [value.timestamp for value in found] == [Timestamp(NOON + seconds) - Timestamp(micros=1) for seconds in due]
    assert [value.windows[0].end for value in found] == [Timestamp(NOON + seconds + 3600) for seconds in due]


@pytest.mark.parametrize("intervals", [FIXED, HOPPING], ids=["fixed", "hopping"])
def test_the_expiry_grouping_keeps_the_earliest_timestamp_and_releases_it_with_each_pane(intervals):
    windowing = intervals.expiry_windowing
    proto = windowing.to_runner_api(PipelineContext())
    assert proto.output_time == beam_runner_api_pb2.OutputTime.EARLIEST_IN_PANE
    # With a trigger that has an on-time pane, Beam's Python trigger driver holds on until the window's end.
    assert isinstance(windowing.triggerfn, Repeatedly)
    assert not windowing.triggerfn.has_ontime_pane()
