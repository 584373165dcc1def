"""Compares the table of silences with what was published, in arithmetic that shares no code with the pipeline."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from local.verify.balance import ManifestEntry, classify

Silence = tuple[str | None, datetime]  # the device, None for the whole stream, and SilentSince


@dataclass(frozen=True)
class SilenceCheck:
    """The outcome of `check_silences`.

    `noticed` counts the silences that a reading ended. Those that began with a device's last reading are left out:
    whether they have been noticed depends on when the table is read. `late` counts the noticed silences that were none,
    because the readings in them arrived late. `silent` names the devices that are still silent, and "all devices" for
    the whole stream. `problems` has one line for each difference.
    """

    noticed: int
    late: int
    silent: Sequence[str]
    problems: Sequence[str]


def check_silences(
    rows: Iterable[Mapping[str, Any]],
    manifest: Iterable[ManifestEntry],
    sensors: Sequence[str],
    silence_after: timedelta,
    pipelines: int = 1,
) -> SilenceCheck:
    """Compare the rows of the table with the gaps of at least `silence_after` between good readings.

    Each gap must have been noticed once, and must end at the event time of the next reading. A silence that begins with
    a device's last reading may be there too, without an end. A silence that was filled by a reading which arrived late
    is not a problem.

    Args:
      rows: all rows of the table of silences.
      manifest: every reading that was published.
      sensors: the sensor columns.
      silence_after: the pipeline's parameter.
      pipelines: how many pipelines ran one after the other; each may notice a silence once.
    """
    times, late = _reading_times(manifest, sensors, silence_after)
    expected = {
        (device, silent_since): resumed_at
        for device, device_times in times.items()
        for silent_since, resumed_at in pairwise(sorted(device_times))
        if resumed_at - silent_since >= silence_after
    }
    resumed: dict[Silence, datetime | None] = {}
    noticed: dict[Silence, set[datetime]] = defaultdict(set)
    for row in rows:
        silence = row["Device"] or None, row["SilentSince"]  # a key must not be NULL: upserts write ""
        noticed[silence].add(row["NoticedAt"])
        resumed[silence] = min(filter(None, (resumed.get(silence), row["BackAt"])), default=None)

    problems = [f"missing silence: {_name(silence)}" for silence in expected if silence not in resumed]
    filled = after_last_reading = 0
    for silence, resumed_at in resumed.items():
        device, silent_since = silence
        if len(noticed[silence]) > pipelines:
            problems.append(f"silence noticed {len(noticed[silence])} times: {_name(silence)}")
        if silence in expected:
            if resumed_at != expected[silence]:
                problems.append(f"wrong silence: {_name(silence)} until {resumed_at}, must be {expected[silence]}")
        elif resumed_at is None and silent_since == max(times[device], default=None):
            after_last_reading += 1
        elif (device, resumed_at) in late:
            filled += 1
        else:
            problems.append(f"unexpected silence: {_name(silence)} until {resumed_at}")
    silent = [device or "all devices" for (device, _), resumed_at in resumed.items() if resumed_at is None]
    return SilenceCheck(len(resumed) - after_last_reading, filled, silent, problems)


def _reading_times(
    manifest: Iterable[ManifestEntry], sensors: Sequence[str], silence_after: timedelta
) -> tuple[dict[str | None, set[datetime]], set[tuple[str | None, datetime]]]:
    """Return the event times of good readings by device, and which of them were sent `silence_after` later or more.

    The whole stream has the key None.
    """
    times: dict[str | None, set[datetime]] = defaultdict(set)
    late: set[tuple[str | None, datetime]] = set()
    for entry in manifest:
        reading = classify(entry, sensors)
        if isinstance(reading, str):
            continue
        for device in {reading.device, None}:
            times[device].add(reading.time)
            if entry.sent_at - reading.time >= silence_after:
                late.add((device, reading.time))
    return times, late


def _name(silence: Silence) -> str:
    device, silent_since = silence
    return f"{device or 'all devices'} since {silent_since.isoformat()}"
