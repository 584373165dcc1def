"""Bundles that fail and are retried: the same rows, each written by the attempt that was committed.

The local runner tries a bundle four times, each time from the state that the bundle before it left; FnApiRunner, if
set so, runs each bundle several times and commits the last run; its stages are fused steps.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct import transform_evaluator
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.aggregate.buckets import SummedRun
from pipeline.aggregate.sums import SECOND, Interval
from pipeline.dead_letters import new_id
from pipeline.rows import MakeRows
from pipeline.sinks import pubsub, storage_write
from pipeline.windows.session import SessionIntervals
from pipeline.windows.session_state import BundleRuns, DeviceSessions
from tests.pipeline.conftest import NOON, StateCell, Stream, Timers, captured, message, run_captured
from tests.pipeline.test_model import events, stream_of

REPEAT = "--direct_runner_bundle_repeat=2"
FLAGS = {
    "fixed": ("--allowed_lateness=30s",),
    "fixed, revised": ("--allowed_lateness=30s", "--on_late=revise"),
    "hopping": ("--window=hopping", "--interval=15s", "--hop=5s", "--allowed_lateness=30s"),
    "session": ("--window=session", "--session_gap=10s"),
    "session, revised": ("--window=session", "--session_gap=10s", "--on_late=revise", "--allowed_lateness=30s"),
}


class Injected(Exception):
    """A failure of a worker."""


class Failing:
    """A step of the local runner that fails, before or after any of its calls, up to three times for each bundle."""

    CHANCE = 0.1
    _attempts = threading.local()

    def __init__(self, evaluator: Any, rng: random.Random):
        self._evaluator = evaluator
        self._rng = rng

    def _run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        self._maybe_fail()
        result = call(*arguments)
        self._maybe_fail()
        return result

    def _maybe_fail(self) -> None:
        failed = getattr(self._attempts, "failed", 0)
        if failed < 3 and self._rng.random() < self.CHANCE:
            self._attempts.failed = failed + 1
            raise Injected

    def start_bundle(self) -> None:
        self._run(self._evaluator.start_bundle)

    def process_timer_wrapper(self, firing: Any) -> None:
        self._run(self._evaluator.process_timer_wrapper, firing)

    def process_element(self, element: Any) -> None:
        self._run(self._evaluator.process_element, element)

    def finish_bundle(self) -> Any:
        result = self._run(self._evaluator.finish_bundle)
        self._attempts.failed = 0
        return result


def fail_steps(patch: pytest.MonkeyPatch, seed: int) -> Counter:
    """Make steps fail; returns how often each was tried again."""
    rng, tries = random.Random(seed), Counter()
    get_evaluator = transform_evaluator.TransformEvaluatorRegistry.get_evaluator

    def get_failing(self: Any, applied: Any, bundle: Any, side_inputs: Any) -> Any:
        evaluator = get_evaluator(self, applied, bundle, side_inputs)
        # Sinks are written at least once: what a failed attempt has written stays.
        is_sink = applied.full_label.startswith("Write")
        if is_sink or not isinstance(evaluator, transform_evaluator._ParDoEvaluator):
            return evaluator
        tries[applied.full_label, getattr(Failing._attempts, "failed", 0) > 0] += 1
        return Failing(evaluator, rng)

    patch.setattr(transform_evaluator.TransformEvaluatorRegistry, "get_evaluator", get_failing)
    return tries


def comparable(rows: list[dict], dead_letters: list[dict]) -> tuple[list, list]:
    """Return rows and dead letters without the times and ids of a run."""
    of_run = ("WrittenAt", "dead_letter_id", "received_at")
    return tuple(
        sorted(json.dumps({k: v for k, v in row.items() if k not in of_run}, default=repr) for row in found)
        for found in (rows, dead_letters)
    )


class TestFailedBundles:
    @pytest.mark.parametrize("window", FLAGS)
    @settings(max_examples=2, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True)
    @given(events=events, seed=st.integers(0, 2**32))
    def test_leave_rows_and_dead_letters_unchanged(self, window, events, seed):
        flags = ("--group_by_device=true", *FLAGS[window])
        undisturbed = comparable(*run_captured(stream_of(events).add(b"unreadable").end(), *flags))
        with pytest.MonkeyPatch.context() as patch:
            fail_steps(patch, seed)
            rows, dead_letters = run_captured(stream_of(events).add(b"unreadable").end(), *flags)
        assert comparable(rows, dead_letters) == undisturbed
        assert len({dead_letter["dead_letter_id"] for dead_letter in dead_letters}) == len(dead_letters)

    def test_occur_in_steps_with_and_without_state_and_in_timers(self, monkeypatch):
        tries = fail_steps(monkeypatch, 1)
        stream = Stream()
        for second in range(0, 300, 5):
            stream.add(message(second, Temp=1, Device="a")).watermark(second)
        with captured() as (_, silences):
            run_captured(stream.end(), *FLAGS["session"], "--silence_after=3s", write_silences=silences)
        retried = {step for label, again in tries if again for step in label.split("/")}
        assert {"FoldReadings", "EmitIntervals(session_gap 10s)", "MakeRows", "NoticeSilences"} <= retried


class TestRepeatedBundles:
    @pytest.mark.parametrize("window", FLAGS)
    def test_repeat_rows_and_dead_letters(self, run_on_worker, window):
        messages = [message(second, Temp=second, Device=device) for second in (1, 2, 30) for device in "ab"]
        messages += [message(60 + second, Temp=1e308) for second in (0, 1)] + [b"bad", b"worse"]
        rows, dead_letters = run_on_worker(messages, "--group_by_device=true", REPEAT, *FLAGS[window])
        once_rows, once_dead_letters = run_on_worker(messages, "--group_by_device=true", *FLAGS[window])
        again, once = comparable(rows, dead_letters), comparable(once_rows, once_dead_letters)
        assert [set(found) for found in again] == [set(found) for found in once]
        assert len(rows) > len(once_rows)  # as often as the bundles ran
        contents = {dead_letter["dead_letter_id"]: dead_letter["payload"] for dead_letter in dead_letters}
        assert len(contents) == len(once_dead_letters)
        assert all(contents[dead_letter["dead_letter_id"]] == dead_letter["payload"] for dead_letter in dead_letters)

    @pytest.mark.parametrize(
        "sink",
        [
            lambda to: pubsub.WriteDeadLetters(to, None),
            lambda to: pubsub.WriteSilences(to, None),
            storage_write.AfterReshuffle,
        ],
        ids=["dead letters", "silences", "rows of sessions"],
    )
    def test_hand_only_committed_elements_to_sinks(self, sink):
        with captured() as (given_to_sink, to_sink):
            with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner", REPEAT])) as pipeline:
                elements = pipeline | beam.Create(range(3))
                # Another value with every attempt.
                _ = elements | beam.Map(lambda number: (number, new_id())) | sink(to_sink)
            assert len(given_to_sink) == 9
            assert len(set(given_to_sink)) == 3


class TestIds:
    def dead_letters(self, make: Any, interval: Interval) -> list[dict]:
        return [tagged.value for tagged in make.process(interval)]

    @pytest.mark.parametrize("error", ["Late", "Expired"])
    @pytest.mark.parametrize("first", [None, NOON * SECOND], ids=["interval", "session"])
    def test_equal_after_retry_that_rounds_sums_differently(self, error, first):
        make = MakeRows(("Temp",), by_device=True, numbered=False)._make_row
        start = NOON * SECOND
        made, again = (
            self.dead_letters(make, Interval(start, start + 15 * SECOND, {"a": {"Temp": [total, 3]}}, 2, error, first))
            for total in (0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1)
        )
        assert made[0]["payload"] != again[0]["payload"]
        assert made[0]["dead_letter_id"] == again[0]["dead_letter_id"]

    def test_of_a_late_run_of_a_session_that_is_processed_again_are_the_same(self):
        emit: Any = SessionIntervals(gap=10, grace=5, allowed_lateness=0, revise=False).emit().fn
        committed = DeviceSessions([], final_until=NOON * SECOND, late_runs=4)
        state, timers = StateCell(committed), Timers()
        at = (NOON - 1) * SECOND
        late_run = "", BundleRuns([SummedRun(at, at, {"Temp": [5.0, 1]})])
        [attempt] = emit.process(late_run, state, timers)
        state.value = committed
        assert emit.process(late_run, state, timers) == [attempt]
        # Another run, though its readings are equal.
        assert emit.process(late_run, state, timers) == [
            msgspec.structs.replace(attempt, revision=attempt.revision + 1)
        ]

    def test_differ_by_interval_device_pane_reason_and_job(self):
        start, sums = NOON * SECOND, {"Temp": [1.0, 1]}
        found = []
        for _job in range(2):
            make = MakeRows(("Temp",), by_device=True, numbered=False)._make_row
            for row_time in (start, start + 15 * SECOND):
                for revision in range(3):
                    for late in ("Late", "Expired"):
                        found += self.dead_letters(
                            make, Interval(row_time, row_time, {"a": sums, "b": sums}, revision, late)
                        )
        assert len({dead_letter["dead_letter_id"] for dead_letter in found}) == len(found) == 48

    @pytest.mark.parametrize("window", FLAGS)
    @pytest.mark.parametrize("watermark", [40, 1000])
    def test_differ_for_equal_readings_in_successive_late_panes(self, run_graph, window, watermark):
        stream = Stream().add(message(1, Temp=5)).watermark(watermark)
        for _ in range(3):
            stream.add(message(2, Temp=5))
        _, dead_letters = run_graph(stream, *FLAGS[window])
        assert len({dead_letter["dead_letter_id"] for dead_letter in dead_letters}) == len(dead_letters)
        assert dead_letters or "revised" in window

    @pytest.mark.parametrize("window", FLAGS)
    def test_differ_for_equal_readings_in_one_late_pane(self, run_graph, monkeypatch, window):
        # Each reading leaves the fold by itself.
        monkeypatch.setattr("pipeline.aggregate.buckets.MAX_BUCKETS", 1)
        stream = Stream().add(message(1, Temp=5)).watermark(1000).add(*[message(2, Temp=5)] * 3)
        _, dead_letters = run_graph(stream, *FLAGS[window])
        assert len({dead_letter["dead_letter_id"] for dead_letter in dead_letters}) == len(dead_letters)
        counts = [json.loads(dead_letter["payload"])["readings"]["Temp"]["count"] for dead_letter in dead_letters]
        assert sum(counts) == 3 * (3 if window == "hopping" else 1)
