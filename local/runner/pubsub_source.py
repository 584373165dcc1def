"""The patches of Beam's local runner: a Pub/Sub read that is fast, never stalls, and holds the watermark.

Stock BundleBasedDirectRunner pulls 10 messages at a time, blocks up to 30 s when none come, acknowledges what it has
not processed, refuses to remove duplicates, and takes the wall clock as watermark, so that every reading of a backlog
is late. It runs all steps for each bundle, though most of them are given nothing, and looks up anew what arguments all
methods of a step take. `install()` mends that, in this process only.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from types import MethodType
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.bundle_factory import _Bundle
from apache_beam.runners.direct.executor import _ExecutorServiceParallelExecutor
from apache_beam.runners.direct.util import TransformResult
from apache_beam.transforms import core
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils import windowed_value
from apache_beam.utils.timestamp import Timestamp
from google.pubsub_v1 import PubsubMessage as ServiceMessage

from local.runner.duplicates import Seen
from local.runner.watermark import EARLIEST, LATEST, SECOND, Watermark
from local.stack.emulators import PULL_MESSAGES, pull, subscriber_client

BUNDLE_MESSAGES = 1000
IDLE_WAIT = 0.05  # seconds between pulls that find little, so that an idle pipeline does not keep a core busy
HELD = 8 * SECOND  # how long messages pulled ahead may wait; ack deadlines are 10 s or more
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
GLOBAL = (GlobalWindow(),)


@dataclass(frozen=True)
class Pulled:
    """Received messages, raw protobuf, and when their pull began and ended, in microseconds since 1970."""

    began: int
    ended: int
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
        self.seen = Seen()
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
        # Before anything else is pulled, or the same messages may come again with it.
        self._processed += self._given
        self._given = ()
        while pulled.received and pulled.began < _now() - HELD:
            self._client.modify_ack_deadline(
                subscription=self._subscription, ack_ids=pulled.ack_ids, ack_deadline_seconds=0
            )
            pulled = self._acknowledge_and_pull()
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
        received = pull(self._client, self._subscription, BUNDLE_MESSAGES)
        return Pulled(began, _now(), received)


class PubSubReadEvaluator(transform_evaluator._PubSubReadEvaluator):
    """The stock evaluator with another way to pull and another watermark. The runner makes one for each bundle.

    The runner asks for a bundle when all steps are done with the one before.
    """

    _readers: ClassVar[WeakKeyDictionary[Any, Reader]] = WeakKeyDictionary()

    def __init__(self, evaluation_context: Any, applied_ptransform: Any, *args: Any) -> None:
        source = applied_ptransform.transform._source
        self._id_attribute = source.id_label
        reader = self._readers.get(applied_ptransform)
        if reader:
            # Stock would parse the pipeline's options once more.
            transform_evaluator._TransformEvaluator.__init__(self, evaluation_context, applied_ptransform, *args)
            self.source = source
        else:
            source.id_label = None  # which stock refuses
            try:
                super().__init__(evaluation_context, applied_ptransform, *args)
            finally:
                source.id_label = self._id_attribute
            # Stock's client takes no more than 4 MB from an emulator.
            emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
            client = subscriber_client(emulator) if emulator else self._get_subscriber_client(applied_ptransform)
            reader = self._readers[applied_ptransform] = Reader(client, self._sub_name)
        self._reader = reader

    def finish_bundle(self) -> TransformResult:
        """Put out one bundle, possibly empty, of PubsubMessages or of their data."""
        pulled = self._reader.next_bundle()
        messages = [one.message for one in pulled.received]
        publish_times = [_publish_time(message) for message in messages]
        event_times = [
            _event_time(message, published, self.source.timestamp_attribute)
            for message, published in zip(messages, publish_times, strict=True)
        ]
        watermark = self._reader.watermark.advance(pulled.began, pulled.ended, event_times, publish_times)

        result = super().finish_bundle()
        result.keyed_watermark_holds = {None: Timestamp(micros=watermark)}
        timed = list(zip(messages, event_times, strict=True))
        if self._id_attribute:
            # Not sooner, as what is pulled ahead may be given back. The others are acknowledged with this bundle.
            first = self._reader.seen.first_times(_now(), [_id(message, self._id_attribute) for message in messages])
            timed = list(compress(timed, first))
        if timed:
            # The stock loop makes a Timestamp and a window for each message, and compares it with the one before.
            bundle = _Bundle(next(iter(self._outputs)), stacked=False)
            for message, event_time in timed:
                element = _with_attributes(message) if self.source.with_attributes else message.data
                bundle.add(windowed_value.create(element, event_time, GLOBAL))
            result.uncommitted_output_bundles = [bundle]
        return result

    def _read_from_pubsub(self, timestamp_attribute: str | None) -> Sequence[Any]:
        """Leave the stock class nothing to do with messages."""
        return ()


def _with_attributes(message: Any) -> PubsubMessage:
    return PubsubMessage._from_message(ServiceMessage.wrap(message))


def _id(message: Any, id_attribute: str) -> str:
    """What identifies the message: the attribute, or else Pub/Sub's id, so that only its redelivery is the same."""
    own_id = message.attributes.get(id_attribute)
    return f"id {own_id}" if own_id else f"message {message.message_id}"


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


_Arguments = tuple[list[str], list[Any]]
_stock_arguments = core.get_function_args_defaults
_arguments_of: WeakKeyDictionary[Callable[..., Any], _Arguments] = WeakKeyDictionary()


def _arguments(function: Any) -> _Arguments:
    """The names and defaults of what a function takes, inspected once for a method.

    Stock inspects all methods of a step four times for each bundle, which is half of the time of a run.
    """
    if not isinstance(function, MethodType):
        return _stock_arguments(function)
    found = _arguments_of.get(function.__func__)
    if found is None:
        found = _arguments_of[function.__func__] = _stock_arguments(function)
    names, defaults = found
    return list(names), list(defaults)


def install() -> None:
    """Make BundleBasedDirectRunner work in this way, in this process. Calling it again changes nothing."""
    transform_evaluator._PubSubReadEvaluator = PubSubReadEvaluator
    _ExecutorServiceParallelExecutor.schedule_consumers = _schedule_consumers
    core.get_function_args_defaults = _arguments


def close() -> None:
    """Close the readers' clients and delete their temporary subscriptions, for a process about to exit at once."""
    for client in list(PubSubReadEvaluator._subscriber_client_cache.values()):
        # Held while a subscription is made: closed meanwhile, the client would not know of it.
        with client._lock:
            client.close()
