"""The dead letters of a run that was killed and of one that replays its messages: which of them count.

The second run starts from a seek and recomputes every interval from `since` on, whole. So it has the last word on
those: what the first run called late may be in a row now. On the intervals before, the first run has it. A message that
must be refused is refused by each run that sees it, so there may be a letter of it from both. They are known by their
payload to be the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from local.verify.balance import DeadLetter, Sent, judge


@dataclass
class Account:
    """The letters that count, each message's once; how many more only repeat one or are out of date; what is wrong."""

    letters: list[DeadLetter] = field(default_factory=list)
    repeated: int = 0
    problems: list[str] = field(default_factory=list)


def account(
    first: Sequence[DeadLetter],
    second: Sequence[DeadLetter],
    manifest: Iterable[Sent],
    sensors: Sequence[str],
    seek: datetime,
    since: datetime,
) -> Account:
    """Choose the letters that count; `local.verify.balance` then says whether they are right.

    Args:
      first: the letters of the run that was killed.
      second: those of the run that replays.
      manifest: every reading that was published.
      sensors: the sensor columns.
      seek: the subscription's new position. Whatever was published from then on is seen by the second run.
      since: the second run's `rows_since`, after `seek`.
    """
    result = Account()
    for letters, has_last_word in ((first, lambda start: start < since), (second, lambda start: start >= since)):
        for letter in letters:
            if letter.stage != "late":
                continue
            late = letter.late_sums
            if late is None or has_last_word(late[0]):
                result.letters.append(letter)
            elif letters is first:
                result.repeated += 1
            else:
                result.problems.append(f"late in an interval before rows_since: {letter.payload!r}")

    refused = [sent for sent in manifest if isinstance(judge(sent, sensors), str)]
    needed = Counter(sent.data for sent in refused)
    needed_again = Counter(sent.data for sent in refused if sent.time >= seek)
    of_first, again = (Counter(letter.payload for letter in run if letter.stage != "late") for run in (first, second))
    for data, count in needed_again.items():
        if again[data] < count:
            result.problems.append(f"lost by the second run: {data!r} has no dead letter of it")
    result.letters += [letter for letter in second if letter.stage != "late"]
    # Of the first run's, those that the second does not repeat; if there are too many, they are the balance's to find.
    kept = {data: count - again[data] for data, count in needed.items() if count >= of_first[data]}
    for letter in first:
        if letter.stage == "late":
            continue
        kept[letter.payload] = kept.get(letter.payload, len(first)) - 1
        if kept[letter.payload] >= 0:
            result.letters.append(letter)
        else:
            result.repeated += 1
    return result
