"""A running job can be updated to this graph: golden_*.json holds what `--update` compares by.

The service carries state, timers and buffered elements over from the old job's step to the new job's step of the same
name, and reads them with the new step's coders.
"""

import re
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import DoFn
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import primitives
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.utils.timestamp import Timestamp

from pipeline import graph, main
from pipeline.aggregate.activity import BundleActivity, DeviceActivity
from pipeline.aggregate.runs import Run
from pipeline.aggregate.shards import ShardCoder
from pipeline.aggregate.sums import SECOND
from pipeline.launch import options
from pipeline.silences import NoticeSilences
from pipeline.windows.fixed import FixedIntervals, _AssignExpiryWindow
from pipeline.windows.session import SessionIntervals
from tests.contract.golden import ACCEPT, golden
from tests.deploy.template.launched import SUBSCRIPTION
from tests.pipeline.conftest import StateCell, Timers, drained

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


KINDS = ["fixed", "long", "hopping", "session", "silences"]


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.needs("gcloud")) for kind in KINDS])
def golden_and_now(request) -> tuple[Steps, Steps]:
    now = steps_of(request.getfixturevalue(request.param).graph)
    return golden(request.param, now), now


def test_running_job_can_be_updated(golden_and_now):
    found = breaks(*golden_and_now)
    assert not found, (
        "\nThis graph cannot replace that of a running job with --update:\n  "
        + "\n  ".join(found)
        + "\nThe service would refuse it, or lose what the steps hold: readings of every open window and session."
        "\nIf a step only has a new name, name it as before, or launch with --transform-name-mappings=OLD=NEW."
        f"\nIf it is on purpose, running jobs must be drained, not updated: say so in the change, and run\n  {ACCEPT}\n"
    )


def test_silence_after_cannot_be_added_by_an_update(fixed, silences):
    [broken] = breaks(steps_of(fixed.graph), steps_of(silences.graph))
    assert broken.startswith("step FoldReadings/Fold/ParDo(_Fold): outputs was")


def test_new_steps_are_recorded(golden_and_now):
    golden, now = golden_and_now
    added = sorted(now.keys() - golden.keys())
    assert not added, f"\nNew steps; an update takes them in. To protect them from now on, run\n  {ACCEPT}\n{added}"


def test_update_is_accepted_if_open_intervals_do_not_depend_on_the_parameter(launch, fixed):
    changed = launch(
        f"^~^input_subscription={SUBSCRIPTION}~output_table=sensor-stream-test:sensors.changed~sensors=Temp,Humidity"
        "~allowed_lateness=2h~max_future_skew=1h~rows_since=2026-11-22T13:00:00Z"
        "~keep_attributes=true~timestamp_attribute=time~id_attribute=id"
    )
    assert breaks(steps_of(fixed.graph), steps_of(changed.graph)) == []


SESSION = "--window=session"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["--interval=5m"]),
        ([], ["--grace_period=1m"]),
        ([], ["--on_late=revise"]),
        # A straggler within the new lateness would begin its row again, at revision 0.
        (["--on_late=revise"], ["--on_late=revise", "--allowed_lateness=2h"]),
        (["--on_late=revise", "--allowed_lateness=2h"], ["--on_late=revise"]),
        ([], [SESSION]),
        (["--interval=5m"], []),
        (["--interval=5m"], ["--interval=10m"]),
        (["--interval=15m"], ["--interval=1h"]),
        (["--interval=5m"], [SESSION]),
        ([SESSION], []),
        ([SESSION], [SESSION, "--session_gap=5m"]),
        ([SESSION], [SESSION, "--grace_period=1m"]),
        ([SESSION, "--session_gap=5m"], [SESSION]),
        ([], ["--statistics=mean,max"]),
        # Devices are shuffled by the shard then, and not when nobody keeps them apart.
        ([], ["--group_by_device=true"]),
        (["--group_by_device=true"], []),
        # Rows that are open are then each a device's.
        (["--on_late=revise", "--group_by_device=true"], ["--on_late=revise"]),
        ([SESSION, "--group_by_device=true"], [SESSION]),
        # Sessions that are written are held only with `revise`, and must not be written again without it.
        ([SESSION, "--on_late=revise"], [SESSION]),
        ([SESSION], [SESSION, "--on_late=revise"]),
    ],
)
def test_update_is_refused_if_open_intervals_depend_on_the_parameter(before, after):
    found = breaks(steps_of(graph_of(*before)), steps_of(graph_of(*after)))
    assert [step for step in found if re.fullmatch(r"step EmitIntervals.* is gone", step)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["--session_gap=5m"]),
        (["--interval=5m"], ["--interval=300s", "--allowed_lateness=2h"]),
        ([SESSION], [SESSION, "--interval=5m"]),
        ([SESSION, "--on_late=revise"], [SESSION, "--on_late=revise", "--allowed_lateness=2h"]),
    ],
)
def test_update_is_accepted_if_the_parameter_does_not_apply(before, after):
    assert breaks(steps_of(graph_of(*before)), steps_of(graph_of(*after))) == []


