"""Elements and state that an update hands over: every version reads the bytes that earlier versions wrote.

golden_values_VERSION.json holds those bytes: of elements that wait at a GroupByKey, and of state cells. A new version
reads them with its own coders.
"""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from apache_beam import coders
from apache_beam.coders import Coder
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type
from apache_beam.utils.timestamp import Timestamp

from pipeline.aggregate.activity import BundleActivity, DeviceActivity
from pipeline.aggregate.runs import Run
from pipeline.aggregate.statistics import STATISTICS, Statistics
from pipeline.aggregate.sums import SECOND
from pipeline.silences import NoticeSilences
from pipeline.version import VERSION
from pipeline.windows.fixed import FixedIntervals
from pipeline.windows.session import SessionIntervals
from tests.contract.golden import ACCEPT, HERE, golden
from tests.pipeline.conftest import StateCell, Timers, drained

READINGS = [(100 * SECOND, "device-1", {"Temp": 21.5, "AtmP": -0.0}), (101 * SECOND, "device-1", {"Temp": 1e300})]
EVERY = Statistics(list(STATISTICS))


def coder_of(element_type: Any) -> Coder:
    """Return the coder that Beam takes for elements of this type."""
    return coders.registry.get_coder(convert_to_beam_type(element_type))


def element_of(intervals: Any, now: float) -> Any:
    """Return the only element of a bundle of READINGS that arrives at a fixed time, drained at `now` in seconds."""
    with patch("time.time_ns", return_value=100 * 10**9):
        [element] = drained(intervals, READINGS, now)
    return element.value


def values() -> Iterator[tuple[str, Coder, Any]]:
    """Yield the name, the coder and the value of everything that an update hands over."""
    for name, statistics in (("means", Statistics(["mean"])), ("every statistic", EVERY)):
        fixed = FixedIntervals(15, 5, 3600, True, statistics, by_device=True)
        sharded = FixedIntervals(15, 5, 3600, False, statistics, by_device=True)
        sessions = SessionIntervals(60, 5, 3600, True, statistics, by_device=True)
        for kind, intervals in (("sums", fixed), ("shard", sharded), ("session", sessions)):
            yield f"{kind} of {name}", coder_of(intervals.element_type), element_of(intervals, 100)
        yield (
            f"sums of {name} that may have expired",
            coder_of(tuple[int, Any]),
            (7, element_of(fixed, 100_000).value[1]),
        )
        yield from _session_state(name, sessions)
    yield from _silence_state()


def _session_state(name: str, sessions: SessionIntervals) -> Iterator[tuple[str, Coder, Any]]:
    state, timers = StateCell(), Timers()
    emit: Any = sessions.emit().fn
    emit.process(element_of(sessions, 100), state, timers)
    yield f"state of an open session of {name}", emit.SESSIONS.coder, state.value
    for tag, due in timers.fire(Timestamp(1_000)):
        list(emit.emit_due("device-1", tag, due, state, timers))
    yield f"state of a session of {name} that has a row", emit.SESSIONS.coder, state.value


def _silence_state() -> Iterator[tuple[str, Coder, Any]]:
    activity, state, timers = DeviceActivity(60 * SECOND), StateCell(), Timers()
    list(activity.observe(iter(READINGS)))
    element = next(element for _, element in activity.drain() if element[0] == "device-1")
    yield "activity", coder_of(tuple[str, BundleActivity]), element
    clock = [100.0]
    notice: Any = NoticeSilences(60, 5, lambda: clock[0])._notice
    notice.process(element, state, timers)
    yield "state of an active device", notice.STATE.coder, state.value
    clock[0] = 1_000.0
    for _, due in timers.fire(Timestamp(166)):
        notice.notice_due("device-1", due, state, timers)
    yield "state of a silent device", notice.STATE.coder, state.value
    notice.process(("device-1", BundleActivity([Run(300 * SECOND, 300 * SECOND)])), state, timers)
    yield "state of a device that has resumed", notice.STATE.coder, state.value


def test_this_version_writes_the_recorded_bytes():
    now = {name: coder.encode(value).hex() for name, coder, value in values()}
    assert now == golden(f"values_{VERSION}", now), (
        f"\n{VERSION} writes other bytes than recorded. If it is released, set a new version first. To accept the "
        f"change, run\n  {ACCEPT}\n"
    )


@pytest.mark.parametrize("file", sorted(HERE.glob("golden_values_*.json")), ids=lambda file: file.stem)
def test_this_version_reads_the_bytes_of_earlier_versions(file):
    now = {name: (coder, value) for name, coder, value in values()}
    for name, encoded in json.loads(file.read_text()).items():
        coder, value = now[name]
        found = coder.decode(bytes.fromhex(encoded))
        # Unlike ==, repr distinguishes -0.0 from 0.0 and lists from tuples.
        assert (type(found), repr(found)) == (type(value), repr(value)), name
