"""The shipped graph against a model that keeps every reading: rows, revisions and dead letters of random streams.

The model is told what is sent, and in which bundles and at which watermarks, and works out from the documentation alone
what must come of it. Statistics are those of Python's own `statistics`, which is exact.

More streams than a test has time for: MODEL_EXAMPLES=1000 .venv/bin/python -m pytest tests/pipeline/test_model.py
"""

import json
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.statistics import STATISTICS
from tests.pipeline.conftest import NOON, Stream, message

SENSORS = ("AtmP", "Temp")
INTERVAL, HOP, GAP, GRACE, LATENESS = 15, 5, 10, 5, 30

SETTINGS = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "5")),
    deadline=None,
    derandomize="MODEL_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Reading:
    """Seconds after NOON, device, and values by sensor."""

    at: float
    device: str
    values: dict[str, float]


@dataclass
class Expected:
    """What must come out: by (device, row's time), the readings of each revision; and of each dead letter."""

    rows: dict[tuple[str, float], list[list[Reading]]] = field(default_factory=lambda: defaultdict(list))
    letters: list[tuple[str, str, float, list[Reading]]] = field(default_factory=list)


Event = list[Reading] | float  # a bundle, or where the watermark goes


def in_windows(events: list[Event], hop: int, revise: bool) -> Expected:
    """What comes of fixed or hopping windows of INTERVAL seconds."""
    # By window: bundles that came on time or, when revising, late; the first list is what was on time.
    on_time: dict[tuple[str, int], list[Reading]] = defaultdict(list)
    late: dict[tuple[str, int], list[list[Reading]]] = defaultdict(list)
    expected = Expected()
    watermark = -math.inf
    for event in events:
        if not isinstance(event, list):
            watermark = max(watermark, event)
            continue
        bundle: dict[tuple[str, int], list[Reading]] = defaultdict(list)
        for reading in event:
            last_start = math.floor(reading.at / hop) * hop
            for start in range(last_start - INTERVAL + hop, last_start + 1, hop):
                bundle[reading.device, start].append(reading)
        for (device, start), readings in bundle.items():
            due = start + INTERVAL + GRACE
            if watermark < due:
                on_time[device, start] += readings
            elif watermark >= due + LATENESS:
                expected.letters.append(("Expired", device, start, readings))
            elif revise:
                late[device, start].append(readings)
            else:
                expected.letters.append(("Late", device, start, readings))
    for key in on_time.keys() | late.keys():
        so_far = on_time.get(key, [])
        if so_far:
            expected.rows[key].append(so_far)
        for readings in late.get(key, []):
            so_far = so_far + readings
            expected.rows[key].append(so_far)
    return expected


@dataclass
class Session:
    readings: list[Reading]
    written: bool = False
    revisions: int = 0
    rows: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        return min(reading.at for reading in self.readings)

    @property
    def last(self) -> float:
        return max(reading.at for reading in self.readings)

    def touches(self, other: "Session") -> bool:
        return self.first < other.last + GAP and other.first < self.last + GAP


def in_sessions(events: list[Event], revise: bool) -> Expected:
    """What comes of sessions."""
    expected = Expected()
    sessions: dict[str, list[Session]] = defaultdict(list)
    final_until: dict[str, float] = defaultdict(lambda: -math.inf)
    keep = LATENESS if revise else 0
    watermark = -math.inf

    def write_due() -> None:
        for device, found in sessions.items():
            for session in sorted(found, key=lambda one: one.last):
                end = session.last + GAP
                if not session.written and end + GRACE <= watermark:
                    for gone in session.rows:
                        if gone != end:
                            expected.rows[device, gone].append([])
                    expected.rows[device, end].append(session.readings)
                    session.written, session.rows = True, [end]
                if session.written and end + GRACE + keep <= watermark:
                    found.remove(session)
                    final_until[device] = max(final_until[device], end)

    for event in [*events, math.inf]:
        if not isinstance(event, list):
            watermark = max(watermark, event)
            write_due()
            continue
        runs: dict[str, list[Session]] = defaultdict(list)
        for reading in event:
            _join(runs[reading.device], Session([reading]))
        for device, found in runs.items():
            for run in found:
                if run.last < final_until[device]:
                    error = "Expired" if revise else "Late"
                    expected.letters.append((error, device, run.last + GAP, run.readings))
                else:
                    _join(sessions[device], run)
        write_due()
    return expected


