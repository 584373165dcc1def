"""Silences: devices that stop sending, and when they resume.

A silence is a span of at least `after` between two readings of a device, or after its last one. Event time decides: a
silence is noticed `grace` after it has lasted `after`, so that stragglers can still fill it.

    after=30s, grace=5s   readings at 00:00 and 00:10, then none
    silence                      [00:10 ---------- 00:40 --- ...      its timer is at 00:45
    noticed                                            *              SilentSince 00:10, when the watermark passes 00:45
    resumed                                                    *      a reading at 01:20: BackAt 01:20

The clock can only postpone: a silence that has not ended is not noticed before nothing has arrived for `after` by the
clock as well. So nothing is reported as silent because a backlog is read fast, because a restarted job has not yet read
its readings, or because a drain moves the watermark to the end of time.

The state of a device takes less than a hundred bytes: one state cell and one timer. While readings with silences
between them wait for stragglers, as after an outage, each adds about 20 bytes, and each silence a timer.
"""

import bisect
import itertools
import time
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer

from pipeline.aggregate.activity import BundleActivity
from pipeline.aggregate.runs import LAST, Run, insert, span
from pipeline.aggregate.sums import SECOND
from pipeline.coders import MessagePackCoder
from pipeline.decode.reading import DEVICE
from pipeline.metrics import METRICS
from pipeline.timestamps import rfc3339
from pipeline.windows.timers import timer_at

SILENT_SINCE, NOTICED_AT, BACK_AT = "SilentSince", "NoticedAt", "BackAt"

# Seconds for which a silent device is remembered. If it resumes after that, it is a new device.
REMEMBERED = 30 * 24 * 3600

# Microseconds by which the watermark may be ahead of the clock, because devices' clocks are. If it is ahead by more,
# the job is being drained.
_AHEAD = 3600 * SECOND


class DeviceState(msgspec.Struct, array_like=True):
    """The state of a device, or of the whole stream. Times are microseconds since the epoch.

    Attributes:
      silent_since: start of its latest noticed silence; None if there was none.
      noticed_at: when that silence was noticed, by the clock.
      resumed_at: end of that silence; None while it lasts.
      arrived_at: when its newest reading arrived, by the clock.
      runs: runs of readings after the silence, in order of time, at least `after` apart; none while it is silent.
    """

    silent_since: int | None = None
    noticed_at: int = 0
    resumed_at: int | None = None
    arrived_at: int = 0
    runs: list[Run] = []


class _DeviceStateCoder(MessagePackCoder, urn="sensor_stream:coder:device_state:v1", value_type=DeviceState):
    pass


