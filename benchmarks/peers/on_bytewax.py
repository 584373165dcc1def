"""Bytewax: its Rust engine runs Python operators.

idiomatic  flat_map, branch, key_on, fold_window with EventClock and TumblingWindower, as its guide teaches
tuned      flat_map_batch folds a whole batch to one item; stateful_batch keeps the open intervals and closes them
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from datetime import timedelta
from itertools import chain
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import bytewax.operators.windowing as win  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.testing import TestingSink, TestingSource, run_main  # type: ignore[import-not-found]

from benchmarks.load import INTERVAL, Load
from benchmarks.peers.checks import EPOCH, Reading, Refusal, read
from benchmarks.peers.engine import BATCH, LATENESS, Form, Job, Outcome, Rows
from benchmarks.peers.fold import SECOND, Partial, add, fold, means

Sums = dict[str, list]


class _Sinks:
    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.dead_letters: list[Refusal] = []
        self.late: list[Any] = []


def _job(load: Load, sent: Sequence[tuple[float, bytes]], build: Callable[[Any, Load, _Sinks], None]) -> Job:
    payloads = [data for _, data in sent]

    def run() -> _Sinks:
        flow, sinks = Dataflow("readings"), _Sinks()
        build(op.input("messages", flow, TestingSource(payloads, BATCH)), load, sinks)
        run_main(flow)
        return sinks

    return Job(run, _finish)


def _finish(sinks: _Sinks) -> Outcome:
    rows: Rows = {(start, device): row for start, device, row in sinks.rows}
    if sinks.late or len(rows) != len(sinks.rows):
        raise AssertionError("readings came late, or an interval has two rows")
    return Outcome(rows, len(sinks.dead_letters), [letter.payload for letter in sinks.dead_letters])


def _refused_out(outcomes: Any, sinks: _Sinks) -> Any:
    kinds = op.branch("is_good", outcomes, lambda outcome: not isinstance(outcome, Refusal))
    op.output("dead_letters", kinds.falses, TestingSink(sinks.dead_letters))
    return kinds.trues


# --- idiomatic ---


def _idiomatic(messages: Any, load: Load, sinks: _Sinks) -> None:
    readings = _refused_out(op.flat_map("read", messages, read), sinks)
    by_device = load.by_device
    keyed = op.key_on("key", readings, lambda reading: reading.device if by_device else "")
    windows = win.fold_window(
        "mean",
        keyed,
        win.EventClock(lambda reading: reading.at, timedelta(seconds=LATENESS)),
        win.TumblingWindower(timedelta(seconds=INTERVAL), EPOCH),
        dict,
        _add_reading,
        _merge,
    )
    op.output("late", windows.late, TestingSink(sinks.late))
    op.output("rows", op.map("row", windows.down, _row), TestingSink(sinks.rows))


def _add_reading(sums: Sums, reading: Reading) -> Sums:
    for name, value in reading.values.items():
        cell = sums.setdefault(name, [0.0, 0])
        cell[0] += value
        cell[1] += 1
    return sums


def _merge(sums: Sums, others: Sums) -> Sums:
    raise NotImplementedError("tumbling windows never merge")


def _row(item: tuple[str, tuple[int, Sums]]) -> tuple[int, str, dict[str, float]]:
    device, (window, sums) = item
    return window * INTERVAL, device, {name: total / count for name, (total, count) in sums.items()}


# --- tuned ---


def _tuned(messages: Any, load: Load, sinks: _Sinks) -> None:
    by_device = load.by_device

    def fold_batch(payloads: list[bytes]) -> Iterable[list[Partial] | Refusal]:
        partials, refused = fold(payloads, by_device)
        return [*refused, partials]

    partials = _refused_out(op.flat_map_batch("fold", messages, fold_batch), sinks)
    # One key for each worker would do the same on many.
    keyed = op.key_on("shard", partials, lambda partials: "0")
    results = op.key_rm("unshard", op.stateful_batch("intervals", keyed, _OpenIntervals))
    late = op.branch("is_late", results, lambda result: isinstance(result, Partial))
    op.output("late", late.trues, TestingSink(sinks.late))
    op.output("rows", late.falses, TestingSink(sinks.rows))


class _OpenIntervals(op.StatefulBatchLogic):
    def __init__(self, resumed: Any):
        self._watermark: int
        self._open: dict[int, dict[str, list[float]]]
        self._watermark, self._open = resumed or (0, {})

    def on_batch(self, values: list[list[Partial]]) -> tuple[Iterable[Any], bool]:
        out: list[Any] = []
        for partial in chain.from_iterable(values):
            if partial.start + INTERVAL * SECOND <= self._watermark:
                out.append(partial)
                continue
            devices = self._open.setdefault(partial.start, {})
            cells = devices.get(partial.device)
            if cells is None:
                devices[partial.device] = partial.cells
            else:
                add(cells, partial.cells)
            self._watermark = max(self._watermark, partial.latest - LATENESS * SECOND)
        out.extend(self._close([start for start in self._open if start + INTERVAL * SECOND <= self._watermark]))
        return out, self.RETAIN

    def on_eof(self) -> tuple[Iterable[Any], bool]:
        return list(self._close(list(self._open))), self.RETAIN

    def _close(self, starts: list[int]) -> Iterator[tuple[int, str, dict[str, float]]]:
        for start in starts:
            for device, cells in self._open.pop(start).items():
                yield start // SECOND, device, means(cells)

    def snapshot(self) -> Any:
        return deepcopy((self._watermark, self._open))


DISTRIBUTION = "bytewax"
FORMS: dict[str, Form] = {
    "bytewax idiomatic": lambda load, sent: _job(load, sent, _idiomatic),
    "bytewax tuned": lambda load, sent: _job(load, sent, _tuned),
}
