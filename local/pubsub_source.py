"""The patches of Beam's local runner: a Pub/Sub read that is fast, never stalls, and holds the watermark.

Stock BundleBasedDirectRunner pulls 10 messages at a time, blocks up to 30 s when none come, acknowledges what it has
not processed, and takes the wall clock as watermark, so that every reading of a backlog is late. And it runs all steps
for each bundle, though most of them are given nothing. `install()` mends that, in this process only.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.bundle_factory import _Bundle
from apache_beam.runners.direct.executor import _ExecutorServiceParallelExecutor
from apache_beam.runners.direct.util import TransformResult
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils import windowed_value
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from google.pubsub_v1 import PubsubMessage as ServiceMessage

from local.emulators import PULL_MESSAGES, pull

BUNDLE_MESSAGES = 1000
IDLE_WAIT = 0.05  # seconds between pulls that find little, so that an idle pipeline does not keep a core busy
SECOND = 1_000_000  # microseconds
CATCH_UP = 2 * SECOND  # see Watermark
SHORTEST_WAY = SECOND // 2  # see Watermark
HELD = 8 * SECOND  # how long messages pulled ahead may wait; ack deadlines are 10 s or more
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
GLOBAL = (GlobalWindow(),)
EARLIEST, LATEST = MIN_TIMESTAMP.micros, GlobalWindow().max_timestamp().micros


class Watermark:
    """What the reader promises: no more messages with an event time before this, as far as it can know.

    Behind: a message pulled in the last 2 s was already 2 s old when pulled, or the reader started less than 2 s ago.
    Then more of the backlog may come, in any order of event time, and the watermark stays where it was (at the
    beginning of time, when nothing was ever caught up).

    Caught up: it is expected that all that was published before the oldest message of the last pull has been read (if
    it had none: before the pull), and that no message is longer on its way, from event time to publish time, than the
    longest of the last 2 s, at least half a second. So that much before is the watermark. It never goes back.

        clock      12:00:00     :01          :02            :03      :04      :05      :06      :07      :08
        pulled     11:50-11:55  11:50-11:59  11:57-now      now      now      now      nothing  nothing  nothing
        state      behind --------------------------------------------------> caught up ------------------------->
        watermark  -inf         -inf         -inf           -inf     -inf     :04.5    :05.5    :06.5    :07.5

    All times are microseconds since 1970.
    """

    def __init__(self, started: int) -> None:
        self.value = EARLIEST
        self._started = started
        self._pulls: deque[tuple[int, int, bool]] = deque()  # when, longest way, anything old in it

    def advance(self, began: int, event_times: Sequence[int], publish_times: Sequence[int]) -> int:
        """Take note of one pull and of the times of each of its messages, and return the watermark after it.

        `began` is the beginning of the pull, not its end: what was published meanwhile may not be in it.
        """
        oldest = min(began, *publish_times) if publish_times else began
        if event_times:
            way = max(published - event for event, published in zip(event_times, publish_times, strict=True))
            self._pulls.append((began, way, oldest < began - CATCH_UP))
        while self._pulls and self._pulls[0][0] < began - CATCH_UP:
            self._pulls.popleft()
        behind = began < self._started + CATCH_UP or any(old for _, _, old in self._pulls)
        if not behind:
            self.value = max(self.value, oldest - max([SHORTEST_WAY, *(way for _, way, _ in self._pulls)]))
        return self.value


@dataclass(frozen=True)
class Pulled:
    """Received messages, raw protobuf, and when their pull began, in microseconds since 1970."""

    began: int
    received: Sequence[Any]

    @property
    def ack_ids(self) -> list[str]:
        """What acknowledges them."""
        return [one.ack_id for one in self.received]


class Reader:
    """Pulls the next bundle on a thread of its own while the runner processes one, and acknowledges what is processed.

    What is pulled ahead is not acknowledged. If it has waited so long that Pub/Sub may send it again, it is given back.
    """

    def __init__(self, client: Any, subscription: str) -> None:
        self.watermark = Watermark(_now())
        self._client = client
        self._subscription = subscription
        self._thread = ThreadPoolExecutor(1, "pubsub-pull")
        self._ahead: Future[Pulled] | None = None
        self._given: Sequence[str] = ()  # ack ids of the bundle that the runner has
        self._processed: list[str] = []  # the thread's while it works: ack ids

    def next_bundle(self) -> Pulled:
        """Return up to BUNDLE_MESSAGES messages. The ones given before are processed now, and may be acknowledged."""
        ahead, self._ahead = self._ahead or self._thread.submit(self._acknowledge_and_pull), None
        pulled = ahead.result()
        while pulled.received and pulled.began < _now() - HELD:
            self._client.modify_ack_deadline(
                subscription=self._subscription, ack_ids=pulled.ack_ids, ack_deadline_seconds=0
            )
            pulled = self._acknowledge_and_pull()
        self._processed += self._given
        self._given = pulled.ack_ids
        wait = IDLE_WAIT if len(pulled.received) < PULL_MESSAGES else 0.0
        self._ahead = self._thread.submit(self._acknowledge_and_pull, wait)
        return pulled

    def _acknowledge_and_pull(self, wait: float = 0.0) -> Pulled:
        if self._processed:
            self._client.acknowledge(subscription=self._subscription, ack_ids=self._processed)
            self._processed = []
        time.sleep(wait)
        began = _now()
        return Pulled(began, pull(self._client, self._subscription, BUNDLE_MESSAGES))


class PubSubReadEvaluator(transform_evaluator._PubSubReadEvaluator):
    """The stock evaluator with another way to pull and another watermark. The runner makes one for each bundle.

    The runner asks for a bundle when all steps are done with the one before.
    """

    _readers: ClassVar[WeakKeyDictionary[Any, Reader]] = WeakKeyDictionary()

    def finish_bundle(self) -> TransformResult:
        """Put out one bundle, possibly empty, of PubsubMessages or of their data."""
        reader = self._readers.get(self._applied_ptransform)
        if reader is None:
            client = self._get_subscriber_client(self._applied_ptransform)
            reader = self._readers[self._applied_ptransform] = Reader(client, self._sub_name)
        pulled = reader.next_bundle()
        messages = [one.message for one in pulled.received]
        publish_times = [_publish_time(message) for message in messages]
        event_times = [
            _event_time(message, published, self.source.timestamp_attribute)
            for message, published in zip(messages, publish_times, strict=True)
        ]
        watermark = reader.watermark.advance(pulled.began, event_times, publish_times)

        result = super().finish_bundle()
        result.keyed_watermark_holds = {None: Timestamp(micros=watermark)}
        if messages:
            # The stock loop makes a Timestamp and a window for each message, and compares it with the one before.
            bundle = _Bundle(next(iter(self._outputs)), stacked=False)
            for message, event_time in zip(messages, event_times, strict=True):
                element = _with_attributes(message) if self.source.with_attributes else message.data
                bundle.add(windowed_value.create(element, event_time, GLOBAL))
            result.uncommitted_output_bundles = [bundle]
        return result

    def _read_from_pubsub(self, timestamp_attribute: str | None) -> Sequence[Any]:
        """Leave the stock class nothing to do with messages."""
        return ()


def _with_attributes(message: Any) -> PubsubMessage:
    return PubsubMessage._from_message(ServiceMessage.wrap(message))


def _now() -> int:
    return time.time_ns() // 1000


def _publish_time(message: Any) -> int:
    stamp = message.publish_time
    return stamp.seconds * SECOND + stamp.nanos // 1000


def _event_time(message: Any, publish_time: int, timestamp_attribute: str | None) -> int:
    """The attribute's time (epoch milliseconds or RFC 3339), or else the publish time.

    Stock ends the whole run at an unreadable attribute; here the pipeline shall judge the message.
    """
    if timestamp_attribute and timestamp_attribute in message.attributes:
        try:
            event_time = _parse(message.attributes[timestamp_attribute])
        except (ValueError, OverflowError):
            return publish_time
        if EARLIEST <= event_time <= LATEST:
            return event_time
    return publish_time


def _parse(text: str) -> int:
    """Microseconds since 1970, as the stock reader understands a text, but mostly a hundred times as fast."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo:
            return (moment.astimezone(UTC) - EPOCH) // MICROSECOND
    try:
        return int(text) * 1000
    except ValueError:
        event_time = Timestamp.from_rfc3339(text)
    if event_time.precision() > Timestamp.MICROS_PRECISION:
        event_time = event_time.to_precision(Timestamp.MICROS_PRECISION, allow_lossy_conversion=True)
    return int(event_time.micros)


_stock_schedule_consumers = _ExecutorServiceParallelExecutor.schedule_consumers


def _schedule_consumers(executor: _ExecutorServiceParallelExecutor, bundle: _Bundle) -> None:
    """Run the steps that take a bundle, unless it is empty.

    Stock sets all of them up for each, which is most of the time of a run. Nothing is lost: watermarks advance without
    it, and timers have bundles of their own.
    """
    if bundle.has_elements():
        _stock_schedule_consumers(executor, bundle)


def install() -> None:
    """Make BundleBasedDirectRunner work in this way, in this process. Calling it again changes nothing."""
    transform_evaluator._PubSubReadEvaluator = PubSubReadEvaluator
    _ExecutorServiceParallelExecutor.schedule_consumers = _schedule_consumers


def close() -> None:
    """Close the readers' clients and delete their temporary subscriptions, for a process about to exit at once."""
    for client in list(PubSubReadEvaluator._subscriber_client_cache.values()):
        client.close()
