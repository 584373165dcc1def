"""A running job can be updated to this graph: golden_*.json holds what `--update` compares by.

The service carries state, timers and buffered elements over from the old job's step to the new job's step of the same
name, and reads them with the new step's coders.
"""

import json
import os
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import DoFn
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import primitives
from apache_beam.runners.pipeline_context import PipelineContext

from pipeline import graph, main, options
from pipeline.fixed_windows import FixedIntervals, _AssignExpiryWindow, _AssignWindow
from pipeline.session_windows import SessionIntervals
from pipeline.sums import SECOND
from tests.template.conftest import SUBSCRIPTION

HERE = Path(__file__).parent
OUTPUT = "--output_table=sensor-stream-test:sensors.readings"
ACCEPT = "ACCEPT_GRAPH=1 .venv/bin/python -m pytest tests/template/test_update.py"

Steps = dict[str, dict[str, Any]]


def steps_of(graph: beam_runner_api_pb2.Pipeline) -> Steps:
    """Each step by its name: the coders of its outputs, and its state and timers."""
    components = graph.components
    coders = PipelineContext(components).coders

    def coder_of(pcollection_id: str) -> str:
        pcollection = components.pcollections[pcollection_id]
        window = components.windowing_strategies[pcollection.windowing_strategy_id].window_coder_id
        return f"{coders.get_by_id(pcollection.coder_id)} in {coders.get_by_id(window)}"

    steps = {}
    for transform in components.transforms.values():
        if transform.subtransforms:
            continue
        outputs = {tag if tag != "None" else "main": coder_of(output) for tag, output in transform.outputs.items()}
        step = {"kind": transform.spec.urn, "outputs": dict(sorted(outputs.items()))}
        if transform.spec.urn == primitives.PAR_DO.urn:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            step["state"] = {
                name: f"{state.protocol.urn} {coders.get_by_id(state.read_modify_write_spec.coder_id)}"
                for name, state in payload.state_specs.items()
            }
            step["timers"] = {
                name: beam_runner_api_pb2.TimeDomain.Enum.Name(timer.time_domain)
                for name, timer in payload.timer_family_specs.items()
            }
        steps[transform.unique_name] = {key: value for key, value in step.items() if value}
    return dict(sorted(steps.items()))


def breaks(before: Steps, after: Steps) -> list[str]:
    """What keeps a job with the steps `before` from being updated to `after`."""
    gone = [f"step {name} is gone" for name in before if name not in after]
    changed = [
        f"step {name}: {what} was {step.get(what)}, is {after[name].get(what)}"
        for name, step in before.items()
        if name in after
        for what in sorted(step.keys() | after[name].keys())
        if step.get(what) != after[name].get(what)
    ]
    return gone + changed


def golden(name: str, now: dict[str, Any]) -> dict[str, Any]:
    """Return golden_NAME.json, written anew if that is asked for."""
    path = HERE / f"golden_{name}.json"
    if os.environ.get("ACCEPT_GRAPH"):
        path.write_text(json.dumps(now, indent=1) + "\n")
    return json.loads(path.read_text())


@pytest.fixture(params=["fixed", "session"])
def golden_and_now(request) -> tuple[Steps, Steps]:
    now = steps_of(request.getfixturevalue(request.param).graph)
    return golden(request.param, now), now


def test_a_running_job_can_be_updated(golden_and_now):
    found = breaks(*golden_and_now)
    assert not found, (
        "\nThis graph cannot replace that of a running job with --update:\n  "
        + "\n  ".join(found)
        + "\nThe service would refuse it, or lose what the steps hold: readings of every open window and session."
        "\nIf a step is only named anew, name it as before, or launch with --transform-name-mappings=OLD=NEW."
        f"\nIf it is on purpose, running jobs must be drained, not updated: say so in the change, and run\n  {ACCEPT}\n"
    )


def test_new_steps_are_recorded(golden_and_now):
    golden, now = golden_and_now
    added = sorted(now.keys() - golden.keys())
    assert not added, f"\nNew steps; an update takes them in. To protect them from now on, run\n  {ACCEPT}\n{added}"


def test_the_service_takes_an_update_of_what_open_intervals_do_not_depend_on(launch, fixed):
    changed = launch(
        f"^~^input_subscription={SUBSCRIPTION}~output_table=sensor-stream-test:sensors.changed~sensors=Temp,Humidity"
        "~group_by_device=true~allowed_lateness=2h~max_future_skew=1h~rows_since=2026-11-22T13:00:00Z"
        "~keep_attributes=true~timestamp_attribute=time~id_attribute=id"
    )
    assert breaks(steps_of(fixed.graph), steps_of(changed.graph)) == []


