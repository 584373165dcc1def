"""Runs of sessions and of silences: which of them a reading touches, and how many are looked at to find out."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.aggregate import runs as runs_module
from pipeline.aggregate.activity import DeviceActivity
from pipeline.aggregate.buckets import SessionBuckets
from pipeline.aggregate.runs import Run, touching
from pipeline.aggregate.statistics import MEANS
from pipeline.aggregate.sums import SECOND
from pipeline.decode.reading import Reading
from tests.pipeline.conftest import NOON

GAP = 10


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.integers(GAP, 3 * GAP), st.integers(0, 2 * GAP)), max_size=8),
    first=st.integers(-2 * GAP, 20 * GAP),
    length=st.integers(0, 5 * GAP),
)
def test_touching_finds_exactly_the_runs_less_than_a_gap_away(steps, first, length):
    runs: list[Run] = []
    at = 0
    for pause, span in steps:
        runs.append(Run(at + pause, at + pause + span))
        at += pause + span
    new = Run(first, first + length)
    near = touching(runs, new, GAP)
    assert runs[near] == [run for run in runs if run.first - new.last < GAP and new.first - run.last < GAP]
    before, after = runs[: near.start], runs[near.stop :]
    assert all(run.last <= new.first - GAP for run in before)
    assert all(run.first >= new.last + GAP for run in after)


class Counted(list):
    """A list that counts how often one of its items is read."""

    reads = 0

    def __getitem__(self, place: Any) -> Any:
        Counted.reads += 1
        return super().__getitem__(place)


def in_sessions(readings: Iterator[Reading]) -> int:
    buckets = SessionBuckets(GAP, MEANS, by_device=True)
    assert not buckets.add(readings)
    [(_, runs)] = buckets.drain()
    return len(runs)


def in_silences(readings: Iterator[Reading]) -> int:
    activity = DeviceActivity(GAP * SECOND)
    list(activity.observe(readings))
    return len(dict(element for _, element in activity.drain())["a"].runs)


@pytest.mark.parametrize("count", [1_000, 2_000])
@pytest.mark.parametrize("add", [in_sessions, in_silences])
def test_insert_examines_no_more_runs_than_bisection(monkeypatch, add: Callable[[Iterator[Reading]], int], count: int):
    readings: list[Reading] = [((NOON + n * GAP) * SECOND, "a", {"Temp": 1.0}) for n in range(count)]
    random.Random(1).shuffle(readings)
    monkeypatch.setattr(Counted, "reads", 0)
    monkeypatch.setattr(runs_module, "touching", lambda runs, new, gap: touching(Counted(runs), new, gap))
    assert add(iter(readings)) == count
    # Twice, as both ends are looked for; looking at all runs of each would be count / 2.
    assert count < Counted.reads <= count * 2 * (math.log2(count) + 1)
