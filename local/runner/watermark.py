"""How far a reader of Pub/Sub has come in event time, told by nothing but what it pulls."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP

SECOND = 1_000_000  # microseconds
CATCH_UP = 2 * SECOND  # see Watermark
SHORTEST_WAY = SECOND // 10  # see Watermark
LONGEST_WAY = 60 * SECOND  # see Watermark
EARLIEST, LATEST = MIN_TIMESTAMP.micros, GlobalWindow().max_timestamp().micros


class Watermark:
    """What the reader promises: no more messages with an event time before this, as far as it can know.

    It is the moment up to which all that was published has been read, less the longest way of a message from its event
    time to its publish time. It never goes back.

    Pub/Sub gives messages about in the order in which they were published. So the moment is found thus:

    Backlog: a message pulled in the last 2 s was published before the reader started, or it started less than 2 s ago.
    More of the backlog may come, in any order of event time. The watermark stays at the beginning of time.

    Behind: a message pulled in the last 2 s was already 2 s old when pulled. All is read that was published before the
    oldest message of the last 2 s.

    Caught up: all is read that was published before the oldest message of the last pull; if it had none, before that
    pull began.

    The longest way is that of the messages of the last 2 s, at least a tenth of a second more than the slowest pull of
    these 2 s took: while Pub/Sub does not answer, what is being published waits too. Two kinds do not count, so that a
    sensor that sends what it kept since yesterday, or whose clock stands still, does not hold up all others: messages
    that are a minute behind the watermark already; and those that took more than a minute, and more than twice as long
    as the fastest.

        clock      12:00:00     :01          :02        :04   :05    :06    :30      :31      :33      :35    :36
        published  11:50-11:55  11:50-11:59  11:57-now  now   now    now    :06-:12  :12-:22  :22-now  now    now
        state      backlog ------------------------------->   caught up ->  behind ----------------------->   caught up
        watermark  -inf         -inf         -inf       -inf  :04.9  :05.9  :05.9    :05.9    :11.9    :21.9  :35.9

    All times are microseconds since 1970.
    """

    def __init__(self, started: int) -> None:
        self.value = EARLIEST
        self._started = started
        self._pulls: deque[_Pull] = deque()  # those of the last 2 s

    def advance(self, began: int, ended: int, event_times: Sequence[int], publish_times: Sequence[int]) -> int:
        """Take note of one pull and of the times of each of its messages, and return the watermark after it.

        What was published after the pull began may not be in it.
        """
        oldest = min(began, *publish_times) if publish_times else began
        least = self.value - LONGEST_WAY
        times = zip(event_times, publish_times, strict=True)
        ways = [published - event for event, published in times if event >= least]
        self._pulls.append(_Pull.of(began, ended, oldest, ways))
        while self._pulls[0].began < began - CATCH_UP:
            self._pulls.popleft()
        of_all = min(pull.oldest for pull in self._pulls)
        behind = any(pull.oldest < pull.began - CATCH_UP for pull in self._pulls)
        backlog = began < self._started + CATCH_UP or of_all < self._started
        if not backlog:
            self.value = max(self.value, (of_all if behind else oldest) - self._longest_way())
        return self.value

    def _longest_way(self) -> int:
        answer = max(pull.ended - pull.began for pull in self._pulls)
        slowest = max(pull.slowest for pull in self._pulls)
        fastest = min(pull.fastest for pull in self._pulls)
        very_slow = (way for pull in self._pulls for way in pull.very_slow if way <= 2 * fastest)
        return max(SHORTEST_WAY + answer, slowest, *very_slow)


class _Pull(NamedTuple):
    began: int
    ended: int
    oldest: int  # publish time
    fastest: int  # way
    slowest: int  # way of a minute at most
    very_slow: Sequence[int]  # ways of more than a minute

    @classmethod
    def of(cls, began: int, ended: int, oldest: int, ways: Sequence[int]) -> "_Pull":
        very_slow = [way for way in ways if way > LONGEST_WAY]
        bearable = [way for way in ways if way <= LONGEST_WAY] if very_slow else ways
        return cls(began, ended, oldest, min(ways, default=LATEST), max(bearable, default=0), very_slow)
