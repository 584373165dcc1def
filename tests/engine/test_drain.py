"""A drain moves the watermark to the end of time, while sessions and intervals are open and devices silent."""

import time

import pytest

from tests.pipeline.conftest import NOON, Stream, captured, message, run_captured


@pytest.mark.parametrize("on_late", ["dead_letter", "revise"])
@pytest.mark.parametrize("window", ["fixed", "hopping", "session"])
@pytest.mark.parametrize("age", [20, 30 * 24 * 3600], ids=["live", "backlog"])
def test_drain_writes_all_open_intervals_and_reports_no_silence(window, age, on_late):
    begin = int(time.time()) - NOON - age
    readings = [(begin + at, device) for device, ats in {"a": (0, 9), "b": (1,), "c": (2, 5, 19)}.items() for at in ats]
    stream = Stream()
    for at, device in sorted(readings):
        stream.watermark(at).add(message(at, Temp=1, Device=device))
    flags = [f"--window={window}", f"--on_late={on_late}", *(["--hop=5s"] if window == "hopping" else [])]
    flags += ["--interval=1h" if window == "fixed" else "--interval=15s", "--session_gap=10m"]
    with captured() as (silences, to_silences):
        rows, dead_letters = run_captured(
            stream.end(),
            *flags,
            "--group_by_device=true",
            "--statistics=count",
            "--silence_after=30s",
            write_silences=to_silences,
        )
        assert silences == []
    assert dead_letters == []
    counted = dict.fromkeys("abc", 0)
    for row in rows:
        counted[row["Device"]] += row["Temp_count"]
    places = 3 if window == "hopping" else 1
    assert counted == {"a": 2 * places, "b": places, "c": 3 * places}
