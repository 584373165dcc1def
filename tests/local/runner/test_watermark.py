"""The watermark on a clock that is 0 at the reader's start."""

from apache_beam.utils.timestamp import MIN_TIMESTAMP

from local.runner.watermark import Watermark


class Clock:
    """Feeds a Watermark pulls at seconds after its start, with event and publish times on the same scale."""

    START = 1_800_000_000.0

    def __init__(self) -> None:
        self.watermark = Watermark(self.micros(0))

    def micros(self, second: float) -> int:
        return round((self.START + second) * 1_000_000)

    def pull(self, at: float, *events: float, published: float | None = None, took: float = 0) -> float | None:
        """Return the watermark after a pull that began `at`; None while it is at the beginning of time."""
        times = [self.micros(event) for event in events]
        published_times = [self.micros(at if published is None else published)] * len(times)
        value = self.watermark.advance(self.micros(at), self.micros(at + took), times, published_times)
        return None if value == MIN_TIMESTAMP.micros else round(value / 1_000_000 - self.START, 3)


def test_watermark_follows_the_example_of_its_docstring() -> None:
    clock = Clock()
    assert [clock.pull(at, old, published=old) for at, old in ((0, -600), (1, -600), (2, -180))] == [None] * 3
    assert [clock.pull(at, at) for at in (4, 5, 6)] == [None, 4.9, 5.9]
    assert [clock.pull(at, old, published=old) for at, old in ((30, 6), (31, 12), (33, 22))] == [5.9, 5.9, 11.9]
    assert [clock.pull(at, at) for at in (35, 36)] == [21.9, 35.9]


class TestWatermarkInABacklog:
    def test_stays_at_the_beginning_for_two_seconds(self) -> None:
        clock = Clock()
        assert [clock.pull(at) for at in (0, 1, 1.9, 2.1)] == [None, None, None, 2.0]

    def test_does_not_advance(self) -> None:
        clock = Clock()
        assert [clock.pull(at, -600 + at, published=-600) for at in range(5)] == [None] * 5
        assert [clock.pull(at, at) for at in (5, 6)] == [None, None]
        assert clock.pull(6.5, 6.5) == 6.4

    def test_advances_after_the_backlog_when_the_reader_never_catches_up(self) -> None:
        clock = Clock()
        # Always 20 s behind. At 22 nothing was pulled for 2 s that was published before the start.
        values = [clock.pull(at, at - 20, published=at - 20) for at in range(26)]
        assert values == [None] * 22 + [-0.1, 0.9, 1.9, 2.9]

    def test_does_not_pass_readings_in_any_order_of_event_time(self) -> None:
        clock = Clock()
        # Two devices' last hour, one after the other, 36 s long. Then what was published meanwhile, then the present.
        for at in range(36):
            assert clock.pull(at, -3600 + at % 18 * 200, published=-10 + at / 4) is None
        # At 38 what was pulled at 36 is the oldest of the last 2 s, at 40 what was pulled at 38.
        assert [clock.pull(at, at - 20, published=at - 20) for at in (36, 38)] == [None, 15.9]
        assert clock.pull(40, 40) == 17.9


class TestWatermarkCaughtUp:
    def test_is_a_tenth_of_a_second_behind_what_has_been_read(self) -> None:
        clock = Clock()
        assert clock.pull(10, 9.85, published=9.9) == 9.8
        assert clock.pull(11) == 10.9
        assert clock.pull(20) == 19.9

    def test_waits_for_the_longest_delay_of_the_last_two_seconds(self) -> None:
        clock = Clock()
        assert clock.pull(10, 8.5, 9.8, published=9.9) == 8.5
        assert clock.pull(11, 10.8, published=10.9) == 9.5
        assert clock.pull(12.1) == 12

    def test_waits_for_the_slowest_response_of_the_last_two_seconds(self) -> None:
        clock = Clock()
        assert clock.pull(10, 9.98) == 9.9
        # For 0.3 s Pub/Sub neither responds nor accepts messages; the last of these has a delay of 0.29 s.
        assert clock.pull(10.1, 10.08, took=0.3) == 9.9
        assert clock.pull(10.5, 10.35, published=10.45) == 10.05
        assert clock.pull(10.6, 10.16, 10.44, published=10.45) == 10.05
        assert clock.pull(12.7) == 12.6

    def test_waits_for_a_slow_response_without_messages(self) -> None:
        clock = Clock()
        assert clock.pull(10, took=0.5) == 9.4
        assert [clock.pull(at) for at in (11, 12, 12.1)] == [10.4, 11.4, 12]

    def test_never_decreases(self) -> None:
        clock = Clock()
        assert clock.pull(10, 9.9) == 9.9
        assert clock.pull(10.5, 2) == 9.9
        assert clock.pull(12.6) == 12.5

    def test_never_passes_the_clock(self) -> None:
        clock = Clock()
        assert clock.pull(10, 500) == 9.9


class TestWatermarkBehind:
    def test_advances_with_what_is_read(self) -> None:
        clock = Clock()
        assert clock.pull(10, 10) == 9.9
        # Always 5 s behind: the oldest message of the last 2 s is 7 s old.
        assert [clock.pull(at, at - 5, published=at - 5) for at in range(16, 21)] == [10.9, 10.9, 10.9, 11.9, 12.9]

    def test_waits_for_delayed_messages(self) -> None:
        clock = Clock()
        assert clock.pull(10, 10) == 9.9
        assert [clock.pull(at, at - 8, published=at - 5) for at in range(16, 23)] == [9.9] * 4 + [10, 11, 12]

    def test_advances_once_caught_up(self) -> None:
        clock = Clock()
        assert [clock.pull(at, at - 5, published=at - 5) for at in (10, 11)] == [4.9, 4.9]
        assert clock.pull(13.1) == 13


class TestWatermarkWithLateMessages:
    LONG_AGO = -1_000_000_000.0

    def test_ignores_a_clock_that_stands_still(self) -> None:
        clock = Clock()
        assert [clock.pull(at, at, self.LONG_AGO) for at in range(5)] == [None, None, 1.9, 2.9, 3.9]

    def test_ignores_very_late_messages_alone(self) -> None:
        clock = Clock()
        assert clock.pull(10, 10) == 9.9
        assert [clock.pull(at, self.LONG_AGO) for at in (13, 14, 15)] == [12.9, 13.9, 14.9]

    def test_waits_for_steadily_late_messages_no_longer_than_their_delay(self) -> None:
        clock = Clock()
        assert clock.pull(10, 10) == 9.9
        # Half a minute late: the watermark stays, and follows them from 39.9 on.
        assert [clock.pull(at, at, at - 30) for at in range(11, 43)] == [9.9] * 29 + [10, 11, 12]

    def test_waits_for_delays_above_a_minute_when_all_are_as_slow(self) -> None:
        clock = Clock()
        assert [clock.pull(at, at - 120, at - 150) for at in (1, 2, 3)] == [None, -148, -147]
        # After a fast message the slow ones are left out for 2 s, in which they are late.
        assert clock.pull(4, 4, 4 - 120) == 3.9
