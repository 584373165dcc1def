"""From messages to sums per interval and device, inside each bundle: decode, add, drain."""

import functools
import gc
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from pipeline.aggregate.activity import BundleActivity, DeviceActivity
from pipeline.aggregate.buckets import MAYBE_EXPIRED, Bucketing
from pipeline.aggregate.sums import SECOND
from pipeline.dead_letters import DEAD_LETTERS, dead_letter, new_id
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import Rejection
from pipeline.decode.mapped import decoder_for
from pipeline.decode.mapping import Mapping
from pipeline.decode.reading import Reading
from pipeline.metrics import METRICS
from pipeline.side_output import SIDE_OUTPUT, SplitByTag, to_side_output

# Tag of the activity of devices, among the outputs of the fold.
ACTIVITY = "activity"


class Folded(NamedTuple):
    """The output of `FoldReadings`.

    Attributes:
      sums: the sums of each bundle by interval and device, in windows. Together with `maybe_expired` they are the input
        of the transform that `emit` of the intervals returns.
      maybe_expired: sums whose intervals may have expired.
      dead_letters: dead letters of messages and items that are not readings.
      activity: when each device sent readings, as `DeviceActivity` drains it; None without `silence_after`.
    """

    sums: beam.PCollection[Any]
    maybe_expired: beam.PCollection[Any]
    dead_letters: beam.PCollection[Any]
    activity: beam.PCollection[Any] | None


class FoldReadings(beam.PTransform[beam.PCollection[Any], Folded]):
    """Decodes messages and adds their readings up per interval and device, inside each bundle.

    One step does all of it, because each step takes tens of microseconds of each bundle, even of one that has nothing
    for it.

    Input: message bytes, or PubsubMessage when the source keeps attributes. The element's own timestamp is only used
    when the mapping asks for the message's time.
    Output: `Folded`.

    Args:
      mapping: where times, devices and values are in messages.
      max_future_skew: seconds a reading may be ahead of the clock.
      bucketing: how readings are added up inside a bundle, and the windows of their sums.
      silence_after: seconds without a reading that make a silence, or None to leave out the activity of devices.
    """

    def __init__(self, mapping: Mapping, max_future_skew: int, bucketing: Bucketing, silence_after: int | None = None):
        super().__init__()
        self._sums_type = bucketing.element_type
        self._silence_after = silence_after
        fold = _TimedFold if mapping.needs_time else _Fold
        self._fold = fold(mapping, max_future_skew, bucketing, silence_after)

    def expand(self, messages: beam.PCollection[Any]) -> Any:
        tags = {SIDE_OUTPUT: tuple[int, Any]} | ({ACTIVITY: tuple[str, BundleActivity]} if self._silence_after else {})
        fold = beam.ParDo(self._fold).with_output_types(self._sums_type, **tags)
        folded = messages | "Fold" >> fold.with_outputs(*tags, main="sums")
        rare = folded[SIDE_OUTPUT] | "SplitByTag" >> SplitByTag(
            **{DEAD_LETTERS: Any, MAYBE_EXPIRED: tuple[int, str, Any]}
        )
        dead_letters = rare[DEAD_LETTERS] | "MakeDeadLetter" >> beam.Map(_make_dead_letter).with_output_types(Any)
        activity = folded[ACTIVITY] if self._silence_after else None
        return Folded(folded.sums, rare[MAYBE_EXPIRED], dead_letters, activity)


@functools.cache
def _freeze_once() -> None:
    """Exempt all existing objects from garbage collection, once per process.

    Beam keeps 200,000 objects. With many devices, a third of the time would go into scanning them for garbage. It
    is not done in each `setup`, because the objects of earlier bundle processors would then never be freed.
    """
    gc.collect()
    gc.freeze()


