"""From messages to sums per window and device, inside each bundle."""

import functools
import gc
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from pipeline.aggregate.sums import SECOND
from pipeline.dead_letters import DEAD_LETTERS, METRICS, dead_letter, new_id
from pipeline.decode.decoder import Decoder, Reading, Rejection
from pipeline.side_output import SIDE_OUTPUT, SplitByTag, to_side_output
from pipeline.silences import DeviceActivity
from pipeline.windows.fixed import FixedIntervals
from pipeline.windows.session import SessionIntervals

# Tag of what was heard of each device, among the outputs of the fold.
ACTIVITY = "heard"


class Folded(NamedTuple):
    """What comes of messages.

    Attributes:
      sums: what `emit` of the intervals takes; the device is "" for all unless devices are kept apart.
      dead_letters: dead-letter rows.
      heard: when each device was heard, as `DeviceActivity` drains it; None unless somebody asks.
    """

    sums: Any
    dead_letters: beam.PCollection
    heard: beam.PCollection | None


class FoldReadings(beam.PTransform):
    """Decodes messages and adds them up per interval and device, inside each bundle.

    One step does it all: a step takes tens of microseconds for each bundle, even for one of which it is given nothing.

    Input: message bytes, or PubsubMessage when the source keeps attributes. The element's own timestamp is not used.
    Output: `Folded`.

    Args:
      sensors: the sensor names to look for.
      max_future_skew: seconds a reading may be ahead of the clock.
      intervals: how event time is cut into windows, and what is kept of the readings.
      silence_after: seconds without a reading that make a silence, or None if nobody asks.
    """

    def __init__(
        self,
        sensors: tuple[str, ...],
        max_future_skew: int,
        intervals: FixedIntervals | SessionIntervals,
        silence_after: int | None = None,
    ):
        super().__init__()
        self._intervals = intervals
        self._silence_after = silence_after
        self._fold = _Fold(sensors, max_future_skew, intervals.folded, silence_after)

    def expand(self, messages: beam.PCollection) -> Any:
        """Apply the fold."""
        tags = {SIDE_OUTPUT: tuple[int, Any]} | ({ACTIVITY: tuple[str, Any]} if self._silence_after else {})
        fold = beam.ParDo(self._fold).with_output_types(self._intervals.folded.keyed_type, **tags)
        folded = messages | "Fold" >> fold.with_outputs(*tags, main="sums")
        aside = folded[SIDE_OUTPUT] | "SplitByTag" >> SplitByTag(**{DEAD_LETTERS: Any}, **self._intervals.aside)
        aged = [aside[tag] for tag in self._intervals.aside]
        sums = (folded.sums, *aged) if aged else folded.sums
        dead_letters = aside[DEAD_LETTERS] | "MakeDeadLetter" >> beam.Map(_make_dead_letter).with_output_types(Any)
        return Folded(sums, dead_letters, folded[ACTIVITY] if self._silence_after else None)


@functools.cache
def _freeze_once() -> None:
    """Exempt all objects alive from garbage collection, once per process.

    Beam keeps 200,000 objects alive. Walking them again and again for garbage takes a third of the time when there are
    many devices. Frozen with each new bundle processor, the garbage of the one before would never be freed.
    """
    gc.collect()
    gc.freeze()


class _Fold(beam.DoFn):
    # Messages that are folded in one go, as starting takes about as long as folding one. Few enough that as many of
    # 10 MB, the largest there are, fit in memory.
    BATCH_SIZE = 32

    def __init__(
        self,
        sensors: tuple[str, ...],
        max_future_skew: int,
        intervals: FixedIntervals | SessionIntervals,
        silence_after: int | None,
    ):
        self._sensors = sensors
        self._max_future_skew = max_future_skew
        self._intervals = intervals
        self._lift = intervals.statistics.lift
        self._silence_after = silence_after
        self._messages_total = Metrics.counter(METRICS, "messages")
        self._readings_total = Metrics.counter(METRICS, "readings")
        self._ignored_total = Metrics.counter(METRICS, "ignored_keys")

    def setup(self) -> None:
        # Here because msgspec's decoders do not pickle.
        self._decoder = Decoder(self._sensors)
        _freeze_once()

    def start_bundle(self) -> None:
        self._waiting: list[Any] = []
        self._messages = self._decoder.readings = self._decoder.ignored_keys = 0
        self._buckets = self._intervals.new_buckets()
        self._heard = DeviceActivity(self._silence_after * SECOND) if self._silence_after else None

    def process(self, element: Any) -> Iterable[Any]:
        # Not a generator: most calls have nothing to emit, and an iterator for each would cost more than the fold.
        self._waiting.append(element)
        return self._fold() if len(self._waiting) == self.BATCH_SIZE else ()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._fold()
        yield from self._buckets.drain(time.time())
        if self._heard:
            yield from self._drain_heard(self._heard)
        self._messages_total.inc(self._messages)
        self._readings_total.inc(self._decoder.readings)
        if self._decoder.ignored_keys:
            self._ignored_total.inc(self._decoder.ignored_keys)

    def _fold(self) -> Iterator[Any]:
        messages, self._waiting = self._waiting, []
        self._messages += len(messages)
        now = time.time()
        rejections: list[Rejection] = []
        # All of them are what the source makes of messages.
        payloads = messages if not messages or type(messages[0]) is bytes else [message.data for message in messages]
        readings = self._decoder.decode(payloads, int((now + self._max_future_skew) * SECOND), rejections)
        yield from self._add(readings, now)
        while self._heard and self._heard.full:
            yield from self._drain_heard(self._heard)
            yield from self._add(readings, now)
        for rejection in rejections:
            refused = _refused(rejection, messages[rejection.message], now)
            yield to_side_output(DEAD_LETTERS, refused, Timestamp(int(now)))

    def _add(self, readings: Iterator[Reading], now: float) -> Iterator[Any]:
        """Add readings up until there are no more, or too many devices to remember; yield what is emitted meanwhile."""
        lifted = self._lift(self._heard.note(readings) if self._heard else readings)
        while self._buckets.add(lifted):
            yield from self._buckets.drain(now)

    def _drain_heard(self, heard: DeviceActivity) -> Iterator[beam.pvalue.TaggedOutput]:
        for earliest, runs in heard.drain():
            yield beam.pvalue.TaggedOutput(ACTIVITY, GlobalWindows.windowed_value(runs, Timestamp(micros=earliest)))


def _refused(rejection: Rejection, message: Any, now: float) -> tuple[Any, ...]:
    # What `dead_letter` takes: Beam encodes that in a fraction of the time that a letter takes. It has an id already,
    # so that what is done again after the grouping is done to the same letter.
    reason = rejection.reason
    of_message = getattr(message, "attributes", None), getattr(message, "message_id", None)
    known = *of_message, new_id(), int(now * SECOND)
    return rejection.errors, reason.stage, type(reason).__name__, str(reason), rejection.payload, *known


@functools.cache
def _refused_total(error: str) -> Any:
    return Metrics.counter(METRICS, f"refused_{error}")


def _make_dead_letter(refused: tuple[Any, ...]) -> dict[str, Any]:
    errors, *arguments = refused
    # Not counted where it is refused: of a counter that once counted, every later bundle makes a report.
    for error, count in errors.items():
        _refused_total(error).inc(count)
    return dead_letter(*arguments)
