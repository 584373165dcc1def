"""From messages to sums per window and device, inside each bundle."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import IntervalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.dead_letters import DEAD_LETTERS, METRICS, dead_letter, to_dead_letters
from pipeline.readings import Decoder, Reading, Refusal
from pipeline.sums import add_values
from pipeline.windows import FixedIntervals, SessionIntervals, windowing


class FoldReadings(beam.PTransform):
    """Decodes messages and adds them up per window and device, inside each bundle.

    Input: message bytes, or PubsubMessage when the source keeps attributes. The element's own timestamp is not used.
    Output `sums`: (device, Sums) in the windows of `intervals`; the device is "" for all unless `by_device`.
    Output `dead_letters`: dead-letter rows.

    Args:
      sensors: the sensor names to average.
      max_future_skew: seconds a reading may be ahead of the clock.
      intervals: how event time is cut into windows.
      allowed_lateness: seconds after a window's end plus grace for which late readings are still accounted for.
      by_device: keep devices apart.
    """

    def __init__(
        self,
        sensors: tuple[str, ...],
        max_future_skew: int,
        intervals: FixedIntervals | SessionIntervals,
        allowed_lateness: int,
        by_device: bool,
    ):
        super().__init__()
        self._fold = _Fold(sensors, max_future_skew, intervals, by_device)
        self._windowing = windowing(intervals, allowed_lateness)

    def expand(self, messages: beam.PCollection) -> Any:
        """Apply the fold."""
        fold = _WindowedParDo(self._fold, self._windowing)
        return messages | "Fold" >> fold.with_output_types(tuple[str, Any], **{DEAD_LETTERS: Any}).with_outputs(
            DEAD_LETTERS, main="sums"
        )


class _WindowedParDo(beam.ParDo):
    """A ParDo whose elements come out already windowed.

    Beam's own Reshuffle restores windows in a ParDo too. Assigning them here, once per bundle and window, spares
    WindowInto's work per element.
    """

    def __init__(self, fn: beam.DoFn, output_windowing: beam.Windowing):
        super().__init__(fn)
        self._output_windowing = output_windowing

    def get_windowing(self, unused_inputs: Any) -> beam.Windowing:
        return self._output_windowing


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
        self._readings_total = Metrics.counter(METRICS, "readings")
        self._ignored_total = Metrics.counter(METRICS, "ignored_keys")

    def setup(self) -> None:
        # Here because msgspec's decoders do not pickle.
        self._decode = Decoder(self._sensors, self._max_future_skew).decode

    def start_bundle(self) -> None:
        self._buckets = self._intervals.new_buckets()
        self._readings = 0
        self._ignored_keys = 0

    def process(self, element: Any) -> Iterable[Any]:
        # Not a generator: most calls have nothing to emit, and an iterator for each would cost more than the fold.
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
            WindowedValue((device, sums), window.max_timestamp(), (window,))
            for window, device, sums in self._buckets.drain()
        ]
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
        # A refused message has no window of its own; any will do, since dead letters are written unwindowed.
        now = Timestamp.now()
        return to_dead_letters(WindowedValue(letter, now, (IntervalWindow(now, now + 1),)))