class _Fold(beam.DoFn):
    # Messages that are folded together, because starting a fold takes as long as folding one message. Few enough to fit
    # in memory if each has 10 MB, the most that Pub/Sub allows.
    BATCH_SIZE = 32

    def __init__(self, mapping: Mapping, max_future_skew: int, bucketing: Bucketing, silence_after: int | None):
        self._mapping = mapping
        self._needs_envelopes = bool(mapping.attributes) or mapping.needs_time
        self._max_future_skew = max_future_skew
        self._bucketing = bucketing
        self._silence_after = silence_after
        self._messages_total = Metrics.counter(METRICS, "messages")
        self._readings_total = Metrics.counter(METRICS, "readings")
        self._ignored_total = Metrics.counter(METRICS, "ignored_keys")
        self._without_reading_total = Metrics.counter(METRICS, "without_reading")

    def setup(self) -> None:
        # Here because msgspec's decoders do not pickle.
        self._decoder = decoder_for(self._mapping)
        _freeze_once()

    def start_bundle(self) -> None:
        self._batch: list[Any] = []
        self._times: list[int] = []
        self._messages = self._decoder.readings = self._decoder.ignored_keys = self._decoder.without_reading = 0
        self._buckets = self._bucketing.new_buckets()
        self._activity = DeviceActivity(self._silence_after * SECOND) if self._silence_after else None

    def process(self, element: Any) -> Iterable[Any]:
        # Not a generator: most calls have nothing to emit, and an iterator for each would cost more than the fold.
        self._batch.append(element)
        return self._fold_batch() if len(self._batch) == self.BATCH_SIZE else ()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._fold_batch()
        yield from self._drain(time.time())
        self._messages_total.inc(self._messages)
        self._readings_total.inc(self._decoder.readings)
        if self._decoder.ignored_keys:
            self._ignored_total.inc(self._decoder.ignored_keys)
        if self._decoder.without_reading:
            self._without_reading_total.inc(self._decoder.without_reading)

    def _fold_batch(self) -> Iterator[Any]:
        batch, self._batch = self._batch, []
        self._messages += len(batch)
        now = time.time()
        rejections: list[Rejection] = []
        readings = self._decode(batch, now, rejections)
        while self._add(readings):
            yield from self._drain(now)
        for rejection in rejections:
            rejected = _rejected(rejection, batch[rejection.message], now)
            yield to_side_output(DEAD_LETTERS, tuple(rejected), Timestamp(int(now)))

    def _decode(self, batch: list[Any], now: float, rejections: list[Rejection]) -> Iterator[Reading]:
        """Yield the readings of the messages, and add everything else to `rejections`."""
        # The source yields either bytes or PubsubMessages, never both.
        payloads = batch if not batch or type(batch[0]) is bytes else [message.data for message in batch]
        latest = int((now + self._max_future_skew) * SECOND)
        if not self._needs_envelopes:
            return self._decoder.decode(payloads, latest, rejections)
        times: list[int | None] = [*self._times] or [None] * len(batch)
        self._times.clear()
        attributes = (getattr(message, "attributes", None) or {} for message in batch)
        return self._decoder.decode(payloads, latest, rejections, list(map(Envelope, attributes, times)))

    def _add(self, readings: Iterator[Reading]) -> bool:
        """Add readings until there are none left, or until a drain is due; return whether a drain is due."""
        if not self._activity:
            return self._buckets.add(readings)
        full = self._buckets.add(self._activity.observe(readings))
        return full or self._activity.full

    def _drain(self, now: float) -> Iterator[Any]:
        """Yield what has been added since the last drain."""
        yield from self._bucketing.place(self._buckets.drain(), now)
        for earliest, activity in self._activity.drain() if self._activity else ():
            yield beam.pvalue.TaggedOutput(ACTIVITY, GlobalWindows.windowed_value(activity, Timestamp(micros=earliest)))


class _TimedFold(_Fold):
    """Folds messages with their event times; to get one from Beam takes as long as parsing a small message."""

    def process(self, element: Any, timestamp: Any = beam.DoFn.TimestampParam) -> Iterable[Any]:
        self._times.append(timestamp.micros)
        return super().process(element)


class _Rejected(NamedTuple):
    """The fields from which a dead letter is created after the side output.

    They pass the side output as a plain tuple, which Beam encodes in a fraction of the time that a dead letter takes.
    Id and time are among them, so that a retry of the steps after the side output creates the same dead letter.
    """

    errors: dict[str, int]  # number of items by the name of their error
    stage: str
    error: str
    message: str
    payload: bytes
    attributes: dict[str, str] | None
    message_id: str | None
    dead_letter_id: str
    received_at: int


def _rejected(rejection: Rejection, message: Any, now: float) -> _Rejected:
    reason = rejection.reason
    return _Rejected(
        rejection.errors,
        reason.stage,
        type(reason).__name__,
        str(reason),
        rejection.payload,
        getattr(message, "attributes", None),
        getattr(message, "message_id", None),
        new_id(),
        int(now * SECOND),
    )


def _make_dead_letter(fields: tuple[Any, ...]) -> dict[str, Any]:
    rejected = _Rejected(*fields)
    # Counted here and not in the fold, because a counter that was used once is reported with every later bundle.
    for error, count in rejected.errors.items():
        _refused_total(error).inc(count)
    return dead_letter(
        rejected.stage,
        rejected.error,
        rejected.message,
        rejected.payload,
        rejected.attributes,
        rejected.message_id,
        dead_letter_id=rejected.dead_letter_id,
        received_at=rejected.received_at,
    )


@functools.cache
def _refused_total(error: str) -> Any:
    return Metrics.counter(METRICS, f"refused_{error}")
