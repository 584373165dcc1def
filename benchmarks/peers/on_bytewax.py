"""Bytewax: its Rust engine runs Python operators.

idiomatic  flat_map, branch, key_on, fold_window with EventClock and TumblingWindower, as its guide teaches
tuned      flat_map_batch folds a whole batch to one item; stateful_batch keeps the open intervals and closes them
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import bytewax.operators.windowing as win  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.testing import TestingSink, TestingSource, run_main  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, Load
from benchmarks.loop import SECOND, Partial, add_to, averages, fold, means
from benchmarks.peers.engine import BATCH, LATENESS, Form, Reading, Sinks, read
from pipeline.sums import Sums, add_values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _run(build: Callable[[Any, bool, Sinks], None], load: Load, sent: list[bytes]) -> Callable[[], Outcome]:
    flow, sinks = Dataflow("readings"), Sinks()
    build(op.input("messages", flow, TestingSource(sent, BATCH)), load.by_device, sinks)
    run_main(flow)
    return sinks.outcome


def _idiomatic(messages: Any, by_device: bool, sinks: Sinks) -> None:
    kinds = op.branch("is_good", op.flat_map("read", messages, read), lambda outcome: isinstance(outcome, Reading))
    op.output("dead_letters", op.map("payload", kinds.falses, attrgetter("payload")), TestingSink(sinks.dead_letters))
    keyed = op.key_on("key", kinds.trues, lambda reading: reading.device if by_device else "")
    windows = win.fold_window(
        "mean",
        keyed,
        win.EventClock(lambda reading: _EPOCH + timedelta(microseconds=reading.at), timedelta(seconds=LATENESS)),
        win.TumblingWindower(timedelta(seconds=INTERVAL), _EPOCH),
        dict,
        _add_reading,
        lambda sums, _: sums,  # which is never called: tumbling windows do not merge
    )
    op.output("rows", op.map("row", windows.down, _row), TestingSink(sinks.rows))


def _add_reading(sums: Sums, reading: Reading) -> Sums:
    add_values(sums, reading.values)
    return sums


def _row(item: tuple[str, tuple[int, Sums]]) -> tuple[int, str, dict[str, float]]:
    device, (window, sums) = item
    return window * INTERVAL, device, averages(sums)


def _tuned(messages: Any, by_device: bool, sinks: Sinks) -> None:
    def fold_batch(payloads: list[bytes]) -> Iterable[list[Partial] | bytes]:
        partials, refused = fold(payloads, by_device)
        return [*refused, partials]

    kinds = op.branch("is_refused", op.flat_map_batch("fold", messages, fold_batch), lambda one: type(one) is bytes)
    op.output("dead_letters", kinds.trues, TestingSink(sinks.dead_letters))
    # One key for each worker would do the same on many.
    keyed = op.key_on("shard", kinds.falses, lambda partials: "0")
    rows = op.key_rm("unshard", op.stateful_batch("intervals", keyed, _OpenIntervals))
    op.output("rows", rows, TestingSink(sinks.rows))


class _OpenIntervals(op.StatefulBatchLogic):
    def __init__(self, resumed: Any):
        self._watermark, self._open = resumed or (0, {})  # microseconds; by start and device, cells

    def on_batch(self, values: list[list[Partial]]) -> tuple[Iterable[Any], bool]:
        for one in chain.from_iterable(values):
            if self._watermark < one.start + INTERVAL * SECOND:  # or it is late
                add_to(self._open.setdefault(one.start, {}), one.device, one.cells)
                self._watermark = max(self._watermark, one.latest - LATENESS * SECOND)
        over = [start for start in self._open if start + INTERVAL * SECOND <= self._watermark]
        return list(self._close(over)), self.RETAIN

    def on_eof(self) -> tuple[Iterable[Any], bool]:
        return list(self._close(list(self._open))), self.RETAIN

    def _close(self, starts: list[int]) -> Iterator[tuple[int, str, dict[str, float]]]:
        for start in starts:
            for device, cells in self._open.pop(start).items():
                yield start // SECOND, device, means(cells)

    def snapshot(self) -> Any:
        return deepcopy((self._watermark, self._open))


FORMS = {
    "bytewax idiomatic": Form(partial(_run, _idiomatic)),
    "bytewax tuned": Form(partial(_run, _tuned)),
}
