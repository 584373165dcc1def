"""Which dead letters count when a second run replays the messages of a killed one, each case worked out by hand."""

from datetime import timedelta

import pytest

from local.verify.balance import DeadLetter, ManifestEntry
from local.verify.replay import ReplayedDeadLetters, merge_dead_letters
from tests.local.verify.test_balance import INTERVAL, NOT_JSON, SECOND, SENSORS, entry, late

SEEK = SECOND - timedelta(seconds=1)
REFUSED = DeadLetter("decode", b"{not json")
EMPTY = DeadLetter("decode", b"[]")


def at(dead_letter: DeadLetter, seconds: float) -> ManifestEntry:
    """Return the message of a dead letter, sent that many seconds after the seek."""
    return ManifestEntry(f"r{seconds}", dead_letter.payload, SEEK + timedelta(seconds=seconds))


def check(first: list[DeadLetter], second: list[DeadLetter], *manifest: ManifestEntry) -> ReplayedDeadLetters:
    return merge_dead_letters(first, second, manifest, SENSORS, SEEK, since=SECOND)


def test_late_dead_letters_of_the_second_run_count_from_its_start_on() -> None:
    early, outdated, current = late(0, Temp=(1.0, 1)), late(5, Temp=(2.0, 1)), late(5, Temp=(3.0, 1))
    assert check([early, outdated], [current]) == ReplayedDeadLetters([early, current], repeated=1)


def test_late_dead_letter_of_the_second_run_is_a_problem_before_its_start() -> None:
    stray = late(0, Temp=(1.0, 1))
    assert check([], [stray]) == ReplayedDeadLetters(
        problems=[f"late in an interval before rows_since: {stray.payload!r}"]
    )


def test_refused_message_counts_once_when_both_runs_refused_it() -> None:
    assert check([REFUSED], [REFUSED], at(REFUSED, 2)) == ReplayedDeadLetters([REFUSED], repeated=1)


@pytest.mark.parametrize(("first", "second", "seconds"), [([REFUSED], [], -2), ([], [REFUSED], 2)])
def test_refused_message_counts_once_when_one_run_read_it(first, second, seconds) -> None:
    assert check(first, second, at(REFUSED, seconds)) == ReplayedDeadLetters([REFUSED])


def test_message_sent_after_the_seek_must_be_refused_by_the_second_run() -> None:
    problem = "lost by the second run: b'{not json' has no dead letter of it"
    assert check([REFUSED], [], at(REFUSED, 0)) == ReplayedDeadLetters([REFUSED], problems=[problem])


def test_messages_of_the_same_bytes_need_a_dead_letter_each() -> None:
    before, seen_by_both, after = at(EMPTY, -9), at(EMPTY, 1), at(EMPTY, 9)
    messages = (before, seen_by_both, after)
    assert check([EMPTY] * 2, [EMPTY] * 2, *messages) == ReplayedDeadLetters([EMPTY] * 3, repeated=1)
    assert check([EMPTY], [EMPTY] * 2, *messages) == ReplayedDeadLetters([EMPTY] * 3)
    assert check([], [EMPTY] * 2, *messages) == ReplayedDeadLetters([EMPTY] * 2)  # the balance finds one lost


def test_surplus_and_unreadable_dead_letters_all_count() -> None:
    assert check([REFUSED] * 2, [], at(REFUSED, -2)).dead_letters == [REFUSED] * 2
    assert check([], [REFUSED] * 2, at(REFUSED, 2)).dead_letters == [REFUSED] * 2
    assert check([EMPTY], [REFUSED]).dead_letters == [REFUSED, EMPTY]
    unreadable = DeadLetter("late", b"{}")
    assert check([unreadable], []).dead_letters == [unreadable]


def test_good_readings_need_no_dead_letter() -> None:
    assert check([], [], entry("r", 0, Temp=20.0), entry("s", INTERVAL.seconds, Temp=20.0)) == ReplayedDeadLetters()
    assert NOT_JSON.data == REFUSED.payload
