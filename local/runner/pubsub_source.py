"""The Pub/Sub source of the local pipeline: a reader for Beam's local runner that is fast and holds the watermark.

Beam's reader in BundleBasedDirectRunner pulls 10 messages at a time, blocks up to 30 s when there are none, and
acknowledges messages before they are processed. It does not remove duplicates, and uses the wall clock as watermark, so
that every reading of a backlog is late. `beam_patches` replaces it with PubSubReadEvaluator.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.bundle_factory import _Bundle
from apache_beam.runners.direct.util import TransformResult
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils import windowed_value
from apache_beam.utils.timestamp import Timestamp
from google.pubsub_v1 import PubsubMessage as ServiceMessage

from local.runner.duplicates import SeenIds
from local.runner.watermark import EARLIEST, LATEST, SECOND, Watermark
from local.stack.emulators import PULL_MESSAGES, pull, subscriber_client

BUNDLE_MESSAGES = 1000
IDLE_WAIT = 0.05  # seconds before the next pull after one with few messages, to spare the CPU when idle
MAX_HOLD = 8 * SECOND  # that messages pulled ahead may wait; ack deadlines are 10 s or more
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
GLOBAL = (GlobalWindow(),)


@dataclass(frozen=True)
class Pulled:
    """Received messages as raw protobuf, and the start and end of their pull in microseconds since 1970."""

    began: int
    ended: int
    received: Sequence[Any]

    @property
    def ack_ids(self) -> list[str]:
        """The ack ids of the messages."""
        return [one.ack_id for one in self.received]


class Reader:
    """Pulls the next bundle in another thread while the runner processes one, and acknowledges processed ones.

    Messages that were pulled ahead are not acknowledged yet. If they have waited for MAX_HOLD, after which Pub/Sub may
    redeliver them, they are returned to it.
    """

    def __init__(self, client: Any, subscription: str) -> None:
        self.watermark = Watermark(_now())
        self.seen = SeenIds()
        self._client = client
        self._subscription = subscription
        self._thread = ThreadPoolExecutor(1, "pubsub-pull")
        self._ahead: Future[Pulled] | None = None
        self._processing: Sequence[str] = ()  # ack ids of the bundle that the runner processes
        self._processed: list[str] = []  # ack ids; used by the other thread while it runs

    def next_bundle(self) -> Pulled:
        """Return up to BUNDLE_MESSAGES messages. The previous bundle must be processed, and is acknowledged."""
        ahead, self._ahead = self._ahead or self._thread.submit(self._acknowledge_and_pull), None
        pulled = ahead.result()
        # Before the next pull, which may otherwise return the same messages again.
        self._processed += self._processing
        self._processing = ()
        while pulled.received and pulled.began < _now() - MAX_HOLD:
            self._client.modify_ack_deadline(
                subscription=self._subscription, ack_ids=pulled.ack_ids, ack_deadline_seconds=0
            )
            pulled = self._acknowledge_and_pull()
        self._processing = pulled.ack_ids
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
    """Beam's evaluator with another reader and another watermark. The runner creates one for each bundle.

    It does so when all steps have processed the previous bundle.
    """

    _readers: ClassVar[WeakKeyDictionary[Any, Reader]] = WeakKeyDictionary()

    def __init__(self, evaluation_context: Any, applied_ptransform: Any, *args: Any) -> None:
        source = applied_ptransform.transform._source
        self._id_attribute = source.id_label
        reader = self._readers.get(applied_ptransform)
        if reader:
            # The constructor of Beam's class would parse the pipeline's options again.
            transform_evaluator._TransformEvaluator.__init__(self, evaluation_context, applied_ptransform, *args)
            self.source = source
        else:
            source.id_label = None  # which Beam's class refuses
            try:
                super().__init__(evaluation_context, applied_ptransform, *args)  # type: ignore[no-untyped-call]
            finally:
                source.id_label = self._id_attribute
            # Beam's client accepts at most 4 MB from an emulator.
            emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
            client = subscriber_client(emulator) if emulator else self._get_subscriber_client(applied_ptransform)
            reader = self._readers[applied_ptransform] = Reader(client, self._sub_name)
        self._reader = reader

    def finish_bundle(self) -> TransformResult:
        """Return one bundle, possibly empty, of PubsubMessages or of their data."""
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
            # Not when they are pulled ahead and may be returned. Duplicates are acknowledged with this bundle.
            ids = [_id(message, self._id_attribute) for message in messages]
            timed = list(compress(timed, self._reader.seen.are_new(_now(), ids)))
        if timed:
            # Faster than Beam's loop, which creates a Timestamp and a window for each message.
            bundle = _Bundle(next(iter(self._outputs)), stacked=False)
            for message, event_time in timed:
                element = _with_attributes(message) if self.source.with_attributes else message.data
                bundle.add(windowed_value.create(element, event_time, GLOBAL))
            result.uncommitted_output_bundles = [bundle]
        return result

    def _read_from_pubsub(self, timestamp_attribute: str | None) -> list[Any]:
        """Return nothing, so that `finish_bundle` of Beam's class processes no messages."""
        return []


def _with_attributes(message: Any) -> PubsubMessage:
    return PubsubMessage._from_message(ServiceMessage.wrap(message))


def _id(message: Any, id_attribute: str) -> str:
    """Return what identifies a message: the attribute, or else Pub/Sub's id, which only a redelivery repeats."""
    own_id = message.attributes.get(id_attribute)
    return f"id {own_id}" if own_id else f"message {message.message_id}"


def _now() -> int:
    return time.time_ns() // 1000


def _publish_time(message: Any) -> int:
    stamp = message.publish_time
    return stamp.seconds * SECOND + stamp.nanos // 1000


def _event_time(message: Any, publish_time: int, timestamp_attribute: str | None) -> int:
    """Return the attribute's time (epoch milliseconds or RFC 3339), or else the publish time.

    With Beam's reader an unreadable attribute ends the run. Here the pipeline gets the message and checks it.
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
    """Convert a text to microseconds since 1970 like Beam's reader, but a hundred times as fast for usual formats."""
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


def close() -> None:
    """Close the readers' clients and delete their temporary subscriptions, before the process exits."""
    for client in list(PubSubReadEvaluator._subscriber_client_cache.values()):
        # The lock is held while a subscription is created; a client closed meanwhile would not delete it.
        with client._lock:
            client.close()
