"""Random streams on an engine that runs steps concurrently, against the model that processes them one after another.

On such an engine a reading may be late where the model has it expired, and on time where the model has it late, since
the watermark of a step may be behind that of the source. A reading must never be later than in the model, be lost, or
count twice. The values show which readings are in a row or a dead letter: each reading has its own power of two, so a
sum and a count identify them.

Each ENGINE_SEED has other streams; ENGINE_STREAMS is their number.
"""

import json
import math
import os
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.pipeline import test_model as model
from tests.pipeline.conftest import run_captured
from tests.pipeline.test_model import GAP, GRACE, HOP, INTERVAL, LATENESS, Event, Reading

SEED = int(os.environ.get("ENGINE_SEED", "1"))
STREAMS = int(os.environ.get("ENGINE_STREAMS", "300"))
KINDS = [(window, pane, on_late) for window, pane in model.WINDOWS for on_late in ("dead_letter", "revise")]
STREAMS_OF_TEST = 10

# A sum of this many powers of two is exact.
BITS = 48
SENSORS = [f"S{number}" for number in range(5)]


@dataclass(frozen=True)
class Arrival:
    """A reading, and the watermark of the source when it arrived; both in seconds after NOON."""

    at: float
    device: str
    watermark: float


@dataclass(frozen=True)
class Found:
    """A row, or a dead letter with its error, with the numbers of its readings."""

    device: str
    time: float
    readings: frozenset[int]
    revision: int = 0
    error: str | None = None


def numbered(events: list[Event]) -> tuple[list[Event], list[Arrival]]:
    """Return the events with a unique value for each reading, and the readings in that order."""
    marked: list[Event] = []
    arrivals: list[Arrival] = []
    watermark = -math.inf
    for event in events:
        if not isinstance(event, list):
            watermark = event
            marked.append(event)
            continue
        bundle = []
        for reading in event:
            sensor, bit = divmod(len(arrivals), BITS)
            bundle.append(Reading(reading.at, reading.device, {SENSORS[sensor]: 2.0**bit}))
            arrivals.append(Arrival(reading.at, reading.device, watermark))
        marked.append(bundle)
    return marked, arrivals


def readings_of(sums: dict[str, tuple[float | None, int | None]]) -> frozenset[int]:
    """Return the numbers of the readings in sums and counts by sensor, each of which must be there once."""
    found = set()
    for place, sensor in enumerate(SENSORS):
        total, count = sums.get(sensor, (None, None))
        bits = int(total or 0)
        assert bits.bit_count() == (count or 0), f"a reading is counted twice in {sums}"
        found |= {place * BITS + bit for bit in range(BITS) if bits >> bit & 1}
    return frozenset(found)


def run(events: list[Event], window: str, on_late: str, by_device: bool) -> list[Found]:
    rows, dead_letters = run_captured(
        model.stream_of(events).end(),
        f"--sensors={','.join(SENSORS)}",
        "--statistics=sum,count,first,last",
        f"--group_by_device={by_device}".lower(),
        f"--window={window}",
        f"--interval={INTERVAL}s",
        *([f"--hop={HOP}s"] if window == "hopping" else []),
        f"--session_gap={GAP}s",
        f"--grace_period={GRACE}s",
        f"--allowed_lateness={LATENESS}s",
        f"--on_late={on_late}",
    )
    found = []
    for row in rows:
        sums = {sensor: (row[f"{sensor}_sum"], row[f"{sensor}_count"]) for sensor in SENSORS}
        found.append(
            Found(row.get("Device") or "", model.seconds(row["Timestamp"]), readings_of(sums), row.get("Revision", 0))
        )
    for dead_letter in dead_letters:
        content = json.loads(dead_letter["payload"])
        sums = {sensor: (of["sum"], of["count"]) for sensor, of in content["readings"].items()}
        time = model.seconds(content["Timestamp"])
        found.append(Found(dead_letter["device"] or "", time, readings_of(sums), error=dead_letter["error"]))
    assert len({dead_letter["dead_letter_id"] for dead_letter in dead_letters}) == len(dead_letters)
    return found


def check_each_reading_once(found: list[Found], of_key: dict[Any, set[int]], key_of: Any) -> None:
    """Check that each reading of each key is in exactly one of its final rows and dead letters."""
    places: dict[Any, list[int]] = defaultdict(list)
    for one in found:
        places[key_of(one)] += one.readings
    assert {key: sorted(numbers) for key, numbers in places.items()} == {
        key: sorted(numbers) for key, numbers in of_key.items()
    }


