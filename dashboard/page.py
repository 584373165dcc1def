"""The page: its elements are built once, and filled with each new snapshot."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nicegui import ui

from dashboard import charts
from dashboard.feed import Balance, Feed
from dashboard.queries import Snapshot, most_rows
from pipeline.decode.reading import DEVICE, TIMESTAMP

STYLE = Path(__file__).with_name("page.css")
ROWS_IN_TABLE = 50
STALE = 4  # the newest row is overdue when it is older than this many times the time between rows
UNKNOWN = "?"
KINDS = ("stage", "error", "count", "newest")
LEFT = (TIMESTAMP, DEVICE, "stage", "error")  # columns that are aligned left


class Page:
    """The page in one browser."""

    def __init__(self, feed: Feed):
        self._feed = feed
        self._refreshes = -1
        self._shown: tuple[Any, ...] | None = None
        self._row_interval: timedelta | None = None
        self._client = ui.context.client
        self._charts_of: dict[str, tuple[ui.echart, ui.label]] = {}
        self._sample: ui.label | None = None
        ui.add_css(STYLE)
        ui.add_head_html('<script src="page.js"></script>')
        with _box("row-of"):
            ui.label("Sensor Stream").classes("title")
            ui.label(str(feed.source.rows)).classes("table-name")
            self._state = ui.label("querying BigQuery").classes("state")
        self._problem = ui.label().classes("problem hidden").props("role=alert")
        self._body = _box("hidden")
        with self._body:
            with _box("figures"):
                self._age, self._age_note = _figure("Age of the newest row", "age")
                self._rows, self._rows_note = _figure(f"Rows, last {_span(feed.source.span)}", "rows")
                self._dead_letters, self._dead_letters_note = _figure("Dead letters", "dead-letters")
            if feed.balance:
                with _box("card balance"):
                    ui.label("Balance of readings").classes("label")
                    self._terms = _box("terms")
                    self._unknown = ui.label().classes("label")
            with _box("row-of section"):
                _heading("Rows over event time, UTC")
                self._keys = _box("row-of")
            self._charts = _box("charts")
            with _box("tables"):
                with _box():
                    self._rows_heading = _heading("Newest rows").classes("section")
                    self._row_table = _table("rows")
                with _box():
                    self._kinds_heading = _heading("").classes("section")
                    self._kind_table = _table("kinds", *KINDS)
            self._foot = ui.label().classes("foot")
        self.update()
        ui.timer(0.5, self.update)

    def update(self) -> None:
        """Show the newest snapshot, and the age of its newest row."""
        snapshot = self._feed.snapshot
        if self._refreshes != self._feed.refreshes:
            self._refreshes = self._feed.refreshes
            self._problem.text = self._feed.problem
            self._problem.classes(**_when(not self._feed.problem, "hidden"))
            self._state.classes(**_when(bool(self._feed.problem), "bad"))
            if snapshot:
                self._state.text = f"as of {snapshot.at:%H:%M:%S} UTC"
                self._body.classes(remove="hidden").props(f"data-refresh={self._refreshes}")
                self._fill(snapshot)
            elif self._feed.problem:
                self._state.text = "nothing to show"
        if snapshot:
            self._show_age(snapshot)

    def _fill(self, snapshot: Snapshot) -> None:
        self._row_interval = charts.spacing(row[TIMESTAMP] for row in snapshot.rows)
        self._rows.text = _number(len(snapshot.rows)) + (
            "+" if len(snapshot.rows) == most_rows(snapshot.columns) else ""
        )
        self._rows_note.text = f"{_span(self._row_interval)} apart" if self._row_interval else ""
        self._dead_letters.text = UNKNOWN if snapshot.kinds is None else _number(_count_dead_letters(snapshot))
        newest = max((kind.newest for kind in snapshot.kinds or ()), default=None)
        self._dead_letters_note.text = f"newest {newest:%H:%M:%S}" if newest else ""
        if self._feed.balance:
            self._fill_balance(self._feed.balance)
        shown = (snapshot.columns, charts.devices(snapshot), snapshot.readings is None)
        if shown != self._shown:
            self._shown = shown
            self._build_charts(snapshot)
            self._row_table.columns = _columns(*snapshot.columns.shown)
        self._fill_charts(snapshot)
        self._row_table.rows = [_cells(row) for row in snapshot.rows[:ROWS_IN_TABLE]]
        self._kind_table.rows = [
            dict(zip(KINDS, (kind.stage, kind.error, kind.count, f"{kind.newest:%H:%M:%S}"), strict=True))
            for kind in snapshot.kinds or ()
        ]
        self._kinds_heading.text = "Dead letters by stage and error" if snapshot.kinds else "No dead letters"
        if snapshot.kinds is None:
            self._kinds_heading.text = f"There is no table {self._feed.source.dead_letters}"
        self._kind_table.classes(**_when(not snapshot.kinds, "hidden"))
        self._foot.text = _footnote(snapshot, self._feed.source.span)

    def _show_age(self, snapshot: Snapshot) -> None:
        if not snapshot.rows:
            self._age.text = "none"
            self._age_note.text = f"no row in the last {_span(self._feed.source.span)}"
            return
        newest = snapshot.rows[0][TIMESTAMP]
        age, row_interval = datetime.now(UTC) - newest, self._row_interval
        self._age.text = _span(age)
        self._age.classes(**_when(bool(row_interval and age > STALE * row_interval), "bad"))
        self._age_note.text = f"{newest:%H:%M:%S}" + (
            f", interval ended {_span(age - row_interval)} ago" if row_interval else ""
        )

    def _fill_balance(self, balance: Balance) -> None:
        """Show published = averaged + dead-lettered + duplicates + in transit, as far as these are counted.

        None of the numbers can be read from the tables, which do not count readings: a row counts the values of each
        sensor, with hopping windows a value is in several rows, and one dead letter may hold the sum of many readings.
        """
        terms = [
            ("", balance.published, "published"),
            ("=", balance.averaged, "averaged"),
            ("+", balance.dead_lettered, "dead-lettered"),
            ("+", balance.duplicates, "duplicates"),
        ]
        known = [number for _, number, _ in terms if number is not None]
        if len(known) == len(terms):
            terms.append(("+", known[0] - sum(known[1:]), "in transit"))
        self._terms.clear()
        with self._terms:
            for sign, number, name in terms:
                with _box("term"):
                    if sign:
                        ui.label(sign).classes("sign")
                    ui.label(UNKNOWN if number is None else _number(number)).classes("figure")
                    ui.label(name).classes("label")
        unknown = [name for _, number, name in terms if number is None]
        self._unknown.text = f"Not counted: {', '.join(unknown)}." if unknown else ""

    def _build_charts(self, snapshot: Snapshot) -> None:
        shown, columns = charts.devices(snapshot), snapshot.columns
        self._keys.clear()
        with self._keys:
            if columns.device:
                for device, colour in zip(shown, charts.COLOURS, strict=False):
                    _key(device or charts.NO_DEVICE, "mark", f"background: {colour}")
                if more := shown[len(charts.COLOURS) :]:
                    ui.label(f"and {_number(len(more))} more in the table only").classes("key")
            if any(sensor.has_range for sensor in columns.sensors):
                _key("lowest to highest reading", "mark band")
            self._sample = _key("readings", "mark dot") if snapshot.readings is not None else None
        self._charts.clear()
        self._charts_of = {}
        with self._charts:
            for sensor in columns.sensors:
                with _box("card"):
                    with _box("row-of"):
                        _heading(sensor.name)
                        ui.label(sensor.unit).classes("label")
                        newest = ui.label().classes("newest")
                    # Filled by page.js, because the server keeps the content of its elements for each viewer.
                    chart = ui.echart({}, renderer="svg").props(f'role=img aria-label="{sensor.name} over time"')
                    self._charts_of[sensor.name] = chart, newest
            if columns.more:
                ui.label(f"and {_number(columns.more)} more sensors; choose with --sensors").classes("label")

    def _fill_charts(self, snapshot: Snapshot) -> None:
        elements = {sensor: chart.id for sensor, (chart, _) in self._charts_of.items()}
        self._client.run_javascript(f"fillCharts({self._refreshes}, {json.dumps(elements, allow_nan=False)})")
        for sensor in snapshot.columns.sensors:
            value = snapshot.rows[0][sensor.line] if snapshot.rows else None
            newest = self._charts_of[sensor.name][1]
            newest.text = f"{value:.7g}" if value is not None and len(charts.devices(snapshot)) == 1 else ""
        if self._sample and snapshot.readings is not None:
            self._sample.text = f"{_number(len(snapshot.readings))} readings of {_number(snapshot.messages)} messages"


def _box(classes: str = "") -> ui.element:
    return ui.element("div").classes(classes)


def _heading(text: str) -> ui.label:
    label = ui.label(text)
    label.tag = "h2"
    return label


def _figure(name: str, marker: str) -> tuple[ui.label, ui.label]:
    with _box("card"):
        ui.label(name).classes("label")
        return ui.label("").classes("figure").props(f"data-figure={marker}"), ui.label("").classes("label")


def _key(text: str, classes: str, style: str = "") -> ui.label:
    with _box("key"):
        ui.element("span").classes(classes).style(style)
        return ui.label(text)


def _table(name: str, *columns: str) -> ui.table:
    return ui.table(rows=[], columns=_columns(*columns)).props("dense flat hide-no-data").classes(name)


def _columns(*names: str) -> list[dict[str, Any]]:
    return [{"name": n, "label": n, "field": n, "align": "left" if n in LEFT else "right"} for n in names]


def _cells(row: Any) -> dict[str, Any]:
    cells = {name: f"{value:.7g}" if isinstance(value, float) else value for name, value in row.items()}
    return {**cells, TIMESTAMP: f"{row[TIMESTAMP]:%Y-%m-%d %H:%M:%S}"}


def _when(true: bool, name: str) -> dict[str, str]:
    return {"add" if true else "remove": name}


def _count_dead_letters(snapshot: Snapshot) -> int:
    return sum(kind.count for kind in snapshot.kinds or ())


def _number(number: int) -> str:
    return f"{number:,}"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.1f} s" if seconds % 1 and abs(seconds) < 10 else f"{seconds:.0f} s"


def _footnote(snapshot: Snapshot, span: timedelta) -> str:
    scanned = ", ".join(f"{what} {_bytes(size)}" for what, size in snapshot.scanned.items())
    emulated = "; the emulator does not count bytes" if os.environ.get("BIGQUERY_EMULATOR_HOST") else ""
    return (
        f"This refresh scanned {_bytes(sum(snapshot.scanned.values()))} ({scanned}{emulated}), for all viewers "
        f"together. Charts show the last {_span(span)}, at most {_number(most_rows(snapshot.columns))} rows; the table "
        f"shows the newest {ROWS_IN_TABLE}."
    )


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
