"""Which dead letters count when a second run replays what a killed one had seen, each case worked out by hand."""

from datetime import timedelta

import pytest

from local.verify.balance import DeadLetter, Sent
from local.verify.replay import Account, account
from tests.local.verify.test_balance import INTERVAL, NOT_JSON, SECOND, SENSORS, late, sent

SEEK = SECOND - timedelta(seconds=1)
REFUSED = DeadLetter("decode", b"{not json")
EMPTY = DeadLetter("decode", b"[]")


def at(letter: DeadLetter, seconds: float) -> Sent:
    """The message of a letter, sent so many seconds after the seek."""
    return Sent(f"r{seconds}", letter.payload, SEEK + timedelta(seconds=seconds))


def check(first: list[DeadLetter], second: list[DeadLetter], *manifest: Sent) -> Account:
    return account(first, second, manifest, SENSORS, SEEK, since=SECOND)


def test_the_second_run_has_the_last_word_on_what_is_late_from_its_start_on() -> None:
    early, outdated, current = late(0, Temp=(1.0, 1)), late(5, Temp=(2.0, 1)), late(5, Temp=(3.0, 1))
    assert check([early, outdated], [current]) == Account([early, current], repeated=1)


def test_the_second_run_may_not_call_late_what_it_does_not_compute() -> None:
    stray = late(0, Temp=(1.0, 1))
    assert check([], [stray]) == Account(problems=[f"late in an interval before rows_since: {stray.payload!r}"])


def test_a_message_that_both_runs_refused_counts_once() -> None:
    assert check([REFUSED], [REFUSED], at(REFUSED, 2)) == Account([REFUSED], repeated=1)


@pytest.mark.parametrize(("first", "second", "seconds"), [([REFUSED], [], -2), ([], [REFUSED], 2)])
def test_a_message_that_one_run_saw_counts_once(first, second, seconds) -> None:
    assert check(first, second, at(REFUSED, seconds)) == Account([REFUSED])


def test_what_was_sent_since_the_seek_must_be_refused_by_the_second_run() -> None:
    problem = "lost by the second run: b'{not json' has no dead letter of it"
    assert check([REFUSED], [], at(REFUSED, 0)) == Account([REFUSED], problems=[problem])


def test_messages_of_the_same_bytes_need_a_letter_each() -> None:
    before, seen_by_both, after = at(EMPTY, -9), at(EMPTY, 1), at(EMPTY, 9)
    messages = (before, seen_by_both, after)
    assert check([EMPTY] * 2, [EMPTY] * 2, *messages) == Account([EMPTY] * 3, repeated=1)
    assert check([EMPTY], [EMPTY] * 2, *messages) == Account([EMPTY] * 3)
    assert check([], [EMPTY] * 2, *messages) == Account([EMPTY] * 2)  # the balance finds one lost


def test_letters_of_no_message_or_too_many_are_left_for_the_balance_to_find() -> None:
    assert check([REFUSED] * 2, [], at(REFUSED, -2)).letters == [REFUSED] * 2
    assert check([], [REFUSED] * 2, at(REFUSED, 2)).letters == [REFUSED] * 2
    assert check([EMPTY], [REFUSED]).letters == [REFUSED, EMPTY]
    unreadable = DeadLetter("late", b"{}")
    assert check([unreadable], []).letters == [unreadable]


def test_readings_need_no_letter() -> None:
    assert check([], [], sent("r", 0, Temp=20.0), sent("s", INTERVAL.seconds, Temp=20.0)) == Account()
    assert NOT_JSON.data == REFUSED.payload