def final_rows(rows: list[Found]) -> list[Found]:
    """Return the newest revision of each row; earlier ones must have no other readings."""
    revisions: dict[tuple[str, float], list[Found]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.revision):
        revisions[row.device, row.time].append(row)
    for all_of_one in revisions.values():
        assert len({row.revision for row in all_of_one}) == len(all_of_one), all_of_one
        of_readings = [row for row in all_of_one if row.readings]
        assert all(before.readings <= after.readings for before, after in pairwise(of_readings)), all_of_one
    return [all_of_one[-1] for all_of_one in revisions.values()]


def check_windows(found: list[Found], arrivals: list[Arrival], hop: int, revise: bool) -> None:
    of_key: dict[tuple[str, float], set[int]] = defaultdict(set)
    for number, arrival in enumerate(arrivals):
        last = math.floor(arrival.at / hop) * hop
        for start in range(last - INTERVAL + hop, last + 1, hop):
            of_key[arrival.device, start].add(number)
    rows = [one for one in found if one.error is None]
    final, dead_letters = final_rows(rows), [one for one in found if one.error]
    check_each_reading_once([*final, *dead_letters], of_key, lambda one: (one.device, one.time))
    due = INTERVAL + GRACE
    for row in rows:
        if not revise:
            assert row.revision == 0
        on_time = {n for n in of_key[row.device, row.time] if arrivals[n].watermark < row.time + due}
        # They are in the first revision too, since they were not late for it.
        assert on_time <= row.readings, (row, on_time - row.readings)
    for dead_letter in dead_letters:
        after = due + (LATENESS if dead_letter.error == "Expired" else 0)
        assert dead_letter.error in ({"Expired"} if revise else {"Late", "Expired"})
        for number in dead_letter.readings:
            assert arrivals[number].watermark >= dead_letter.time + after, (dead_letter, number)


def check_sessions(found: list[Found], arrivals: list[Arrival], revise: bool) -> None:
    of_device: dict[str, set[int]] = defaultdict(set)
    for number, arrival in enumerate(arrivals):
        of_device[arrival.device].add(number)
    rows, dead_letters = [one for one in found if one.error is None], [one for one in found if one.error]
    # A row without readings retracts the one before it.
    final = [row for row in final_rows(rows) if row.readings]
    check_each_reading_once([*final, *dead_letters], of_device, lambda one: one.device)
    kept = LATENESS if revise else 0

    for row in rows:
        if row.readings:
            ats = sorted(arrivals[number].at for number in row.readings)
            assert row.time == ats[-1] + GAP
            assert all(later - earlier < GAP for earlier, later in pairwise(ats)), (row, ats)
    for row in final:
        for other in final:
            if other.device == row.device and other.time > row.time:
                first = min(arrivals[number].at for number in row.readings)
                near = [n for n in other.readings if first - GAP < arrivals[n].at < row.time]
                # They would have been in the first of the two rows, had they arrived while it could still change.
                assert all(arrivals[n].watermark >= row.time + GRACE + kept for n in near), (row, other)
    for dead_letter in dead_letters:
        assert dead_letter.error == ("Expired" if revise else "Late")
        last = max(arrivals[number].at for number in dead_letter.readings)
        assert dead_letter.time == last + GAP
        reached = min(arrivals[number].watermark for number in dead_letter.readings)
        # A reading is late only if it would change a row that is final.
        final_ends = [row.time for row in final if row.device == dead_letter.device and row.time > last]
        assert any(end + GRACE + kept <= reached for end in final_ends), (dead_letter, final)


def kind(number: int) -> tuple[str, int | None, str]:
    return KINDS[number % len(KINDS)]


@pytest.mark.parametrize(
    "number",
    range(SEED, SEED + max(1, STREAMS // STREAMS_OF_TEST)),
    ids=lambda number: "-".join(str(part) for part in (number, *kind(number)) if part),
)
def test_readings_are_never_later_than_in_the_model_in_random_streams(number):
    window, pane, on_late = kind(number)

    @seed(number)
    @settings(
        max_examples=STREAMS_OF_TEST,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(events=model.events, by_device=st.booleans())
    def check(events: list[Event], by_device: bool) -> None:
        marked, arrivals = numbered(events)
        with pytest.MonkeyPatch.context() as patch:
            if pane:
                model.set_pane_length(patch, pane)
            found = run(marked, window, on_late, by_device)
        if not by_device:
            arrivals = [Arrival(one.at, "", one.watermark) for one in arrivals]
        if window == "session":
            check_sessions(found, arrivals, on_late == "revise")
        else:
            check_windows(found, arrivals, HOP if window == "hopping" else INTERVAL, on_late == "revise")

    try:
        check()
    except BaseException as error:
        settings_of_this = f"ENGINE_SEED={number} ENGINE_STREAMS={STREAMS_OF_TEST}"
        error.add_note(f"To repeat: make engines {settings_of_this} ENGINE_TESTS=tests/engine/test_streams.py")
        raise
