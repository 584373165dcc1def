"""From messages to sums per window and device, inside each bundle."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.dead_letters import DEAD_LETTERS, METRICS, dead_letter, to_dead_letters
from pipeline.fixed_windows import FixedIntervals
from pipeline.readings import Decoder, Reading, Refusal
from pipeline.session_windows import SessionIntervals
from pipeline.sums import add_values


class FoldReadings(beam.PTransform):
    """Decodes messages and adds them up per interval and device, inside each bundle.

    Input: message bytes, or PubsubMessage when the source keeps attributes. The element's own timestamp is not used.
    Output `sums`: what the buckets of `intervals` drain; the device is "" for all unless `by_device`.
    Output `dead_letters`: dead-letter rows.

    Args:
      sensors: the sensor names to average.
      max_future_skew: seconds a reading may be ahead of the clock.
      intervals: how event time is cut into windows.
      by_device: keep devices apart.
    """

    def __init__(
        self,
        sensors: tuple[str, ...],
        max_future_skew: int,
        intervals: FixedIntervals | SessionIntervals,
        by_device: bool,
    ):
        super().__init__()
        self._fold = _Fold(sensors, max_future_skew, intervals, by_device)

    def expand(self, messages: beam.PCollection) -> Any:
        """Apply the fold."""
        fold = beam.ParDo(self._fold).with_output_types(tuple[str, Any], **{DEAD_LETTERS: Any})
        return messages | "Fold" >> fold.with_outputs(DEAD_LETTERS, main="sums")


class _Fold(beam.DoFn):
    # Bounds the memory of a bundle that touches very many windows or devices.
    MAX_BUCKETS = 20_000

    def __init__(
        self,
        sensors: tuple[str, ...],
        max_future_skew: int,
        intervals: FixedIntervals | SessionIntervals,
        by_device: bool,
    ):
        self._sensors = sensors
        self._max_future_skew = max_future_skew
        self._intervals = intervals
        self._by_device = by_device
        self._messages_total = Metrics.counter(METRICS, "messages")
        self._readings_total = Metrics.counter(METRICS, "readings")
        self._ignored_total = Metrics.counter(METRICS, "ignored_keys")

    def setup(self) -> None:
        # Here because msgspec's decoders do not pickle.
        self._decode = Decoder(self._sensors, self._max_future_skew).decode

    def start_bundle(self) -> None:
        self._buckets = self._intervals.new_buckets()
        self._messages = 0
        self._readings = 0
        self._ignored_keys = 0

    def process(self, element: Any) -> Iterable[Any]:
        # Not a generator: most calls have nothing to emit, and an iterator for each would cost more than the fold.
        self._messages += 1
        refused: list[Refusal] = []
        for outcome in self._decode(element if type(element) is bytes else element.data):
            if isinstance(outcome, Reading):
                add_values(
                    self._buckets.sums_at(outcome.event_time, outcome.device if self._by_device else ""), outcome.values
                )
                self._readings += 1
                self._ignored_keys += outcome.ignored_keys
            else:
                refused.append(outcome)
        if refused:
            return [self._refuse(refusal, element) for refusal in refused]
        if len(self._buckets) >= self.MAX_BUCKETS:
            return self.finish_bundle()
        return ()

    def finish_bundle(self) -> list[WindowedValue]:
        folded = [
            # The timestamp holds the watermark back until these sums are where they belong.
            GlobalWindows.windowed_value(sums, Timestamp(micros=earliest))
            for earliest, sums in self._buckets.drain()
        ]
        self._messages_total.inc(self._messages)
        self._readings_total.inc(self._readings)
        self._ignored_total.inc(self._ignored_keys)
        self.start_bundle()
        return folded

    def _refuse(self, refusal: Refusal, element: Any) -> beam.pvalue.TaggedOutput:
        error = type(refusal.reason).__name__
        Metrics.counter(METRICS, f"refused_{error}").inc()
        letter = dead_letter(
            refusal.reason.stage,
            error,
            str(refusal.reason),
            refusal.payload,
            attributes=getattr(element, "attributes", None),
            message_id=getattr(element, "message_id", None),
        )
        return to_dead_letters(letter)