@pytest.mark.parametrize("change", [["--hop=3s"], ["--interval=30s"], ["--window=fixed", "--hop="]])
def test_update_is_refused_if_hopping_windows_differ(change):
    before = ["--window=hopping", "--hop=5s"]
    found = breaks(steps_of(graph_of(*before)), steps_of(graph_of(*before, *change)))
    assert [step for step in found if step.startswith("step EmitIntervals") and step.endswith(" is gone")]


def test_update_is_accepted_if_statistics_have_the_same_components():
    assert breaks(steps_of(graph_of()), steps_of(graph_of("--statistics=sum,count"))) == []


@pytest.mark.parametrize("method", ["storage_write", "upsert"])
def test_another_write_method_needs_a_drain(method):
    found = breaks(steps_of(graph_of()), steps_of(graph_of(f"--write_method={method}")))
    assert "step WriteRows/Insert is gone" in found


def graph_of(*flags: str) -> beam_runner_api_pb2.Pipeline:
    """The graph as `main` builds it, with the source that Dataflow gets."""
    source = f"--input_subscription={SUBSCRIPTION}"
    job, beam_options = options.parse([source, "--output_table=my-project:d.t", *flags])
    pipeline = beam.Pipeline(options=beam_options)
    graph.build(pipeline, job, main._source(job, True), main._row_sink(job), main._dead_letter_sink(job))
    return pipeline.to_runner_api()


def folded(intervals: FixedIntervals | SessionIntervals, now: float = 100) -> Any:
    [element] = drained(intervals, [(100 * SECOND, "device-1", {"Temp": 21.5})], now)
    return element.value


def test_open_windows_and_sessions_hold_values_of_the_same_shape():
    fixed, sessions = (
        FixedIntervals(15, 5, 3600, True, by_device=True),
        SessionIntervals(60, 5, 3600, False, by_device=True),
    )
    shards = FixedIntervals(15, 5, 3600, False, by_device=True)
    _, (_, aged) = folded(fixed, now=10_000).value
    [until_expiry] = _AssignExpiryWindow(fixed).process(aged)
    shard, by_device = folded(shards)
    state, timers = StateCell(), Timers()
    emit: DoFn = sessions.emit().fn
    emit.process(folded(sessions), state, timers)
    activity, watch, timers = DeviceActivity(60 * SECOND), StateCell(), Timers()
    list(activity.observe(iter([(100 * SECOND, "device-1", {"Temp": 21.5})])))
    of_device = next(drained for _, drained in activity.drain() if drained[0] == "device-1")
    clock = [100.0]
    notice: Any = NoticeSilences(60, 5, lambda: clock[0])._notice
    notice.process(of_device, watch, timers)
    clock[0] = 165.0
    [(_, due)] = timers.fire(Timestamp(165))
    notice.notice_due("device-1", due, watch, timers)
    silent = repr(watch.value)
    notice.process(("device-1", BundleActivity([Run(300 * SECOND, 300 * SECOND)])), watch, timers)
    now = {
        "fixed windows": repr(folded(fixed)),
        "fixed windows, by the shard": f"{shard}: {ShardCoder().encode(by_device).hex(' ')}",
        "fixed windows until expiry": repr(until_expiry.value),
        "sessions": repr(folded(sessions)),
        "state of sessions": repr(state.value),
        "activity": repr(of_device),
        "state of a silent device": silent,
        "state of a device that is back": repr(watch.value),
    }
    assert now == golden("held", now), (
        "\nThe coders are the same for any shape, so the service would update a running job and its workers fail on "
        f"what open windows and sessions hold.\nIf it is on purpose, running jobs must be drained; run\n  {ACCEPT}\n"
    )


STEP = {"kind": "pardo", "outputs": {"main": "StrUtf8Coder"}, "state": {"seen": "bag"}, "timers": {"due": "EVENT"}}


class TestBreaks:
    def test_equal_steps_have_no_breaks(self):
        assert breaks({"A": STEP}, {"A": STEP}) == []

    def test_new_step_is_no_break(self):
        assert breaks({"A": STEP}, {"A": STEP, "B": STEP}) == []

    def test_renamed_step_is_gone(self):
        assert breaks({"A": STEP}, {"B": STEP}) == ["step A is gone"]

    @pytest.mark.parametrize(
        ("what", "value"), [("outputs", {"main": "BytesCoder"}), ("state", {"seen": "set"}), ("timers", {})]
    )
    def test_changed_coder_state_or_timer_is_named(self, what, value):
        [message] = breaks({"A": STEP}, {"A": {**STEP, what: value}})
        assert message == f"step A: {what} was {STEP[what]}, is {value}"

    def test_new_state_is_named(self):
        stateless = {key: value for key, value in STEP.items() if key != "state"}
        assert breaks({"A": stateless}, {"A": STEP}) == ["step A: state was None, is {'seen': 'bag'}"]


class TestStepsOf:
    def test_session_has_state_and_a_timer(self, session):
        step = steps_of(session.graph)["EmitIntervals(on_late revise, key device)/EmitSessions"]
        assert step["state"] == {
            "sessions": "beam:user_state:bag:v1 sensor_stream:coder:device_sessions:v1",
        }
        assert step["timers"] == {"ts-due": "EVENT_TIME"}
