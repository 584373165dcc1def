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
from benchmarks.loop import SECOND, Cells, add_cells, averages, by_sensor, fold
from benchmarks.peers.engine import BATCH, LATENESS, Run, Sent, Sinks, read

_COLUMNS = [f"{name}_{what}" for name in SENSORS for what in ("sum", "count")]
# Event time in microseconds since the epoch, device, then the columns above.
_Reading = tuple[int, str, float, float, float, float, float, float, float, float]

# A table whose column `read` has readings or sums and dead letters' payloads, that of rows, and the cells in a row.
_Built = tuple[pw.Table, pw.Table, Callable[[dict[str, Any]], Cells]]


class _Source(pw.io.python.ConnectorSubject):
    def __init__(self, rows: Sequence[Any]):
        super().__init__()
        self._rows = rows

    def run(self) -> None:
        for row in self._rows:
            self.next(data=row)


def _form(of: Any, build: Callable[[pw.Table, bool], _Built], load: Load, sent: Sent) -> Run:
    given: list[Any] = [data for _, data in sent]
    if of is not bytes:
        given = [tuple(given[at : at + BATCH]) for at in range(0, len(given), BATCH)]

    def run() -> Callable[[], Outcome]:
        pw.internals.parse_graph.G.clear()
        sinks = Sinks()
        messages = pw.io.python.read(_Source(given), schema=pw.schema_from_types(data=of))
        outcomes, rows, cells_of = build(messages, load.by_device)

        def take(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
            for device, cells in cells_of(row).items():
                sinks.rows.append((row["start"] // SECOND, device, averages(by_sensor(cells))))

        refused = outcomes.select(payload=pw.this.read[1]).flatten(pw.this.payload)
        pw.io.subscribe(refused, lambda key, row, time, is_addition: sinks.dead_letters.append(row["payload"]))
        pw.io.subscribe(rows, take)
        pw.run(monitoring_level=pw.MonitoringLevel.NONE, default_logging=False)
        return sinks.outcome

    return run


def _windows(table: pw.Table, **instance: Any) -> Any:
    """Cut the column `at`, microseconds since the epoch, into intervals that are emitted once."""
    return table.windowby(
        table.at,
        window=pw.temporal.tumbling(INTERVAL * SECOND, origin=0),
        behavior=pw.temporal.exactly_once_behavior(LATENESS * SECOND),
        **instance,
    )


def _idiomatic(messages: pw.Table, by_device: bool) -> _Built:
    @pw.udf(deterministic=True)
    def read_message(data: bytes) -> tuple[list[_Reading], list[bytes]]:
        readings: list[Any] = []
        refused: list[bytes] = []
        for outcome in read(data):
            if isinstance(outcome, bytes):
                refused.append(outcome)
            else:
                at, device, values = outcome
                # A sum and a count of each sensor: of no or of one reading.
                cells = ((values[name], 1.0) if name in values else (0.0, 0.0) for name in SENSORS)
                readings.append((at, device if by_device else "", *chain.from_iterable(cells)))
        return readings, refused

    outcomes = messages.select(read=read_message(pw.this.data))
    readings = outcomes.select(one=pw.this.read[0]).flatten(pw.this.one)
    readings = readings.select(**{name: pw.this.one[index] for index, name in enumerate(["at", "device", *_COLUMNS])})
    rows = _windows(readings, instance=readings.device).reduce(
        start=pw.this._pw_window_start,
        device=pw.this._pw_instance,
        **{name: pw.reducers.sum(pw.this[name]) for name in _COLUMNS},
    )
    return outcomes, rows, lambda row: {row["device"]: [row[name] for name in _COLUMNS]}


def _tuned(messages: pw.Table, by_device: bool) -> _Built:
    @pw.udf(deterministic=True)
    def fold_batch(batch: tuple[bytes, ...]) -> tuple[list[tuple[int, pw.PyObjectWrapper]], list[bytes]]:
        partials, refused = fold(batch, by_device)
        return [(one.latest, pw.wrap_py_object(one.cells)) for one in partials], refused

    outcomes = messages.select(read=fold_batch(pw.this.data))
    sums = outcomes.select(one=pw.this.read[0]).flatten(pw.this.one)
    sums = sums.select(at=pw.this.one[0], cells=pw.this.one[1])
    rows = _windows(sums).reduce(start=pw.this._pw_window_start, cells=_add_up(pw.this.cells))
    return outcomes, rows, lambda row: row["cells"].value


@pw.reducers.stateful_many
def _add_up(state: pw.PyObjectWrapper | None, changes: list[tuple[list[Any], int]]) -> pw.PyObjectWrapper:
    total: Cells = dict(state.value) if state else {}
    for (cells,), _ in changes:
        add_cells(total, cells.value)
    return pw.wrap_py_object(total)


FORMS = {
    "pathway idiomatic": partial(_form, bytes, _idiomatic),
    "pathway tuned": partial(_form, tuple[bytes, ...], _tuned),
}
