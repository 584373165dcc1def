"""The shipped graph against a model that keeps every reading: rows, revisions and dead letters of random streams.

The model is given what is sent, and in which bundles and at which watermarks, and works out from the documentation
alone what must come of it. Statistics are those of Python's own `statistics`, which is exact. More streams than a test
has time for: MODEL_EXAMPLES=1000 .venv/bin/python -m pytest tests/pipeline/test_model.py
"""

import json
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.aggregate.statistics import STATISTICS, Statistics
from pipeline.aggregate.sums import SECOND, Interval
from pipeline.windows import session_state
from pipeline.windows.session import SessionIntervals
from tests.pipeline.conftest import NOON, StateCell, Stream, Timers, drained, message

SENSORS = ("AtmP", "Temp")
INTERVAL, HOP, GAP, GRACE, LATENESS = 15, 5, 10, 5, 30
# Kinds of windows, with the length of panes for those that have shorter ones than they are shipped with. Shipped are
# shorter panes for intervals and hops of more than 15 minutes only.
WINDOWS = [("fixed", None), ("fixed", 5), ("hopping", None), ("hopping", 1), ("session", None)]
# Of the shipped parameters: how far a reading may be ahead of the clock, and the watermark besides.
MAX_FUTURE_SKEW, CLOCK_SLACK = 600, 3600
YEAR_2000 = 946_684_800 - NOON
STREAM_START = -3600.0  # the watermark with which `Stream` begins
LATENESSES = (0, LATENESS, 120, 3600, 30 * 24 * 3600)

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


@dataclass(frozen=True)
class Setting:
    """What a stream is run with: the worker's clock, in seconds after NOON, does not move meanwhile."""

    window: str
    revise: bool = False
    by_device: bool = True
    names: tuple[str, ...] = ("mean",)
    lateness: int = LATENESS
    clock: float = 1e6
    pane: int | None = None

    @property
    def hop(self) -> int:
        return HOP if self.window == "hopping" else INTERVAL

    def combined_directly(self, reading: Reading) -> bool:
        """Whether sums skip the expiry grouping: its bucket has not expired by the clock, and so cannot be expired."""
        length = self.pane or self.hop
        bucket = math.floor(reading.at / length) * length
        return bucket + length + GRACE + self.lateness >= self.clock

    @property
    def flags(self) -> list[str]:
        return [
            f"--sensors={','.join(SENSORS)}",
            f"--statistics={','.join(self.names)}",
            f"--group_by_device={self.by_device}".lower(),
            f"--window={self.window}",
            f"--interval={INTERVAL}s",
            *([f"--hop={HOP}s"] if self.window == "hopping" else []),
            f"--session_gap={GAP}s",
            f"--grace_period={GRACE}s",
            f"--allowed_lateness={self.lateness}s",
            f"--on_late={'revise' if self.revise else 'dead_letter'}",
        ]


@dataclass
class Expected:
    """What must come out: by (device, row's time), the readings of each revision; and of each dead letter."""

    rows: dict[tuple[str, float], list[list[Reading]]] = field(default_factory=lambda: defaultdict(list))
    letters: list[tuple[str, str, float, list[Reading]]] = field(default_factory=list)


Event = list[Reading] | float  # a bundle, or where the watermark goes


def declare_windowing(events: list[Event], setting: Setting) -> Expected:
    """Return what fixed or hopping windows of INTERVAL seconds make of a stream."""
    # By window: bundles that came on time or, when revising, late; the first list is what was on time.
    on_time: dict[tuple[str, int], list[Reading]] = defaultdict(list)
    late: dict[tuple[str, int], list[list[Reading]]] = defaultdict(list)
    expected = Expected()
    watermark = STREAM_START
    for event in events:
        if not isinstance(event, list):
            watermark = max(watermark, event)
            continue
        bundle: dict[tuple[str, int, bool], list[Reading]] = defaultdict(list)
        for reading in event:
            last_start = math.floor(reading.at / setting.hop) * setting.hop
            for start in range(last_start - INTERVAL + setting.hop, last_start + 1, setting.hop):
                bundle[reading.device, start, setting.combined_directly(reading)].append(reading)
        for (device, start, directly), readings in bundle.items():
            due = start + INTERVAL + GRACE
            if watermark < due:
                on_time[device, start] += readings
            elif watermark >= due + setting.lateness and not directly:
                expected.letters.append(("Expired", device, start, readings))
            elif setting.revise:
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


