"""Bytewax: its Rust engine runs Python operators.

idiomatic  flat_map, branch, key_on, fold_window with EventClock and TumblingWindower, as its guide teaches
tuned      flat_map_batch folds a batch to an item per interval; stateful_batch holds open ones and closes them
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import bytewax.operators.windowing as win  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.testing import TestingSink, TestingSource, run_main  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, Load
from benchmarks.loop import SECOND, Partial, add_cells, averages, by_sensor, fold
from benchmarks.peers.engine import BATCH, LATENESS, Form, Sinks, read
from pipeline.aggregate.sums import Sums, add_values
from pipeline.decode.reading import Reading

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _run(build: Callable[[Any, bool], tuple[Any, Any]], load: Load, payloads: list[bytes]) -> Callable[[], Outcome]:
    flow, sinks = Dataflow("readings"), Sinks()
    rows, dead_letters = build(op.input("messages", flow, TestingSource(payloads, BATCH)), load.by_device)
    op.output("rows", rows, TestingSink(sinks.rows))
    op.output("dead_letters", dead_letters, TestingSink(sinks.dead_letters))
    run_main(flow)
    return sinks.outcome


def _idiomatic(messages: Any, by_device: bool) -> tuple[Any, Any]:
    outcomes = op.flat_map("read", messages, lambda payload: chain(*read(payload)))
    kinds = op.branch("is_rejected", outcomes, lambda outcome: type(outcome) is bytes)
    windows = win.fold_window(
        "mean",
        op.key_on("key", kinds.falses, lambda reading: reading[1] if by_device else ""),
        win.EventClock(lambda reading: _EPOCH + timedelta(microseconds=reading[0]), timedelta(seconds=LATENESS)),
        win.TumblingWindower(timedelta(seconds=INTERVAL), _EPOCH),
        dict,
        _add_reading,
        lambda sums, _: sums,  # never called: tumbling windows do not merge
    )
    return op.map("row", windows.down, _row), kinds.trues


def _add_reading(sums: Sums, reading: Reading) -> Sums:
    add_values(sums, reading[2])
    return sums


def _row(item: tuple[str, tuple[int, Sums]]) -> tuple[int, str, dict[str, float]]:
    device, (window, sums) = item
    return window * INTERVAL, device, averages(sums)


def _tuned(messages: Any, by_device: bool) -> tuple[Any, Any]:
    outcomes = op.flat_map_batch("fold", messages, lambda payloads: chain(*fold(payloads, by_device)))
    kinds = op.branch("is_rejected", outcomes, lambda outcome: type(outcome) is bytes)
    # One key for each worker would do the same on many.
    keyed = op.key_on("shard", kinds.falses, lambda partial: "0")
    return op.key_rm("unshard", op.stateful_batch("intervals", keyed, _OpenIntervals)), kinds.trues


class _OpenIntervals(op.StatefulBatchLogic):
    def __init__(self, resumed: Any):
        self._watermark, self._open = resumed or (0, {})  # microseconds; by start, cells

    def on_batch(self, values: list[Partial]) -> tuple[list[Any], bool]:
        for start, latest, cells in values:
            if self._watermark < (start + INTERVAL) * SECOND:  # or it is late
                add_cells(self._open.setdefault(start, {}), cells)
                self._watermark = max(self._watermark, latest - LATENESS * SECOND)
        return self._close(self._watermark)

    def on_eof(self) -> tuple[list[Any], bool]:
        return self._close(math.inf)

    def _close(self, until: float) -> tuple[list[Any], bool]:
        over = [(start, self._open.pop(start)) for start in list(self._open) if (start + INTERVAL) * SECOND <= until]
        rows = [(start, device, averages(by_sensor(sums))) for start, cells in over for device, sums in cells.items()]
        return rows, self.RETAIN

    def snapshot(self) -> Any:
        return self._watermark, {start: dict(cells) for start, cells in self._open.items()}


FORMS = {"bytewax idiomatic": Form(partial(_run, _idiomatic)), "bytewax tuned": Form(partial(_run, _tuned))}
