"""What a coder returns equals what went in, in type too, for all that passes a coder in the graph."""

import subprocess
import sys
from typing import Any

import pytest
from apache_beam import coders
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type
from apache_beam.utils.plugin import BeamPlugin
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.aggregate.activity import BundleActivity, DeviceActivity
from pipeline.aggregate.shards import ShardCoder, by_shard
from pipeline.aggregate.statistics import STATISTICS, Statistics
from pipeline.aggregate.sums import SECOND, CombineSums, Interval, SumsOf
from pipeline.dead_letters import DEAD_LETTERS
from pipeline.silences import NoticeSilences
from pipeline.windows.fixed import MAYBE_EXPIRED, FixedIntervals
from pipeline.windows.session import SessionIntervals
from tests.pipeline.conftest import StateCell, Timers, drained

SETTINGS = settings(max_examples=50, deadline=None, derandomize=True)

# From the year 2000 to 2100, in microseconds.
moments = st.integers(946_684_800_000_000, 4_102_444_800_000_000)
devices = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.floats())
readings = st.lists(st.tuples(moments, devices, values), min_size=1, max_size=10)
some_statistics = st.lists(st.sampled_from(list(STATISTICS)), min_size=1, unique=True).map(Statistics)


def coder_of(hint: Any) -> coders.Coder:
    """Return the coder that Beam takes for the outputs of a step that declares this type."""
    return coders.registry.get_coder(convert_to_beam_type(hint))


def check(coder: coders.Coder, value: Any) -> Any:
    """Assert that the coder returns the same; `repr` tells -0.0, nan, lists and tuples apart, where == does not."""
    found = coder.decode(coder.encode(value))
    assert (type(found), repr(found)) == (type(value), repr(value))
    return found


def sums_of_devices(chosen: Statistics, found: list) -> SumsOf:
    sums_of: SumsOf = {}
    for _, device, values in chosen.lift(iter(found)):
        chosen.add(sums_of.setdefault(device, {}), values)
    return sums_of


@SETTINGS
@given(chosen=some_statistics, found=readings)
def test_coders_preserve_shards_of_all_statistics(chosen, found):
    for key, shard in by_shard(sums_of_devices(chosen, found)):
        keyed = coder_of(FixedIntervals(15, 5, 3600, False, by_device=True).element_type)
        assert isinstance(keyed.value_coder(), ShardCoder)
        check(keyed, (key, shard))
        # On the way to the expiry grouping it is part of a larger value.
        check(coder_of(tuple[int, Any]), (7, (MAYBE_EXPIRED, (found[0][0], key, shard))))


@SETTINGS
@given(chosen=some_statistics, found=readings)
def test_coders_preserve_sums_accumulators_and_intervals_of_all_statistics(chosen, found):
    sums_of = sums_of_devices(chosen, found)
    for device, sums in sums_of.items():
        check(coder_of(tuple[str, Any]), (device, (found[0][0], sums)))
        check(FastPrimitivesCoder(), CombineSums(chosen.merge).merge_accumulators([sums, sums]))
    check(coder_of(Interval), Interval(found[0][0], found[0][0], sums_of, 3, "Late", found[0][0]))


@SETTINGS
@given(
    payload=st.binary(),
    attributes=st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    moment=moments,
)
def test_coders_preserve_dead_letters(payload, attributes, moment):
    refused = {"NotJson": 1}, "decode", "NotJson", "not JSON", payload, attributes, None, "id", moment
    check(coder_of(tuple[int, Any]), (3, (DEAD_LETTERS, refused)))