def in_sessions(events: list[Event], setting: Setting) -> Expected:
    """Return what sessions make of a stream."""
    expected = Expected()
    sessions: dict[str, list[Session]] = defaultdict(list)
    final_until: dict[str, float] = defaultdict(lambda: -math.inf)
    keep = setting.lateness if setting.revise else 0
    watermark = STREAM_START

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
                    error = "Expired" if setting.revise else "Late"
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
    return datetime.fromisoformat(timestamp).timestamp() - NOON


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
            # Late panes of one bundle may each revise the row, or at once: only their result is certain.
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
    statistics = {name for name in names if name != "mean"} | ({"sum", "count"} if "mean" in names else set())
    found = []
    for letter in letters:
        content = json.loads(letter["payload"])
        assert letter["stage"] == "late"
        found.append((letter["error"], letter["device"] or "", seconds(content["Timestamp"]), content["readings"]))

    def tells(letter: tuple, key: tuple, readings: list[Reading]) -> bool:
        if letter[:3] != key or letter[3].keys() != {sensor for reading in readings for sensor in reading.values}:
            return False
        return all(
            of_sensor.keys() == statistics
            and all(agree(name, of_sensor[name], readings, sensor) for name in statistics)
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
grid = st.integers(0, 240).map(lambda n: n / 2)
# Most are close together, so that they share intervals; others are from the year 2000, from a backlog of an hour to a
# month before, and up to ten minutes ahead of a clock that shows NOON.
stamps = (
    grid
    | grid
    | grid.map(lambda at: at + YEAR_2000)
    | st.tuples(grid, st.sampled_from([3_600, 86_400, 30 * 86_400])).map(lambda both: both[0] - both[1])
    | grid.map(lambda at: at + MAX_FUTURE_SKEW - 120)
)


def streams_of(
    stamps: st.SearchStrategy[float], watermarks: st.SearchStrategy[float]
) -> st.SearchStrategy[list[Event]]:
    """Return bundles of readings with these stamps, and watermarks that move forward between them."""
    reading = st.builds(
        Reading,
        stamps,
        st.sampled_from("abcdefgh"),
        st.dictionaries(st.sampled_from(SENSORS), values, min_size=1),
    )
    bundle = st.lists(reading, min_size=1, max_size=20)
    return st.lists(bundle | watermarks, min_size=1, max_size=12).map(lambda found: list(_forward(found)))


watermarks = st.integers(-10, 360).map(lambda n: n / 2)
events = streams_of(grid, watermarks)
# A watermark that is ahead of a clock at NOON by at most what a window's combine accepts.
wide_events = streams_of(stamps, watermarks | st.sampled_from([600.0, 3_700.0, 4_200.0]))
# From a clock that is behind all but the oldest readings and watermarks, to one that is years ahead of them.
clocks = st.sampled_from([0.0, 25.0, 60.0, 150.0, 3_700.0, 31 * 86_400.0, 60_000_000.0])
some_statistics = st.lists(st.sampled_from(list(STATISTICS)), min_size=1, unique=True)


@pytest.mark.parametrize("revise", [False, True], ids=["dead_letter", "revise"])
@pytest.mark.parametrize(("window", "pane"), WINDOWS)
@SETTINGS
@given(
    events=wide_events,
    names=some_statistics,
    by_device=st.booleans(),
    lateness=st.sampled_from(LATENESSES),
    clock=clocks,
)
def test_any_stream(run_graph, window, pane, revise, events, names, by_device, lateness, clock):
    if revise and names == ["stddev"]:
        names = ["stddev", "count"]
    check(run_graph, Setting(window, revise, by_device, tuple(names), lateness, clock, pane), events)


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


def expected_of(events: list[Event], setting: Setting) -> Expected:
    if not setting.by_device:
        events = [
            [Reading(r.at, "", r.values) for r in event] if isinstance(event, list) else event for event in events
        ]
    return in_sessions(events, setting) if setting.window == "session" else declare_windowing(events, setting)


def set_clock(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the clock by which sums have expired show this many seconds after NOON."""
    clock = SimpleNamespace(time=lambda: NOON + seconds)
    patch.setattr("pipeline.aggregate.fold.time", clock)
    patch.setattr("pipeline.windows.hopping.time", clock)


def set_pane_length(patch: pytest.MonkeyPatch, seconds: int) -> None:
    """Make all intervals consist of panes of this many seconds."""
    patch.setattr("pipeline.launch.job.pane_length", lambda hop: seconds)


def check(run_graph, setting: Setting, events: list[Event]) -> None:
    """Run the graph and the model on the same events, and compare."""
    with pytest.MonkeyPatch.context() as patch:
        set_clock(patch, setting.clock)
        if setting.pane:
            set_pane_length(patch, setting.pane)
        rows, letters = run_graph(stream_of(events), *setting.flags)
    expected = expected_of(events, setting)
    pane = setting.pane or setting.hop
    check_letters(letters, expected, list(setting.names), pane)
    check_rows(rows, expected, list(setting.names), setting.revise, in_panes=pane < INTERVAL)


class SmallSessions:
    """Beam in small: bundles are folded, and a device's timer fires once the watermark has passed it."""

    def __init__(self, setting: Setting):
        self.rows: dict[tuple[str, float], list[tuple[int, dict]]] = defaultdict(list)
        self.letters: list[tuple[str, str, float, dict]] = []
        self._intervals = SessionIntervals(
            GAP, GRACE, setting.lateness, setting.revise, Statistics(setting.names), True
        )
        self._emit: Any = self._intervals.emit()
        self._cells: dict[str, tuple[StateCell, Timers]] = {}

    def run(self, events: list[Event]) -> None:
        watermark = STREAM_START
        for event in [*events, math.inf]:
            if not isinstance(event, list):
                watermark = max(watermark, event)
            else:
                micros = ((round((NOON + r.at) * SECOND), r.device, r.values) for r in event)
                for element in drained(self._intervals, micros):
                    device, _ = element.value
                    cells = self._cells.setdefault(device, (StateCell(), Timers()))
                    self._take(self._emit.fn.process(element.value, *cells))
            reached = MAX_TIMESTAMP if watermark == math.inf else Timestamp(NOON + watermark)
            for device, (state, timers) in self._cells.items():
                for tag, due in timers.fire(reached):
                    # A runner that keeps timers in milliseconds must not fire one before its session is due.
                    assert due.micros % 1000 == 0
                    self._take(self._emit.fn.emit_due(device, tag, due, state, timers))

    def _take(self, intervals: Iterable[Interval]) -> None:
        for interval in intervals:
            [(device, sums)] = interval.sums_of.items()
            at = interval.row_time / SECOND - NOON
            if interval.late:
                self.letters.append((interval.late, device, at, sums))
            else:
                self.rows[device, at].append((interval.revision, sums))


@settings(SETTINGS, max_examples=SETTINGS.max_examples * 10)
@given(
    events=wide_events,
    names=some_statistics,
    revise=st.booleans(),
    lateness=st.sampled_from(LATENESSES),
    page=st.sampled_from([1, 2, 64]),
)
def test_sessions_emit_what_the_model_does_in_any_stream(events, names, revise, lateness, page):
    setting = Setting("session", revise, names=tuple(names), lateness=lateness)
    small, expected = SmallSessions(setting), expected_of(events, setting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_state, "_PAGE", page)
        small.run(events)
    statistics_of = Statistics(names)

    def agrees(sums: dict, readings: list[Reading]) -> bool:
        return sums.keys() == {sensor for reading in readings for sensor in reading.values} and all(
            agree(name, value, readings, sensor)
            for sensor, parts in sums.items()
            for name, value in zip(names, statistics_of.values(parts), strict=True)
        )

    assert small.rows.keys() == expected.rows.keys()
    for key, revisions in expected.rows.items():
        found = small.rows[key]
        assert len(found) == len(revisions)
        numbers = [number for number, _ in found]
        assert numbers == sorted(set(numbers))
        assert all(agrees(sums, readings) for (_, sums), readings in zip(found, revisions, strict=True))
    # Those of a bundle have no order.
    found_letters, expected_letters = (
        sorted(all, key=lambda one: one[:3]) for all in (small.letters, expected.letters)
    )
    assert len(found_letters) == len(expected_letters)
    for (*key, sums), (*expected_key, readings) in zip(found_letters, expected_letters, strict=True):
        assert key == expected_key
        assert agrees(sums, readings)
