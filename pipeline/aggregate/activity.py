"""When devices sent readings, collected by the fold for the detection of silences."""

from collections.abc import Iterable, Iterator

import msgspec

from pipeline.aggregate.runs import FIRST, Run, insert, span
from pipeline.aggregate.sums import MAX_BUCKETS
from pipeline.coders import MessagePackCoder
from pipeline.decode.reading import Reading

# The key of the whole stream, to which all readings belong. Readings without a device have no other key.
STREAM = ""


class BundleActivity(msgspec.Struct, array_like=True):
    """The runs of a device, or of the stream, in one bundle; in order of time, with a silence between any two."""

    runs: list[Run]


class _BundleActivityCoder(MessagePackCoder, urn="sensor_stream:coder:bundle_activity:v1", value_type=BundleActivity):
    pass


class DeviceActivity:
    """The times of readings of each device, and of the stream, in one bundle; microseconds since the epoch.

    Args:
      after: microseconds; there is a silence between readings that are at least this far apart.
    """

    def __init__(self, after: int):
        self._after = after
        self._runs: dict[str, list[Run]] = {}

    @property
    def full(self) -> bool:
        """Whether to drain before the bundle ends, to bound memory."""
        return len(self._runs) >= MAX_BUCKETS

    def observe(self, readings: Iterator[Reading]) -> Iterator[Reading]:
        """Yield the readings unchanged and record their times, until there are none left or this is full."""
        runs_of, after = self._runs, self._after
        for reading in readings:
            event_time, device, _ = reading
            runs = runs_of.get(device)
            if runs is None:
                runs_of[device] = [Run(event_time, event_time)]
                if self.full:
                    yield reading
                    return
            else:
                run = runs[-1]
                if run.last <= event_time < run.last + after:
                    run.last = event_time
                elif not run.first <= event_time < run.last:
                    insert(runs, Run(event_time, event_time), after, span)
            yield reading

    def drain(self) -> Iterator[tuple[int, tuple[str, BundleActivity]]]:
        """Yield (time of the first reading, (device, its activity)) for each device and the stream, and reset."""
        drained, self._runs = self._runs, {}
        if drained:
            drained[STREAM] = _join((run for runs in drained.values() for run in runs), self._after)
        for device, runs in drained.items():
            yield runs[0].first, (device, BundleActivity(runs))


def _join(runs: Iterable[Run], after: int) -> list[Run]:
    """Return the runs in order of time, with those less than `after` apart joined."""
    joined: list[Run] = []
    for run in sorted(runs, key=FIRST):
        if joined and run.first < joined[-1].last + after:
            joined[-1] = span(joined[-1], run)
        else:
            joined.append(run)
    return joined
