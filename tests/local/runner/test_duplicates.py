"""Which ids are there for the first time, and for how long that is known."""

import logging

from local.runner.duplicates import Seen

SECOND = 1_000_000


def test_of_one_id_the_first_counts_within_and_across_batches() -> None:
    seen = Seen()
    assert seen.first_times(0, ["a", "b", "a"]) == [True, True, False]
    assert seen.first_times(1, ["c", "b"]) == [True, False]
    assert seen.first_times(2, []) == []


def test_an_id_is_known_for_ten_minutes_from_its_first_time() -> None:
    seen = Seen()
    assert seen.first_times(0, ["a"]) == [True]
    assert seen.first_times(300 * SECOND, ["a", "b"]) == [False, True]
    assert seen.first_times(600 * SECOND - 1, ["a"]) == [False]
    assert seen.first_times(600 * SECOND, ["a", "b"]) == [True, False]
    assert seen.first_times(900 * SECOND, ["a", "b"]) == [False, True]


def test_when_there_are_too_many_the_oldest_are_forgotten_and_a_warning_says_so_once(caplog) -> None:
    seen = Seen(most=4)
    with caplog.at_level(logging.WARNING):
        assert seen.first_times(0, ["a", "b"]) == [True, True]
        assert seen.first_times(7 * SECOND, ["c", "d"]) == [True, True]
        assert not caplog.messages
        assert seen.first_times(9 * SECOND, ["e", "c"]) == [True, False]
        assert seen.first_times(10 * SECOND, ["c", "e", "a", "f"]) == [False, False, True, True]
        assert seen.first_times(11 * SECOND, ["c"]) == [True]
    assert caplog.messages == ["More than 4 ids in ten minutes: for now, duplicates are removed for 9 s only"]


def test_a_batch_larger_than_the_bound_is_still_told_apart() -> None:
    seen = Seen(most=1)
    assert seen.first_times(0, ["a", "b", "a"]) == [True, True, False]
    assert seen.first_times(1, ["b"]) == [False]
    assert seen.first_times(2, ["c", "b"]) == [True, False]
    assert seen.first_times(3, ["b"]) == [True]
