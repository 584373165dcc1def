"""Devices that fall silent: noticed when no reading came for a while, and when they are back.

Event time decides. A silence is a span of at least `after` between two readings of a device, or since its last one; it
is noticed `grace` later, so that stragglers can still fill it:

    after=30s, grace=5s   readings at 00:00 and 00:10, then nothing
    silence                      [00:10 ---------- 00:40 --- ...      its timer is at 00:45
    noticed                                            *              SilentSince 00:10, when the watermark passes 00:45
    back                                                       *      a reading at 01:20: BackAt 01:20

The clock only postpones: a silence without an end is not noticed until nothing came for `after` by the clock as well.
So a backlog that is read fast is no silence, nor is what a restarted job has not read yet; and when a job is drained,
which sends the watermark to the end of time, nothing is silent that was not.

What is kept of a device is less than a hundred bytes: a state cell and one timer.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from pipeline.aggregate.runs import Run, touching
from pipeline.aggregate.sums import MAX_BUCKETS, SECOND
from pipeline.decode.decoder import DEVICE, Reading
from pipeline.metrics import METRICS
from pipeline.timestamps import rfc3339

SILENT_SINCE, NOTICED_AT, BACK_AT = "SilentSince", "NoticedAt", "BackAt"

# Seconds for which a silent device is remembered. If it comes back after that, it is new.
REMEMBERED = 30 * 24 * 3600

# Microseconds by which the watermark may be ahead of the clock, as devices' clocks are; further, it is that of a drain.
_AHEAD = 3600 * SECOND

# The key of the whole stream, to which all readings belong; those without a device to nothing else.
STREAM = ""

# Event time of the first and last reading of a `Run`, as elements and state hold it.
Span = tuple[int, int]


class DeviceActivity:
    """When each device was heard in one bundle, and the whole stream. Times are microseconds since the epoch.

    Args:
      after: readings this far apart have a silence between them.
    """

    def __init__(self, after: int):
        self._after = after
        self._runs: dict[str, list[Run]] = {}

    @property
    def full(self) -> bool:
        """Whether to drain before the bundle ends, to bound memory."""
        return len(self._runs) >= MAX_BUCKETS

    def note(self, readings: Iterator[Reading]) -> Iterator[Reading]:
        """Yield the readings as they are, and remember when they are from, until there are no more or it is full."""
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
                    _put(runs, event_time, after)
            yield reading

    def drain(self) -> Iterator[tuple[int, tuple[str, list[Span]]]]:
        """Yield (a time no reading precedes, (device, runs in order)), and begin anew."""
        drained, self._runs = self._runs, {}
        spans_of = {device: [(run.first, run.last) for run in runs] for device, runs in drained.items()}
        if spans_of:
            spans_of[STREAM] = join([span for spans in spans_of.values() for span in spans], self._after)
        for device, spans in spans_of.items():
            yield spans[0][0], (device, spans)


def _put(runs: list[Run], event_time: int, after: int) -> None:
    """Put a reading into the runs, which are in order, in place; it may begin a run, or join two."""
    new = Run(event_time, event_time)
    near = touching(runs, new, after)
    joined = [*runs[near], new]
    runs[near] = [Run(min(run.first for run in joined), max(run.last for run in joined))]


def join(runs: Iterable[Span], after: int) -> list[Span]:
    """Return the runs in order, those less than `after` apart made one."""
    joined: list[Span] = []
    for first, last in sorted(runs):
        if joined and first < joined[-1][1] + after:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


class NoticeSilences(beam.PTransform):
    """Makes rows of silences from what bundles heard, as `DeviceActivity` drains it.

    Output: {"Device": name, None for the whole stream, "SilentSince", "NoticedAt", "BackAt": RFC 3339}. BackAt is None
    when a silence is noticed; when the device is back, the row comes again with it, and once more if it turns out to
    have been back earlier. Device and SilentSince say which silence it is. One that is over when it is noticed has
    BackAt at once.

    Args:
      after: seconds without a reading that make a silence.
      grace: seconds to wait for stragglers; a second at least, because clocks differ.
      clock: gives seconds since the epoch.
    """

    def __init__(self, after: int, grace: int, clock: Callable[[], float] = time.time):
        super().__init__()
        self._notice = _Notice(after * SECOND, max(grace, 1) * SECOND, clock)

    def expand(self, heard: beam.PCollection) -> beam.PCollection:
        """Apply the watch."""
        return heard | "Notice" >> beam.ParDo(self._notice).with_output_types(Any)


class _Notice(beam.DoFn):
    # (SilentSince, NoticedAt and BackAt of its latest silence, the clock when its newest reading came, runs of readings
    # since then); all in microseconds. Without runs it is silent.
    WATCH = ReadModifyWriteStateSpec("watch", FastPrimitivesCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, after: int, grace: int, clock: Callable[[], float]):
        self._after = after
        self._grace = grace
        self._clock = clock
        self._noticed_total = Metrics.counter(METRICS, "silent_devices_noticed")

    def process(
        self,
        element: tuple[str, list[Span]],
        watch: Any = beam.DoFn.StateParam(WATCH),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> list[dict[str, Any]]:
        device, new = element
        since, noticed, back, heard, runs = watch.read() or (None, 0, None, 0, [])
        if since is not None:
            new = [run for run in new if run[1] > since]
        elif runs:
            # Of what was before a device was first heard nothing is known.
            new = [run for run in new if run[1] > runs[0][0] - self._after]
        joined = join([*runs, *new], self._after)
        if joined == runs:
            return []
        if not runs or joined[-1][1] > runs[-1][1]:
            heard = self._now()
        silences = []
        # A run that began before the silence did has filled it.
        if since is not None and (back is None or max(since, joined[0][0]) < back):
            back = max(since, joined[0][0])
            silences = [_silence(device, since, noticed, back)]
        watch.write((since, noticed, back, heard, joined))
        due.set(_at(self._due(heard, joined)))
        return silences

    @on_timer(DUE)
    def notice_due(
        self,
        device: str = beam.DoFn.KeyParam,
        reached: Any = beam.DoFn.TimestampParam,
        watch: Any = beam.DoFn.StateParam(WATCH),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[dict[str, Any]]:
        since, noticed, back, heard, runs = watch.read()
        if not runs:
            if self._forgotten(heard, since) <= reached.micros:
                watch.clear()
            return
        now = self._now()
        while len(runs) > 1 and self._due(heard, runs) <= reached.micros:
            (_, since), *runs = runs
            noticed, back = now, runs[0][0]
            yield self._noticed(device, since, noticed, back)
        next_due = self._due(heard, runs)
        beyond, to_wait = reached.micros - next_due, next_due - self._grace - now
        if beyond >= 0 and to_wait <= 0:
            ((_, since),) = runs
            noticed, back, runs = now, None, []
            yield self._noticed(device, since, noticed, back)
            next_due = self._forgotten(heard, since)
        elif 0 <= beyond < _AHEAD:
            # Each time further, so that a drain, at which the timer fires at once, is through with it in a few.
            next_due += max(to_wait, 2 * beyond, SECOND)
        watch.write((since, noticed, back, heard, runs))
        if next_due > reached.micros:
            due.set(_at(next_due))

    def _noticed(self, device: str, since: int, noticed: int, back: int | None) -> dict[str, Any]:
        self._noticed_total.inc()
        return _silence(device, since, noticed, back)

    def _due(self, heard: int, runs: list[Span]) -> int:
        """When the first of the runs is followed by a silence, as far as is known."""
        last = runs[0][1] if len(runs) > 1 else max(runs[0][1], heard)
        return last + self._after + self._grace

    def _forgotten(self, heard: int, since: int) -> int:
        return self._due(heard, [(since, since)]) + REMEMBERED * SECOND

    def _now(self) -> int:
        return int(self._clock() * SECOND)


def _at(micros: int) -> Timestamp:
    # Dataflow's timers count milliseconds; rounded down, one would fire before it is due, for ever.
    return Timestamp(micros=-(-micros // 1000) * 1000)


def _silence(device: str, since: int, noticed: int, back: int | None) -> dict[str, Any]:
    return {
        DEVICE: device or None,
        SILENT_SINCE: rfc3339(since),
        NOTICED_AT: rfc3339(noticed),
        BACK_AT: None if back is None else rfc3339(back),
    }
