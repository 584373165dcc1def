"""What a reading's CPU goes into: the shipped graph with parts of its fold left out, in turns; bundles of 1,000.

floor       a DoFn that does nothing
steps       the shipped graph, whose fold throws messages away
decode      ... decodes them and throws the readings away
good        everything, of readings that are all good
everything  of readings 1% of which are bad, so that there are dead letters
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

from rich.table import Table

from benchmarks.contenders import Contender, latest_allowed
from benchmarks.load import INTERVAL, Load, messages
from pipeline.fold import _Fold
from pipeline.readings import Refusal

_LOAD = Load()


def _throw_away(fold: Any) -> tuple[()]:
    fold._waiting = []
    return ()


def _decode(fold: Any) -> tuple[()]:
    waiting, fold._waiting = fold._waiting, []
    refusals: list[Refusal] = []
    for _ in fold._decoder.decode(waiting, latest_allowed(), refusals):
        pass
    return ()


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the microseconds of CPU per reading of each part with all that are before it, one per round."""
    start = time.time() // INTERVAL * INTERVAL - 600
    sent = list(messages(_LOAD, 2 * _LOAD.bundle, start))
    bad = (b"null", b"yesterday", b"warm", b"n/a")
    good = [message for message in sent if not any(mark in message[1] for mark in bad)][: _LOAD.bundle]
    shipped, floor = Contender("shipped", _LOAD), Contender("floor", _LOAD)
    [some_bad], [all_good] = shipped.prepare([sent[: _LOAD.bundle]]), shipped.prepare([good])
    calls: dict[str, Callable[[], Any]] = {
        "floor": partial(floor.run, *floor.prepare([sent[: _LOAD.bundle]])),
        "steps": partial(_with_fold, _throw_away, partial(shipped.run, some_bad)),
        "decode": partial(_with_fold, _decode, partial(shipped.run, some_bad)),
        "good": partial(shipped.run, all_good),
        "everything": partial(shipped.run, some_bad),
    }
    micros: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = time.process_time()
            call()
            micros[name].append((time.process_time() - before) / _LOAD.bundle * 1e6)
    return micros


def _with_fold(fold: Callable[[Any], Iterator[Any] | tuple[()]], call: Callable[[], Any]) -> None:
    with patch.object(_Fold, "_fold", fold):
        call()


def table(micros: dict[str, list[float]]) -> Table:
    """Return the medians, and what each part adds."""
    made = Table(title="What a reading's CPU goes into, microseconds (median)", title_justify="left")
    before = 0.0
    medians = {name: statistics.median(times) for name, times in micros.items()}
    for name in medians:
        made.add_column(name, justify="right")
    made.add_row(*(f"{median:.2f}" for median in medians.values()))
    added = []
    for median in medians.values():
        added.append(f"+{median - before:.2f}")
        before = median
    made.add_row(*added)
    return made
