"""Which ids are new, and for how long an id is known."""

import logging

from local.runner.duplicates import SeenIds

SECOND = 1_000_000


def test_are_new_is_true_for_the_first_of_an_id_within_and_across_batches() -> None:
    seen = SeenIds()
    assert seen.are_new(0, ["a", "b", "a"]) == [True, True, False]
    assert seen.are_new(1, ["c", "b"]) == [True, False]
    assert seen.are_new(2, []) == []


def test_are_new_is_false_for_ten_minutes() -> None:
    seen = SeenIds()
    assert seen.are_new(0, ["a"]) == [True]
    assert seen.are_new(300 * SECOND, ["a", "b"]) == [False, True]
    assert seen.are_new(600 * SECOND - 1, ["a"]) == [False]
    assert seen.are_new(600 * SECOND, ["a", "b"]) == [True, False]
    assert seen.are_new(900 * SECOND, ["a", "b"]) == [False, True]


def test_oldest_ids_are_deleted_with_one_warning_above_the_limit(caplog) -> None:
    seen = SeenIds(max_ids=4)
    with caplog.at_level(logging.WARNING):
        assert seen.are_new(0, ["a", "b"]) == [True, True]
        assert seen.are_new(7 * SECOND, ["c", "d"]) == [True, True]
        assert not caplog.messages
        assert seen.are_new(9 * SECOND, ["e", "c"]) == [True, False]
        assert seen.are_new(10 * SECOND, ["c", "e", "a", "f"]) == [False, False, True, True]
        assert seen.are_new(11 * SECOND, ["c"]) == [True]
    assert caplog.messages == ["More than 4 ids in ten minutes: for now, duplicates are removed for 9 s only"]


def test_are_new_handles_a_batch_larger_than_the_limit() -> None:
    seen = SeenIds(max_ids=1)
    assert seen.are_new(0, ["a", "b", "a"]) == [True, True, False]
    assert seen.are_new(1, ["b"]) == [False]
    assert seen.are_new(2, ["c", "b"]) == [True, False]
    assert seen.are_new(3, ["b"]) == [True]
