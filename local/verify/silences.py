"""Check the table of silences against what was published, with arithmetic that shares no code with the pipeline."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from local.verify.balance import Sent, judge


@dataclass(frozen=True)
class Silences:
    """What became of the silences.

    `noticed` counts those that a reading ended, and no others: how many of those that began with a device's last
    reading have been noticed depends on when the table is read. `late` counts those that there only seemed to be.
    `silent` names who is silent still, "all devices" if it is the stream. `problems` is one line for each difference.
    """

    noticed: int
    late: int
    silent: Sequence[str]
    problems: Sequence[str]


def check(
    rows: Iterable[Mapping[str, Any]],
    manifest: Iterable[Sent],
    sensors: Sequence[str],
    after: timedelta,
    pipelines: int = 1,
) -> Silences:
    """Compare the rows of the table with the gaps between good readings that are at least `after` long.

    Each must have been noticed once, or once by each of so many pipelines that ran one after the other, and closed with
    the event time of the next reading. After a device's last reading there may be another, not closed. A silence that a
    reading filled which was sent too late is no mistake.
    """
    times: dict[str | None, set[datetime]] = defaultdict(set)
    late: set[tuple[str | None, datetime]] = set()
    for sent in manifest:
        reading = judge(sent, sensors)
        if isinstance(reading, str):
            continue
        for device in {reading.device, None}:
            times[device].add(reading.time)
            if sent.time - reading.time >= after:
                late.add((device, reading.time))
    expected = {
        (device, since): back
        for device, of_device in times.items()
        for since, back in pairwise(sorted(of_device))
        if back - since >= after
    }
    back: dict[tuple[str | None, datetime], datetime | None] = {}
    noticed: dict[tuple[str | None, datetime], set[datetime]] = defaultdict(set)
    for row in rows:
        which = row["Device"] or None, row["SilentSince"]  # a key must not be NULL: upserts write ""
        noticed[which].add(row["NoticedAt"])
        known = back.get(which)
        back[which] = min(filter(None, (known, row["BackAt"])), default=None)

    problems = [f"missing silence: {_named(which)}" for which in expected if which not in back]
    filled = after_the_last = 0
    for which, until in back.items():
        device, since = which
        if len(noticed[which]) > pipelines:
            problems.append(f"silence noticed {len(noticed[which])} times: {_named(which)}")
        if which in expected:
            if until != expected[which]:
                problems.append(f"wrong silence: {_named(which)} until {until}, must be {expected[which]}")
        elif until is None and since == max(times[device], default=None):
            after_the_last += 1
        elif (device, until) in late:
            filled += 1
        else:
            problems.append(f"unexpected silence: {_named(which)} until {until}")
    silent = [device or "all devices" for (device, _), until in back.items() if until is None]
    return Silences(len(back) - after_the_last, filled, silent, problems)


def _named(which: tuple[str | None, datetime]) -> str:
    device, since = which
    return f"{device or 'all devices'} since {since.isoformat()}"