@pytest.mark.parametrize("before", [[], ["--interval=1m", "--grace_period=10s"], ["--window=session"]])
@pytest.mark.parametrize(
    "change",
    [
        "--interval=5m",
        "--grace_period=1m",
        "--session_gap=5m",
        "--window=fixed",
        "--window=session",
        "--on_late=revise",
    ],
)
def test_the_service_refuses_an_update_that_would_stamp_open_intervals_wrongly(before, change):
    name = change.partition("=")[0]
    session = "--window=session" in before
    before_, after = graph_of(before), graph_of([flag for flag in before if not flag.startswith(name)] + [change])
    # A parameter of the other kind of window changes nothing; late sessions are kept whole whatever becomes of them.
    same = (
        change in before
        or (session and name in ("--interval", "--on_late"))
        or (not session and name == "--session_gap")
    )
    same = same or (change == "--window=fixed" and not session)
    found = breaks(steps_of(before_), steps_of(after))
    if same:
        assert found == []
    else:
        assert [step for step in found if step.startswith("step EmitIntervals") and step.endswith(" is gone")]


@pytest.mark.parametrize("method", ["storage_write", "upsert"])
def test_another_write_method_needs_a_drain(method):
    before, after = graph_of([]), graph_of([f"--write_method={method}"])
    assert any(step.startswith("step WriteRows/Insert/") for step in breaks(steps_of(before), steps_of(after)))


def graph_of(flags: list[str]) -> beam_runner_api_pb2.Pipeline:
    job, beam_options = options.parse(
        [f"--input_subscription={SUBSCRIPTION}", "--runner=DataflowRunner", OUTPUT, *flags]
    )
    pipeline = beam.Pipeline(options=beam_options)
    graph.build(pipeline, job, main._source(job, True), main._row_sink(job), main._dead_letter_sink(job))
    return pipeline.to_runner_api()


class Kept:
    """State and timer in one, as a DoFn writes them."""

    value: Any = None

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def set(self, when: Any) -> None:
        self.value = when


def folded(intervals: FixedIntervals | SessionIntervals) -> Any:
    buckets = intervals.new_buckets(by_device=True)
    buckets.add(iter([(100 * SECOND, "device-1", {"Temp": 21.5})]))
    [(_, held)] = buckets.drain()
    return held


def test_what_open_windows_and_sessions_hold_is_of_the_same_shape():
    fixed, sessions = FixedIntervals(15, 5, 3600, False), SessionIntervals(60, 5, 3600, False)
    [in_window] = _AssignWindow(fixed).process(folded(fixed))
    [until_expiry] = _AssignExpiryWindow(fixed).process(folded(fixed))
    state = Kept()
    emit: DoFn = sessions.emit().fn
    emit.process(folded(sessions), state, Kept())
    now = {
        "fixed windows": repr(in_window.value),
        "fixed windows until expiry": repr(until_expiry.value),
        "sessions": repr(folded(sessions)),
        "state of sessions": repr(state.value),
    }
    assert now == golden("held", now), (
        "\nThe coders are the same for any shape, so the service would update a running job and its workers fail on "
        f"what open windows and sessions hold.\nIf it is on purpose, running jobs must be drained; run\n  {ACCEPT}\n"
    )


STEP = {"kind": "pardo", "outputs": {"main": "StrUtf8Coder"}, "state": {"seen": "bag"}, "timers": {"due": "EVENT"}}


class TestBreaks:
    def test_nothing_changed(self):
        assert breaks({"A": STEP}, {"A": STEP}) == []

    def test_a_new_step_is_no_break(self):
        assert breaks({"A": STEP}, {"A": STEP, "B": STEP}) == []

    def test_a_new_name(self):
        assert breaks({"A": STEP}, {"B": STEP}) == ["step A is gone"]

    @pytest.mark.parametrize(
        ("what", "value"), [("outputs", {"main": "BytesCoder"}), ("state", {"seen": "set"}), ("timers", {})]
    )
    def test_another_coder_state_or_timer(self, what, value):
        [message] = breaks({"A": STEP}, {"A": {**STEP, what: value}})
        assert message == f"step A: {what} was {STEP[what]}, is {value}"

    def test_state_that_is_new(self):
        stateless = {key: value for key, value in STEP.items() if key != "state"}
        assert breaks({"A": stateless}, {"A": STEP}) == ["step A: state was None, is {'seen': 'bag'}"]


class TestStepsOf:
    def test_the_session_keeps_state_and_a_timer(self, session):
        step = steps_of(session.graph)["EmitIntervals"]
        assert step["state"] == {"sessions": "beam:user_state:bag:v1 FastPrimitivesCoder"}
        assert step["timers"] == {"ts-due": "EVENT_TIME"}
