"""The watermark of a reader of Pub/Sub, estimated from the messages that it pulls."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP

SECOND = 1_000_000  # microseconds
CATCH_UP = 2 * SECOND  # see Watermark
MIN_DELAY = SECOND // 10  # see Watermark
MAX_DELAY = 60 * SECOND  # see Watermark
EARLIEST, LATEST = MIN_TIMESTAMP.micros, GlobalWindow().max_timestamp().micros


class Watermark:
    """An estimate of the event time up to which all messages have been read.

    It is the publish time up to which everything has been read, minus the longest delay of a message from its event
    time to its publish time. It never decreases.

    Pub/Sub delivers messages approximately in the order of publishing. The publish time up to which everything has been
    read therefore follows from the messages of the last 2 s:

    Backlog: one was published before the reader started, or the reader started less than 2 s ago. More of the backlog
    may follow, in any order of event time. The watermark stays at the beginning of time.

    Behind: one was already 2 s old when it was pulled. Everything has been read that was published before the oldest of
    them.

    Caught up: otherwise. Everything has been read that was published before the oldest message of the last pull, or
    before that pull began if it returned none.

    The longest delay is that of the messages of the last 2 s, and at least a tenth of a second more than the slowest
    pull of these 2 s: while Pub/Sub does not respond, publishers wait too. Two kinds of messages are left out, so that
    a sensor that sends yesterday's readings, or whose clock stands still, does not delay all others: those that are
    already a minute behind the watermark, and those whose delay is more than a minute and more than twice the shortest.

        clock      12:00:00     :01          :02        :04   :05    :06    :30      :31      :33      :35    :36
        published  11:50-11:55  11:50-11:59  11:57-now  now   now    now    :06-:12  :12-:22  :22-now  now    now
        state      backlog ------------------------------->   caught up ->  behind ----------------------->   caught up
        watermark  -inf         -inf         -inf       -inf  :04.9  :05.9  :05.9    :05.9    :11.9    :21.9  :35.9

    All times are microseconds since 1970.
    """

    def __init__(self, started: int) -> None:
        self.value = EARLIEST
        self._started = started
        self._pulls: deque[_Pull] = deque()  # the pulls of the last 2 s

    def advance(self, began: int, ended: int, event_times: Sequence[int], publish_times: Sequence[int]) -> int:
        """Record a pull and the times of its messages, and return the new watermark.

        Args:
          began: when the pull began. It may not contain messages that were published later.
          ended: when it ended.
          event_times: the event time of each message.
          publish_times: the publish time of each message.
        """
        oldest = min(began, *publish_times) if publish_times else began
        least = self.value - MAX_DELAY
        times = zip(event_times, publish_times, strict=True)
        delays = [published - event for event, published in times if event >= least]
        self._pulls.append(_Pull.from_delays(began, ended, oldest, delays))
        while self._pulls[0].began < began - CATCH_UP:
            self._pulls.popleft()
        oldest_of_all = min(pull.oldest for pull in self._pulls)
        behind = any(pull.oldest < pull.began - CATCH_UP for pull in self._pulls)
        backlog = began < self._started + CATCH_UP or oldest_of_all < self._started
        if not backlog:
            self.value = max(self.value, (oldest_of_all if behind else oldest) - self._longest_delay())
        return self.value

    def _longest_delay(self) -> int:
        slowest_pull = max(pull.ended - pull.began for pull in self._pulls)
        slowest = max(pull.slowest for pull in self._pulls)
        fastest = min(pull.fastest for pull in self._pulls)
        very_slow = (delay for pull in self._pulls for delay in pull.very_slow if delay <= 2 * fastest)
        return max(MIN_DELAY + slowest_pull, slowest, *very_slow)


class _Pull(NamedTuple):
    began: int
    ended: int
    oldest: int  # publish time
    fastest: int  # the shortest delay
    slowest: int  # the longest delay of at most a minute
    very_slow: Sequence[int]  # delays of more than a minute

    @classmethod
    def from_delays(cls, began: int, ended: int, oldest: int, delays: Sequence[int]) -> "_Pull":
        very_slow = [delay for delay in delays if delay > MAX_DELAY]
        usual = [delay for delay in delays if delay <= MAX_DELAY] if very_slow else delays
        return cls(began, ended, oldest, min(delays, default=LATEST), max(usual, default=0), very_slow)
