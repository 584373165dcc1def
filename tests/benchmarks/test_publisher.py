"""The publisher's benchmark runs, and reads its own measurements as it says."""

import json

import pytest

from benchmarks.publisher import WAYS, Sample, Turn, as_json, chart, goals, growth, race, ratios


def samples(*megabytes):
    """Of a publisher that is watched for two moments while its service is open, four while stalled, two while slow."""
    phases = ["open"] * 2 + ["stalled"] * 4 + ["slow"] * 2
    return [
        Sample(phase, second, 1000, 500, value)
        for second, (phase, value) in enumerate(zip(phases, megabytes, strict=True))
    ]


FLAT = samples(70, 80, 90, 95, 95, 94, 95, 95)
TURNS = {
    "client": [Turn(10_000, 40), Turn(20_000, 20)],
    "shipped": [Turn(150_000, 2), Turn(140_000, 2)],
    "bare gRPC loop": [Turn(200_000, 1), Turn(100_000, 2)],
}


def test_ratios_are_of_the_same_round() -> None:
    assert ratios(TURNS, "shipped", "client") == [7, 15]


@pytest.mark.parametrize(
    ("megabytes", "grown"), [((70, 80, 90, 95, 95, 94, 95, 95), 0), ((70, 80, 90, 95, 99, 98, 105, 90), 10)]
)
def test_growth_is_from_the_first_half_of_the_stall_on(megabytes, grown) -> None:
    assert growth(samples(*megabytes)) == grown


def test_goals_say_what_is_not_met() -> None:
    growing = samples(70, 80, 90, 95, 99, 98, 105, 90)
    met = [goal.met for goal in goals(TURNS, {"client": growing, "1": FLAT, "100": growing})]
    assert met == [True, True, True, True, True, False]


def test_every_contender_gets_all_its_readings_through(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "")  # which the race sets, put back
    turns = race(rounds=1, count=2000)
    assert {len(found) for found in turns.values()} == {1}
    assert all(turn.rate > 0 for found in turns.values() for turn in found)
    watched = dict.fromkeys(WAYS, FLAT)
    assert len(json.dumps(as_json(turns, watched))) > 1000
    chart(turns, watched, tmp_path / "publisher.png")
    assert (tmp_path / "publisher.png").stat().st_size > 10_000
