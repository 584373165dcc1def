"""Pathway: a Rust engine for tables that change, described in Python, which it calls where it has no expression.

    idiomatic  a row per message; a UDF, flatten, columns, windowby(tumbling) with exactly_once_behavior, reduce
    tuned      a row per batch, folded in one UDF to a row per interval; a stateful reducer adds those up per window

Messages that its Python connector receives within 1.5 s are one minibatch, here often all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pathway as pw  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.loop import SECOND, Cells, add_cells, averages, by_sensor, fold
from benchmarks.peers.engine import BATCH, LATENESS, Form, Row, Sinks, read

# Event time in microseconds since the epoch, device, value of each sensor.
_Reading = tuple[int, str, float | None, float | None, float | None, float | None]

# Cut the column `at` into intervals that are emitted once.
_WINDOWS = {
    "window": pw.temporal.tumbling(INTERVAL * SECOND, origin=0),
    "behavior": pw.temporal.exactly_once_behavior(LATENESS * SECOND),
}


class _Source(pw.io.python.ConnectorSubject):
    def __init__(self, rows: Sequence[Any]):
        super().__init__()
        self._rows = rows

    def run(self) -> None:
        for row in self._rows:
            self.next(data=row)


def _run(of: Any, build: Callable[..., Any], load: Load, given: Sequence[Any]) -> Callable[[], Outcome]:
    pw.internals.parse_graph.G.clear()
    sinks = Sinks()
    messages = pw.io.python.read(_Source(given), schema=pw.schema_from_types(data=of))
    outcomes, rows, read_row = build(messages, load.by_device)
    rejected = outcomes.select(payload=pw.this.read[1]).flatten(pw.this.payload)
    pw.io.subscribe(rejected, lambda key, row, time, is_addition: sinks.dead_letters.append(row["payload"]))
    pw.io.subscribe(rows, lambda key, row, time, is_addition: sinks.rows.extend(read_row(**row)))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, default_logging=False)
    return sinks.outcome


def _batches(load: Load, sent: Sequence[tuple[float, bytes]]) -> list[tuple[bytes, ...]]:
    return [tuple(data for _, data in sent[at : at + BATCH]) for at in range(0, len(sent), BATCH)]


def _idiomatic(messages: pw.Table, by_device: bool) -> tuple[pw.Table, pw.Table, Callable[..., Any]]:
    @pw.udf(deterministic=True)
    def read_message(data: bytes) -> tuple[list[_Reading], list[bytes]]:
        readings, rejected = read(data)
        return [
            (at, device if by_device else "", *map(values.get, SENSORS)) for at, device, values in readings
        ], rejected

    outcomes = messages.select(read=read_message(pw.this.data))
    readings = outcomes.select(one=pw.this.read[0]).flatten(pw.this.one)
    readings = readings.select(**{name: pw.this.one[index] for index, name in enumerate(["at", "device", *SENSORS])})
    # There is no mean of what may be missing.
    sums = {name: pw.reducers.sum(pw.coalesce(pw.this[name], 0.0)) for name in SENSORS}
    counts = {f"{name}_count": pw.reducers.sum(pw.cast(int, pw.this[name].is_not_none())) for name in SENSORS}
    windows = readings.windowby(readings.at, instance=readings.device, **_WINDOWS)
    rows = windows.reduce(start=pw.this._pw_window_start, device=pw.this._pw_instance, **sums, **counts)

    def read_row(start: int, device: str, **found: float) -> Iterator[Row]:
        present = [name for name in SENSORS if found[f"{name}_count"]]
        yield start // SECOND, device, {name: found[name] / found[f"{name}_count"] for name in present}

    return outcomes, rows, read_row


def _tuned(messages: pw.Table, by_device: bool) -> tuple[pw.Table, pw.Table, Callable[..., Any]]:
    @pw.udf(deterministic=True)
    def fold_batch(batch: tuple[bytes, ...]) -> tuple[list[tuple[int, pw.PyObjectWrapper]], list[bytes]]:
        partials, rejected = fold(batch, by_device)
        return [(latest, pw.wrap_py_object(cells)) for _, latest, cells in partials], rejected

    outcomes = messages.select(read=fold_batch(pw.this.data))
    sums = outcomes.select(one=pw.this.read[0]).flatten(pw.this.one)
    sums = sums.select(at=pw.this.one[0], cells=pw.this.one[1])
    rows = sums.windowby(sums.at, **_WINDOWS).reduce(start=pw.this._pw_window_start, cells=_add_up(pw.this.cells))

    def read_row(start: int, cells: pw.PyObjectWrapper) -> Iterator[Row]:
        for device, of_device in cells.value.items():
            yield start // SECOND, device, averages(by_sensor(of_device))

    return outcomes, rows, read_row


@pw.reducers.stateful_many
def _add_up(state: pw.PyObjectWrapper | None, changes: list[tuple[list[Any], int]]) -> pw.PyObjectWrapper:
    total: Cells = dict(state.value) if state else {}
    for (cells,), _ in changes:
        add_cells(total, cells.value)
    return pw.wrap_py_object(total)


FORMS = {
    "pathway idiomatic": Form(partial(_run, bytes, _idiomatic)),
    "pathway tuned": Form(partial(_run, tuple[bytes, ...], _tuned), _batches),
}
