"""What a running job must keep is in the name of the step that holds it."""

import pytest

from pipeline.aggregate.statistics import Statistics
from pipeline.windows.fixed import FixedIntervals
from pipeline.windows.hopping import PanedIntervals
from pipeline.windows.labels import emit_label
from pipeline.windows.session import SessionIntervals


@pytest.mark.parametrize(
    ("intervals", "label"),
    [
        (FixedIntervals(15, 5, 3600, False), "EmitIntervals"),
        (FixedIntervals(15, 5, 60, False), "EmitIntervals"),
        (FixedIntervals(90, 5, 3600, False), "EmitIntervals(interval 90s)"),
        (FixedIntervals(300, 0, 3600, False), "EmitIntervals(interval 5m, grace_period 0s)"),
        (FixedIntervals(15, 5, 3600, True), "EmitIntervals(on_late revise)"),
        (FixedIntervals(15, 5, 60, True), "EmitIntervals(on_late revise, allowed_lateness 1m)"),
        (FixedIntervals(15, 5, 3600, False, Statistics(["count", "mean"])), "EmitIntervals"),
        (FixedIntervals(15, 5, 3600, False, Statistics(["max"])), "EmitIntervals(components highest)"),
        (FixedIntervals(15, 5, 3600, False, by_device=True), "EmitIntervals(key 32 shards)"),
        (FixedIntervals(15, 5, 3600, True, by_device=True), "EmitIntervals(on_late revise, key device)"),
        (FixedIntervals(15, 5, 3600, False, max_future_skew=60), "EmitIntervals"),
        (PanedIntervals(15, 5, 3600, False, hop=5, pane=5), "EmitIntervals(hop 5s)"),
        (PanedIntervals(15, 5, 0, True, hop=5, pane=5), "EmitIntervals(on_late revise, allowed_lateness 0s, hop 5s)"),
        (PanedIntervals(60, 5, 3600, False, hop=1, pane=1), "EmitIntervals(interval 1m, hop 1s)"),
        (PanedIntervals(86_400, 5, 3600, False, hop=86_400, pane=900), "EmitIntervals(interval 24h, pane 15m)"),
        (PanedIntervals(86_400, 5, 3600, False, hop=7200, pane=900), "EmitIntervals(interval 24h, hop 2h, pane 15m)"),
        (SessionIntervals(60, 5, 3600, True), "EmitIntervals(on_late revise)"),
        (SessionIntervals(60, 5, 60, True), "EmitIntervals(on_late revise)"),
        (SessionIntervals(60, 5, 3600, False, by_device=True), "EmitIntervals(key device)"),
        (SessionIntervals(60, 5, 3600, False, Statistics(["sum"])), "EmitIntervals(components sum)"),
        (SessionIntervals(7200, 60, 3600, False), "EmitIntervals(session_gap 2h, grace_period 1m)"),
    ],
)
def test_label_names_parameters_that_are_not_the_default(intervals, label):
    assert intervals.label == label


def test_two_lengths_never_share_a_label():
    assert len({emit_label(interval=(seconds, 15)) for seconds in range(1, 8000)}) == 7999