def _join(sessions: list[Session], new: Session) -> None:
    near = [session for session in sessions if session.touches(new)]
    for session in near:
        sessions.remove(session)
    # In the order in which they came, as `first` and `last` are to know it.
    readings = [reading for session in [*near, new] for reading in session.readings]
    sessions.append(Session(readings, rows=[row for session in near for row in session.rows]))


def worked_out(name: str, readings: list[Reading], sensor: str) -> Any:
    """Return a statistic of a sensor, from readings in the order in which they came."""
    found = [(reading.at, reading.values[sensor]) for reading in readings if sensor in reading.values]
    values = [value for _, value in found]
    if not values:
        return None
    if name == "stddev":
        return statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": lambda: statistics.mean(values),
        "count": lambda: len(values),
        "min": lambda: min(values),
        "max": lambda: max(values),
        "sum": lambda: math.fsum(values),
        "first": lambda: min(found, key=lambda one: one[0])[1],
        "last": lambda: max(reversed(found), key=lambda one: one[0])[1],
    }[name]()


def agree(name: str, found: Any, readings: list[Reading], sensor: str) -> bool:
    wanted = worked_out(name, readings, sensor)
    if found is None or wanted is None or name in ("count", "min", "max", "first", "last"):
        return found == wanted and type(found) is type(wanted)
    # Of values of both signs, the rounding of a sum is as large as the values make it.
    largest = max(abs(reading.values[sensor]) for reading in readings if sensor in reading.values)
    # The squares of what is below 1e-154 are none.
    room = 1e-150 if name == "stddev" else 1e-15 * largest * len(readings)
    return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=room)


def seconds(timestamp: str) -> float:
    hour, minute, second = timestamp[11:-1].split(":")
    return (int(hour) - 13) * 3600 + int(minute) * 60 + float(second)


def column(sensor: str, name: str) -> str:
    return sensor if name == "mean" else f"{sensor}_{name}"


def check_rows(rows: list[dict], expected: Expected, names: list[str], revise: bool, in_panes: bool) -> None:
    found = defaultdict(list)
    for row in rows:
        found[row.get("Device") or "", seconds(row["Timestamp"])].append(row)
    assert found.keys() == expected.rows.keys()
    for key, all_revisions in expected.rows.items():
        revisions = all_revisions
        found[key].sort(key=lambda row: row.get("Revision", 0))
        if in_panes and revise:
            # Late panes of one bundle may each revise the row, or at once: only what comes of them is sure.
            assert len(found[key]) >= len(revisions), key
            found[key], revisions = found[key][-1:], revisions[-1:]
        assert len(found[key]) == len(revisions), key
        if revise:
            numbers = [row["Revision"] for row in found[key]]
            assert len(set(numbers)) == len(numbers), key
        for row, readings in zip(found[key], revisions, strict=True):
            assert [name for name in row if name.partition("_")[0] in SENSORS] == [
                column(sensor, name) for sensor in SENSORS for name in names
            ]
            for sensor in SENSORS:
                for name in names:
                    assert agree(name, row[column(sensor, name)], readings, sensor), (key, name, row, readings)


