"""Which dead letters count after a run was killed and another one replayed its messages.

The second run starts from a seek and recomputes every interval from `since` on. For those intervals its dead letters
count: readings that were late in the first run may be part of a row now. For the earlier intervals the first run's
count. A message that is refused is refused by each run that reads it, so both runs may have a dead letter with the same
payload; it counts once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from local.verify.balance import DeadLetter, ManifestEntry, classify


@dataclass
class ReplayedDeadLetters:
    """The dead letters that count, each message's once; how many others were left out; and what is wrong."""

    dead_letters: list[DeadLetter] = field(default_factory=list)
    repeated: int = 0
    problems: list[str] = field(default_factory=list)


def merge_dead_letters(
    first: Sequence[DeadLetter],
    second: Sequence[DeadLetter],
    manifest: Iterable[ManifestEntry],
    sensors: Sequence[str],
    seek: datetime,
    since: datetime,
) -> ReplayedDeadLetters:
    """Select the dead letters that count; `local.verify.balance` then compares them with the manifest.

    Args:
      first: the dead letters of the run that was killed.
      second: those of the run that replays.
      manifest: every reading that was published.
      sensors: the sensor columns.
      seek: the time to which the subscription was sought. The second run reads everything published from then on.
      since: the second run's `rows_since`, after `seek`.
    """
    result = ReplayedDeadLetters()
    _merge_late(first, second, since, result)
    refused = [entry for entry in manifest if isinstance(classify(entry, sensors), str)]
    _merge_refused(first, second, refused, seek, result)
    return result


def _merge_late(
    first: Sequence[DeadLetter], second: Sequence[DeadLetter], since: datetime, result: ReplayedDeadLetters
) -> None:
    for dead_letter in _of_stage_late(first):
        late = dead_letter.late_sums
        if late is None or late.interval_start < since:
            result.dead_letters.append(dead_letter)
        else:
            result.repeated += 1
    for dead_letter in _of_stage_late(second):
        late = dead_letter.late_sums
        if late is None or late.interval_start >= since:
            result.dead_letters.append(dead_letter)
        else:
            result.problems.append(f"late in an interval before rows_since: {dead_letter.payload!r}")


def _merge_refused(
    first: Sequence[DeadLetter],
    second: Sequence[DeadLetter],
    refused: Sequence[ManifestEntry],
    seek: datetime,
    result: ReplayedDeadLetters,
) -> None:
    of_first, of_second = (
        [dead_letter for dead_letter in run if dead_letter.stage != "late"] for run in (first, second)
    )
    count_of_first, count_of_second = (
        Counter(dead_letter.payload for dead_letter in run) for run in (of_first, of_second)
    )
    needed = Counter(entry.data for entry in refused)
    needed_of_second = Counter(entry.data for entry in refused if entry.sent_at >= seek)
    for data, count in needed_of_second.items():
        if count_of_second[data] < count:
            result.problems.append(f"lost by the second run: {data!r} has no dead letter of it")
    result.dead_letters += of_second
    # Of the first run's dead letters, those count that the second run does not repeat. If there are more of them than
    # messages, all count, so that the balance reports the surplus.
    unrepeated = {
        data: count - count_of_second[data] for data, count in needed.items() if count >= count_of_first[data]
    }
    for dead_letter in of_first:
        unrepeated[dead_letter.payload] = unrepeated.get(dead_letter.payload, len(first)) - 1
        if unrepeated[dead_letter.payload] >= 0:
            result.dead_letters.append(dead_letter)
        else:
            result.repeated += 1


def _of_stage_late(dead_letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    return [dead_letter for dead_letter in dead_letters if dead_letter.stage == "late"]
