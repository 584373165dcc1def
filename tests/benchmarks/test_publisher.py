"""The publisher's benchmark runs, and reads its own measurements as it says."""

import json

import pytest

from benchmarks.publisher import WAYS, chart, goals, growth, race, slow_row, speed_rows


def stall(*megabytes):
    """Of a publisher that is watched for two moments while its service is open, four while stalled, two while slow."""
    phases = ["open"] * 2 + ["stalled"] * 4 + ["slow"] * 2
    return [
        {"phase": phase, "seconds": second, "published": 1000, "outstanding": 500, "MB": value}
        for second, (phase, value) in enumerate(zip(phases, megabytes, strict=True))
    ]


FLAT = stall(70, 80, 90, 95, 95, 94, 95, 95)
TURNS = {
    "client": [(10_000, 40), (20_000, 20)],
    "shipped": [(150_000, 2), (140_000, 2)],
    "bare gRPC loop": [(200_000, 1), (100_000, 2)],
}


def test_speed_rows_compare_figures_of_the_same_round() -> None:
    _, shipped, _ = speed_rows(TURNS)
    assert shipped["/ client"] == [15, 7]


@pytest.mark.parametrize(
    ("megabytes", "grown"), [((70, 80, 90, 95, 95, 94, 95, 95), 0), ((70, 80, 90, 95, 99, 98, 105, 90), 10)]
)
def test_growth_starts_in_first_half_of_stall(megabytes, grown) -> None:
    assert growth(stall(*megabytes)) == grown


def test_goals_are_not_met_when_memory_grows() -> None:
    growing = stall(70, 80, 90, 95, 99, 98, 105, 90)
    met = [goal.met for goal in goals(speed_rows(TURNS), {"client": growing, "1": FLAT, "100": growing})]
    assert met == [True, True, True, True, True, False]


def test_race_publishes_all_readings_of_every_contender(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "")  # which the race sets, put back
    turns = race(rounds=1, count=2000)
    assert {len(found) for found in turns.values()} == {1}
    assert all(rate > 0 for found in turns.values() for rate, _ in found)
    json.dumps([slow_row(way, FLAT) for way in WAYS])
    chart(speed_rows(turns), dict.fromkeys(WAYS, FLAT), seconds=2).savefig(tmp_path / "publisher.png")
    assert (tmp_path / "publisher.png").stat().st_size > 10_000