@pytest.mark.parametrize("revise", [False, True], ids=["dead_letter", "revise"])
@SETTINGS
@given(chosen=some_statistics, bundles=st.lists(readings, max_size=4), steps=st.lists(moments, max_size=4))
def test_coders_preserve_sessions_and_their_state(revise, chosen, bundles, steps):
    intervals = SessionIntervals(60, 5, 3600, revise, chosen, by_device=True)
    emit: Any = intervals.emit()
    cells: dict[str, tuple[StateCell, Timers]] = {}
    for bundle, now in zip(bundles, steps, strict=False):
        for encoded in drained(intervals, bundle):
            element = check(coder_of(intervals.element_type), encoded.value)
            state, timers = cells.setdefault(element[0], (StateCell(), Timers()))
            for interval in emit.fn.process(element, state, timers):
                check(coder_of(Interval), interval)
            state.value = check(emit.fn.SESSIONS.coder, state.value)
        for device, (state, timers) in cells.items():
            for tag, due in timers.fire(Timestamp(micros=now)):
                for interval in emit.fn.emit_due(device, tag, due, state, timers):
                    check(coder_of(Interval), interval)
                state.value = check(emit.fn.SESSIONS.coder, state.value)


@SETTINGS
@given(bundles=st.lists(readings, max_size=4), steps=st.lists(moments, max_size=4))
def test_coders_preserve_activity_and_state_of_silences(bundles, steps):
    clock = [0.0]
    notice: Any = NoticeSilences(60, 5, lambda: clock[0])._notice
    cells: dict[str, tuple[StateCell, Timers]] = {}
    for bundle, now in zip(bundles, steps, strict=False):
        clock[0] = now / SECOND
        activity = DeviceActivity(60 * SECOND)
        list(activity.observe(iter(bundle)))
        for _, encoded in activity.drain():
            element = check(coder_of(tuple[str, BundleActivity]), encoded)
            state, timers = cells.setdefault(element[0], (StateCell(), Timers()))
            for silence in notice.process(element, state, timers):
                check(FastPrimitivesCoder(), silence)
            state.value = check(notice.STATE.coder, state.value)
        for device, (state, timers) in cells.items():
            for _, due in timers.fire(Timestamp(micros=now)):
                notice.notice_due(device, due, state, timers)
                if state.value is not None:
                    state.value = check(notice.STATE.coder, state.value)


@pytest.mark.parametrize(("name", "expected"), [("first", 1.0), ("last", 9.0)])
def test_merge_accepts_components_decoded_as_lists(name, expected):
    # Version 0.2 decoded the tuples of a shard as lists.
    chosen = Statistics([name])
    sums = [sums_of_devices(chosen, [(at * SECOND, "", {"Temp": value})])[""] for at, value in ((1, 1.0), (2, 9.0))]
    for held in (0, 1):
        listed = {"Temp": [list(component) for component in sums[held]["Temp"]]}
        for pair in ([listed, sums[1 - held]], [sums[1 - held], listed]):
            merged = CombineSums(chosen.merge).merge_accumulators(pair)
            assert chosen.values(merged["Temp"]) == [expected]
            assert type(merged["Temp"][0]) is tuple


def test_worker_knows_the_coders_of_a_pipeline_from_beams_plugins_alone():
    # As Beam's worker starts: it has imported nothing of the pipeline when it reads the coders of a job.
    script = (
        "import sys; from apache_beam.coders import Coder; from apache_beam.runners.worker import sdk_worker_main\n"
        "assert not [name for name in sys.modules if name.startswith('pipeline')]\n"
        "sdk_worker_main._import_beam_plugins(sys.argv[1:])\n"
        "print(*(urn for urn in Coder._known_urns if urn.startswith('sensor_stream:')), sep='\\n')"
    )
    plugins = [path for path in BeamPlugin.get_all_plugin_paths() if path.startswith("pipeline.")]
    worker = subprocess.run([sys.executable, "-c", script, *plugins], capture_output=True, text=True, check=True)
    assert sorted(worker.stdout.split()) == [
        "sensor_stream:coder:bundle_activity:v1",
        "sensor_stream:coder:bundle_runs:v1",
        "sensor_stream:coder:device_sessions:v1",
        "sensor_stream:coder:device_state:v1",
        "sensor_stream:coder:interval:v1",
        "sensor_stream:coder:shard:v1",
    ]