def check_letters(letters: list[dict], expected: Expected, names: list[str], pane: int) -> None:
    """Find every letter among the expected ones; readings of several panes may come in a letter each, or together."""
    told = {name for name in names if name != "mean"} | ({"sum", "count"} if "mean" in names else set())
    found = []
    for letter in letters:
        content = json.loads(letter["payload"])
        assert letter["stage"] == "late"
        found.append((letter["error"], letter["device"] or "", seconds(content["Timestamp"]), content["readings"]))

    def tells(letter: tuple, key: tuple, readings: list[Reading]) -> bool:
        if letter[:3] != key or letter[3].keys() != {sensor for reading in readings for sensor in reading.values}:
            return False
        return all(
            of_sensor.keys() == told and all(agree(name, of_sensor[name], readings, sensor) for name in told)
            for sensor, of_sensor in letter[3].items()
        )

    wanted = defaultdict(list)
    for *key, readings in expected.letters:
        wanted[tuple(key)].append(readings)
    assert {letter[:3] for letter in found} == wanted.keys()

    def accounted(key: tuple, all_readings: list[list[Reading]], letters: list[tuple]) -> bool:
        if not all_readings:
            return not letters
        readings, *others = all_readings
        # The greatest value of one pane may be that of two: which letters are of what is sure only when all are.
        for parts in _partitions(sorted({reading.at // pane for reading in readings})):
            left = letters.copy()
            for part in parts:
                of_part = [reading for reading in readings if reading.at // pane in part]
                match = next((letter for letter in left if tells(letter, key, of_part)), None)
                if match is None:
                    break
                left.remove(match)
            else:
                if accounted(key, others, left):
                    return True
        return False

    for key, all_readings in wanted.items():
        of_key = [letter for letter in found if letter[:3] == key]
        assert accounted(key, all_readings, of_key), f"{of_key} do not tell {all_readings}"


def _partitions(items: list) -> Iterator[list[list]]:
    if not items:
        yield []
        return
    head, *rest = items
    for parts in _partitions(rest):
        for place in range(len(parts)):
            yield [*parts[:place], [head, *parts[place]], *parts[place + 1 :]]
        yield [[head], *parts]


# On a grid, so that readings share moments, and fall on the edges of windows, gaps and watermarks.
values = st.floats(-1e6, 1e6) | st.floats(-1, 1).map(lambda noise: 1e9 + noise) | st.integers(-9, 9).map(float)
readings_of_one = st.builds(
    Reading,
    st.integers(0, 240).map(lambda n: n / 2),
    st.sampled_from("abcdefgh"),
    st.dictionaries(st.sampled_from(SENSORS), values, min_size=1),
)
bundles = st.lists(readings_of_one, min_size=1, max_size=20)
watermarks = st.integers(-10, 360).map(lambda n: n / 2)
events = st.lists(bundles | watermarks, min_size=1, max_size=12).map(lambda found: list(_forward(found)))
some_statistics = st.lists(st.sampled_from(list(STATISTICS)), min_size=1, unique=True)


@pytest.mark.parametrize("revise", [False, True], ids=["dead_letter", "revise"])
@pytest.mark.parametrize("window", ["fixed", "hopping", "session"])
@SETTINGS
@given(events=events, names=some_statistics, by_device=st.booleans(), some_young=st.booleans())
def test_any_stream(run_graph, window, revise, events, names, by_device, some_young):
    if revise and names == ["stddev"]:
        names = ["stddev", "count"]
    with pytest.MonkeyPatch.context() as patch:
        if some_young:
            put_clock_back(patch, events)
        check(run_graph, window, revise, events, names, by_device)


def put_clock_back(patch: pytest.MonkeyPatch, events: list[Event]) -> None:
    """Make young what cannot have expired before the last watermark; by the real clock nothing is."""
    latest = max((event for event in events if not isinstance(event, list)), default=0.0)
    patch.setattr("pipeline.fixed_windows._CLOCK_SLACK", NOON + latest + 1 - time.time())


def _forward(events: list[Event]) -> Iterator[Event]:
    """Leave out where the watermark would not move forward."""
    watermark = -math.inf
    for event in events:
        if isinstance(event, list):
            yield event
        elif event > watermark:
            yield (watermark := event)


def stream_of(events: list[Event]) -> Stream:
    """Return the events as a stream of messages and watermarks."""
    stream = Stream()
    for event in events:
        if isinstance(event, list):
            stream.add(*(message(reading.at, Device=reading.device, **reading.values) for reading in event))
        else:
            stream.watermark(event)
    return stream


def check(run_graph, window: str, revise: bool, events: list[Event], names: list[str], by_device: bool) -> None:
    """Run the graph and the model on the same events, and compare."""
    rows, letters = run_graph(
        stream_of(events),
        f"--sensors={','.join(SENSORS)}",
        f"--statistics={','.join(names)}",
        f"--group_by_device={by_device}".lower(),
        f"--window={window}",
        f"--interval={INTERVAL}s",
        *([f"--hop={HOP}s"] if window == "hopping" else []),
        f"--session_gap={GAP}s",
        f"--grace_period={GRACE}s",
        f"--allowed_lateness={LATENESS}s",
        f"--on_late={'revise' if revise else 'dead_letter'}",
    )
    if not by_device:
        events = [
            [Reading(r.at, "", r.values) for r in event] if isinstance(event, list) else event for event in events
        ]
    if window == "session":
        expected = in_sessions(events, revise)
    else:
        expected = in_windows(events, HOP if window == "hopping" else INTERVAL, revise)
    check_letters(letters, expected, names, pane=HOP if window == "hopping" else 1000)
    check_rows(rows, expected, names, revise, in_panes=window == "hopping")