class NoticeSilences(beam.PTransform[beam.PCollection[Any], beam.PCollection[Any]]):
    """Creates rows of silences.

    Input: (device, `BundleActivity`), as `DeviceActivity` drains them.
    Output: {"Device": name, None for the whole stream, "SilentSince", "NoticedAt", "BackAt": RFC 3339}. Device and
    SilentSince identify a silence. Its first row has BackAt None, or its end if it has ended when it is noticed. When
    the device resumes, another row has BackAt, and so has another one if a straggler shows that it resumed earlier.

    Args:
      after: seconds without a reading that make a silence.
      grace: seconds to wait for stragglers; a second at least, because clocks differ.
      clock: returns seconds since the epoch.
    """

    def __init__(self, after: int, grace: int, clock: Callable[[], float] = time.time):
        super().__init__()
        self._notice = _Notice(after * SECOND, max(grace, 1) * SECOND, clock)

    def expand(self, activity: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return activity | "Notice" >> beam.ParDo(self._notice).with_output_types(Any)


class _Notice(beam.DoFn):
    STATE = ReadModifyWriteStateSpec("device", _DeviceStateCoder())
    # Without a tag: when the device is silent, or forgotten, if nothing follows its newest run. With a tag: when a
    # silence between two runs can no longer be filled; the tag is the begin of the silence.
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, after: int, grace: int, clock: Callable[[], float]):
        self._after = after
        self._grace = grace
        self._clock = clock
        self._noticed_total = Metrics.counter(METRICS, "silent_devices_noticed")

    def process(
        self,
        element: tuple[str, BundleActivity],
        cell: Any = beam.DoFn.StateParam(STATE),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> list[dict[str, Any]]:
        device, activity = element
        state = cell.read() or DeviceState()
        runs = state.runs.copy()
        for run in self._relevant(state, activity.runs):
            place = insert(runs, run, self._after, span)
            if len(runs) > 1:
                self._set_timers_beside(due, runs, place)
        if runs == state.runs:
            return []
        newest = not state.runs or runs[-1].last > state.runs[-1].last
        arrived_at = self._now() if newest else state.arrived_at
        resumed_at = self._resumed_at(state, runs[0])
        cell.write(DeviceState(state.silent_since, state.noticed_at, resumed_at, arrived_at, runs))
        due.set(timer_at(self._silent_at(runs[-1].last, arrived_at)))
        if state.silent_since is None or resumed_at == state.resumed_at:
            return []
        return [_silence(device, state.silent_since, state.noticed_at, resumed_at)]

    @on_timer(DUE)
    def notice_due(
        self,
        device: Any = beam.DoFn.KeyParam,
        reached: Any = beam.DoFn.TimestampParam,
        cell: Any = beam.DoFn.StateParam(STATE),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> list[dict[str, Any]]:
        state = cell.read()
        if state is None:
            return []
        if not state.runs:
            if self._forgotten_at(state.silent_since, state.arrived_at) <= reached.micros:
                cell.clear()
            return []
        silences, state = self._notice_between(device, state, reached.micros)
        if len(state.runs) == 1:
            lasting, state = self._notice_lasting(device, state, reached.micros, due)
            silences += lasting
        cell.write(state)
        return silences

    def _relevant(self, state: DeviceState, runs: list[Run]) -> list[Run]:
        """Return the runs that can still change a silence."""
        if state.silent_since is not None:
            return [run for run in runs if run.last > state.silent_since]
        if state.runs:
            # No silence is noticed before the first run.
            return [run for run in runs if run.last > state.runs[0].first - self._after]
        return runs

    def _resumed_at(self, state: DeviceState, first: Run) -> int | None:
        """Return when the latest silence ended, given the first run after its begin."""
        if state.silent_since is None:
            return None
        # A run that began before the silence did has filled it.
        resumed_at = max(state.silent_since, first.first)
        return resumed_at if state.resumed_at is None else min(resumed_at, state.resumed_at)

    def _set_timers_beside(self, due: Any, runs: list[Run], place: int) -> None:
        """Set the timers of the silences before and after the run at `place`."""
        for run in runs[max(place - 1, 0) : min(place + 1, len(runs) - 1)]:
            due.set(timer_at(run.last + self._after + self._grace), dynamic_timer_tag=str(run.last))

    def _notice_between(
        self, device: str, state: DeviceState, reached: int
    ) -> tuple[list[dict[str, Any]], DeviceState]:
        """Return the silences between two runs that are certain at `reached`, and the state afterwards."""
        runs, latest = state.runs, reached - self._after - self._grace
        certain = bisect.bisect_right(runs, latest, hi=len(runs) - 1, key=LAST)
        if not certain:
            return [], state
        now = self._now()
        silences = [
            self._noticed(device, run.last, now, following.first)
            for run, following in itertools.pairwise(runs[: certain + 1])
        ]
        return silences, DeviceState(runs[certain - 1].last, now, runs[certain].first, state.arrived_at, runs[certain:])

    def _notice_lasting(
        self, device: str, state: DeviceState, reached: int, due: Any
    ) -> tuple[list[dict[str, Any]], DeviceState]:
        """Return the silence after the only run if it is certain at `reached`, and the state afterwards."""
        silent_since, now = state.runs[0].last, self._now()
        silent_at = self._silent_at(silent_since, state.arrived_at)
        beyond, to_wait = reached - silent_at, silent_at - self._grace - now
        if beyond >= 0 and to_wait <= 0:
            due.set(timer_at(self._forgotten_at(silent_since, state.arrived_at)))
            silence = self._noticed(device, silent_since, now, None)
            return [silence], DeviceState(silent_since, now, None, state.arrived_at)
        if beyond < 0:
            due.set(timer_at(silent_at))
        elif beyond < _AHEAD:
            # Each delay is longer, so that a drain, at which timers fire at once, needs only a few.
            due.set(timer_at(silent_at + max(to_wait, 2 * beyond, SECOND)))
        return [], state

    def _noticed(self, device: str, silent_since: int, noticed_at: int, resumed_at: int | None) -> dict[str, Any]:
        self._noticed_total.inc()
        return _silence(device, silent_since, noticed_at, resumed_at)

    def _silent_at(self, last: int, arrived_at: int) -> int:
        """Return the time at which a device is silent if no reading follows its last one."""
        return max(last, arrived_at) + self._after + self._grace

    def _forgotten_at(self, silent_since: int, arrived_at: int) -> int:
        """Return the time at which a device is forgotten if no reading follows."""
        return self._silent_at(silent_since, arrived_at) + REMEMBERED * SECOND

    def _now(self) -> int:
        return int(self._clock() * SECOND)


def _silence(device: str, silent_since: int, noticed_at: int, resumed_at: int | None) -> dict[str, Any]:
    return {
        DEVICE: device or None,
        SILENT_SINCE: rfc3339(silent_since),
        NOTICED_AT: rfc3339(noticed_at),
        BACK_AT: None if resumed_at is None else rfc3339(resumed_at),
    }
