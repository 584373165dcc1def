"""The one patch of Beam's local runner: a Pub/Sub read that is fast, never stalls, and holds the watermark.

Stock BundleBasedDirectRunner pulls 10 messages at a time, blocks up to 30 s when none come, acknowledges what it has
not processed, and takes the wall clock as watermark, so that every reading of a backlog is late. `install()` replaces
that, in this process only.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.util import TransformResult
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from google.pubsub_v1 import PubsubMessage as ServiceMessage

from local.emulators import PULL_MESSAGES, pull

BUNDLE_MESSAGES = 1000
IDLE_WAIT = 0.05  # seconds between pulls that find little, so that an idle pipeline does not keep a core busy
CATCH_UP = 2.0  # seconds; see Watermark


class Watermark:
    """What the reader promises: no more messages with an event time before this, as far as it can know.

    Behind: a message pulled in the last 2 s was already 2 s old when pulled, or the reader started less than 2 s ago.
    Then more of the backlog may come, in any order of event time, and the watermark stays where it was (at the
    beginning of time, when nothing was ever caught up). Caught up: it is the oldest event time pulled in the last 2 s,
    or the time of the last pull if there was none; it never goes back and never passes that pull.

        clock      12:00:00     :01          :02            :03      :04      :05      :06      :07      :08
        pulled     11:50-11:55  11:50-11:59  11:57-now      now      now      now      nothing  nothing  nothing
        state      behind --------------------------------------------------> caught up ------------------------->
        watermark  -inf         -inf         -inf           -inf     -inf     :03      :04      :05      :08
    """

    def __init__(self, started: float) -> None:
        self.value = MIN_TIMESTAMP
        self._started = started
        self._pulls: deque[tuple[float, Timestamp, bool]] = deque()  # when, oldest event time, anything old in it

    def advance(self, now: float, event_times: Sequence[Timestamp], oldest_publish_time: float) -> Timestamp:
        """Take note of one pull, begun at `now` (epoch seconds), and return the watermark after it.

        The beginning of the pull counts, not its end: what was published meanwhile may not be in it.
        """
        if event_times:
            self._pulls.append((now, min(event_times), oldest_publish_time < now - CATCH_UP))
        while self._pulls and self._pulls[0][0] < now - CATCH_UP:
            self._pulls.popleft()
        behind = now < self._started + CATCH_UP or any(old for _, _, old in self._pulls)
        if not behind:
            oldest = min((event_time for _, event_time, _ in self._pulls), default=Timestamp.of(now))
            self.value = max(self.value, min(oldest, Timestamp.of(now)))
        return self.value


@dataclass
class _Reader:
    """What outlives one bundle of a Pub/Sub read."""

    watermark: Watermark = field(default_factory=lambda: Watermark(time.time()))
    processed: list[str] = field(default_factory=list)  # ack ids of the bundle before this one


class PubSubReadEvaluator(transform_evaluator._PubSubReadEvaluator):
    """The stock evaluator with another way to pull and another watermark. The runner makes one for each bundle."""

    _readers: ClassVar[WeakKeyDictionary[Any, _Reader]] = WeakKeyDictionary()

    def finish_bundle(self) -> TransformResult:
        """Pull one bundle; the stock class makes elements of what `_read_from_pubsub` returns."""
        self._reader = self._readers.setdefault(self._applied_ptransform, _Reader())
        result = super().finish_bundle()
        result.keyed_watermark_holds = {None: self._reader.watermark.value}
        return result

    def _read_from_pubsub(self, timestamp_attribute: str | None) -> list[tuple[Timestamp, Any]]:
        """Return up to BUNDLE_MESSAGES of (event time, message): PubsubMessage or just anything with `data`."""
        client = self._get_subscriber_client(self._applied_ptransform)
        # The runner asks for a bundle when all steps are done with the one before: now it is safe to acknowledge that.
        if self._reader.processed:
            client.acknowledge(subscription=self._sub_name, ack_ids=self._reader.processed)
            self._reader.processed = []

        now = time.time()
        received = pull(client, self._sub_name, BUNDLE_MESSAGES)
        messages = [one.message for one in received]
        event_times = [_event_time(message, timestamp_attribute) for message in messages]
        self._reader.watermark.advance(now, event_times, min((_publish_time(m) for m in messages), default=now))
        self._reader.processed = [one.ack_id for one in received]
        if len(messages) < PULL_MESSAGES:
            time.sleep(IDLE_WAIT)
        if self.source.with_attributes:
            messages = [PubsubMessage._from_message(ServiceMessage.wrap(message)) for message in messages]
        return list(zip(event_times, messages, strict=True))


def _event_time(message: Any, timestamp_attribute: str | None) -> Timestamp:
    """The attribute's time (epoch milliseconds or RFC 3339), or else the publish time.

    Stock ends the whole run at an unreadable attribute; here the pipeline shall judge the message.
    """
    if timestamp_attribute and timestamp_attribute in message.attributes:
        try:
            event_time = _parse(message.attributes[timestamp_attribute])
        except (ValueError, OverflowError):
            pass
        else:
            if MIN_TIMESTAMP <= event_time <= GlobalWindow().max_timestamp():
                return event_time
    stamp = message.publish_time
    return Timestamp(seconds=stamp.seconds, micros=stamp.nanos // 1000)


def _parse(text: str) -> Timestamp:
    try:
        return Timestamp(micros=int(text) * 1000)
    except ValueError:
        event_time = Timestamp.from_rfc3339(text)
    if event_time.precision() > Timestamp.MICROS_PRECISION:
        return event_time.to_precision(Timestamp.MICROS_PRECISION, allow_lossy_conversion=True)
    return event_time


def _publish_time(message: Any) -> float:
    return message.publish_time.seconds + message.publish_time.nanos / 1e9


def install() -> None:
    """Make BundleBasedDirectRunner read Pub/Sub in this way, in this process. Calling it again changes nothing."""
    transform_evaluator._PubSubReadEvaluator = PubSubReadEvaluator


def close() -> None:
    """Close the readers' clients and delete their temporary subscriptions, for a process about to exit at once."""
    for client in list(PubSubReadEvaluator._subscriber_client_cache.values()):
        client.close()
