"""Pathway: a Rust engine for tables that change, described in Python, which it calls where it has no expression.

    idiomatic  a row per message; a UDF, flatten, columns, windowby(tumbling) with exactly_once_behavior, reduce
    tuned      a row per batch, folded in one UDF to a row per interval; a stateful reducer adds those up per window

What its Python connector is given within 1.5 s is one minibatch, here often all of it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import pathway as pw  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.loop import SECOND, add_to, fold, means
from benchmarks.peers.engine import BATCH, LATENESS, Form, Reading, Sinks, read

# Event time in microseconds since the epoch, device, then a sum and a count of each sensor.
_Cells = tuple[int, str, float, float, float, float, float, float, float, float]


class _Source(pw.io.python.ConnectorSubject):
    def __init__(self, rows: Sequence[Any]):
        super().__init__()
        self._rows = rows

    def run(self) -> None:
        for row in self._rows:
            self.next(data=row)


def _run(of: Any, build: Callable[..., None], load: Load, sent: Sequence[Any]) -> Callable[[], Outcome]:
    pw.internals.parse_graph.G.clear()
    sinks = Sinks()
    build(pw.io.python.read(_Source(sent), schema=pw.schema_from_types(data=of)), load.by_device, sinks)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, default_logging=False)
    return sinks.outcome


def _batches(load: Load, sent: Sequence[tuple[float, bytes]]) -> list[tuple[bytes, ...]]:
    return [tuple(data for _, data in sent[at : at + BATCH]) for at in range(0, len(sent), BATCH)]


def _take_refused(outcomes: pw.Table, sinks: Sinks) -> None:
    """Subscribe to the second part of the column `read`: dead letters' payloads."""
    refused = outcomes.select(payload=pw.this.read[1]).flatten(pw.this.payload)
    pw.io.subscribe(refused, on_change=lambda key, row, time, is_addition: sinks.dead_letters.append(row["payload"]))


def _windows(table: pw.Table, **instance: Any) -> Any:
    """Cut the column `at`, microseconds since the epoch, into intervals that are emitted once."""
    return table.windowby(
        table.at,
        window=pw.temporal.tumbling(INTERVAL * SECOND, origin=0),
        behavior=pw.temporal.exactly_once_behavior(LATENESS * SECOND),
        **instance,
    )


_CELLS = [f"{name}_{what}" for name in SENSORS for what in ("sum", "count")]


def _idiomatic(messages: pw.Table, by_device: bool, sinks: Sinks) -> None:
    @pw.udf(deterministic=True)
    def read_message(data: bytes) -> tuple[list[_Cells], list[bytes]]:
        readings: list[Any] = []
        refused: list[bytes] = []
        for outcome in read(data):
            if isinstance(outcome, Reading):
                # A sum and a count of each sensor: of no or of one reading.
                cells = ((outcome.values[name], 1.0) if name in outcome.values else (0.0, 0.0) for name in SENSORS)
                readings.append((outcome.at, outcome.device if by_device else "", *chain.from_iterable(cells)))
            else:
                refused.append(outcome.payload)
        return readings, refused

    outcomes = messages.select(read=read_message(pw.this.data))
    _take_refused(outcomes, sinks)
    readings = outcomes.select(reading=pw.this.read[0]).flatten(pw.this.reading)
    readings = readings.select(**{name: pw.this.reading[index] for index, name in enumerate(["at", "device", *_CELLS])})
    rows = _windows(readings, instance=readings.device).reduce(
        start=pw.this._pw_window_start,
        device=pw.this._pw_instance,
        **{name: pw.reducers.sum(pw.this[name]) for name in _CELLS},
    )

    def take(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        sinks.rows.append((row["start"] // SECOND, row["device"], means([row[name] for name in _CELLS])))

    pw.io.subscribe(rows, on_change=take)


def _tuned(messages: pw.Table, by_device: bool, sinks: Sinks) -> None:
    @pw.udf(deterministic=True)
    def fold_batch(batch: tuple[bytes, ...]) -> tuple[list[tuple[int, pw.PyObjectWrapper]], list[bytes]]:
        partials, refused = fold(batch, by_device)
        intervals: dict[int, tuple[int, dict[str, list[float]]]] = {}
        for one in partials:
            intervals.setdefault(one.start, (one.latest, {}))[1][one.device] = one.cells
        return [(latest, pw.wrap_py_object(devices)) for latest, devices in intervals.values()], refused

    outcomes = messages.select(read=fold_batch(pw.this.data))
    _take_refused(outcomes, sinks)
    sums = outcomes.select(sums=pw.this.read[0]).flatten(pw.this.sums)
    sums = sums.select(at=pw.this.sums[0], devices=pw.this.sums[1])
    rows = _windows(sums).reduce(start=pw.this._pw_window_start, devices=_add_up(pw.this.devices))

    def take(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        for device, cells in row["devices"].value.items():
            sinks.rows.append((row["start"] // SECOND, device, means(cells)))

    pw.io.subscribe(rows, on_change=take)


@pw.reducers.stateful_many
def _add_up(state: pw.PyObjectWrapper | None, changes: list[tuple[list[Any], int]]) -> pw.PyObjectWrapper:
    total = {device: list(cells) for device, cells in state.value.items()} if state else {}
    for (devices,), _ in changes:
        for device, cells in devices.value.items():
            add_to(total, device, list(cells))
    return pw.wrap_py_object(total)


FORMS = {
    "pathway idiomatic": Form(partial(_run, bytes, _idiomatic)),
    "pathway tuned": Form(partial(_run, tuple[bytes, ...], _tuned), _batches),
}
