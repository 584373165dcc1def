"""The chart of a sensor, as options of Apache ECharts; it has the colours of page.css, and so the page's dark mode."""

import gzip
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low
from typing import Any

import msgspec

from dashboard.queries import Snapshot
from dashboard.tables import MAX, MIN, Sensor
from pipeline.decode.reading import DEVICE, TIMESTAMP

COLOURS = ("#3a86d8", "#e0763a", "#2a9d6f", "#c44e9b", "#8a6fd1", "#b8941a", "#1797ab", "#d1495b")
NO_DEVICE = "no device"
DOTS_UP_TO = 150  # rows; a line of more rows is drawn without a dot for each

# The format of times on an axis: that of the first entry whose span is longer than the axis.
_TIMES = (
    (timedelta(minutes=10), "{HH}:{mm}:{ss}"),
    (timedelta(days=1), "{HH}:{mm}"),
    (timedelta(days=3), "{d} {MMM} {HH}:{mm}"),
    (timedelta.max, "{d} {MMM}"),
)

_LINE = {"lineStyle": {"color": "var(--line)"}}
_TIME_AXIS = {"type": "time", "splitNumber": 4, "axisLine": {**_LINE, "onZero": False}, "axisTick": _LINE}
_TIME_LABEL = {"color": "var(--soft)", "hideOverlap": True, "alignMinLabel": "left", "alignMaxLabel": "right"}
_CHART = {
    "animation": False,
    "useUTC": True,
    "grid": {"left": 4, "right": 26, "top": 14, "bottom": 4, "containLabel": True},
    "yAxis": {
        "type": "value",
        "scale": True,
        "splitNumber": 3,
        "axisLabel": {"color": "var(--soft)"},
        "splitLine": _LINE,
    },
    "tooltip": {
        "trigger": "axis",
        "confine": True,
        "backgroundColor": "var(--surface)",
        "borderColor": "var(--line)",
        "textStyle": {"color": "var(--ink)", "fontSize": 12},
    },
}
_BEHIND = {"silent": True, "tooltip": {"show": False}, "emphasis": {"disabled": True}}

Row = Mapping[str, Any]
Series = dict[str, Any]


def spacing(times: Iterable[datetime]) -> timedelta | None:
    """Return the time from one row to the next, or None if rows are not evenly spaced, as those of sessions."""
    steps = [after - before for before, after in pairwise(sorted(set(times)))]
    return min(steps) if steps and min(steps) == median_low(steps) else None


def devices(snapshot: Snapshot) -> list[str | None]:
    """Return the devices in order of name; only the first ones, one for each of COLOURS, have a line."""
    if not snapshot.columns.device:
        return [None]
    return sorted({row[DEVICE] for row in snapshot.rows}, key=lambda name: name or "")


def encoded(snapshot: Snapshot) -> bytes:
    """Return the charts by sensor, as a JSON object compressed with gzip."""
    charts = {one.name: msgspec.Raw(msgspec.json.encode(options(snapshot, one))) for one in snapshot.columns.sensors}
    return gzip.compress(msgspec.json.encode(charts), compresslevel=3)


def options(snapshot: Snapshot, sensor: Sensor) -> dict[str, Any]:
    """Return the chart of `sensor`: a step per row, and behind it the range of its readings and readings, if known."""
    by_device = snapshot.columns.device
    times = [row[TIMESTAMP] for row in snapshot.rows]
    row_interval = spacing(times)
    series = []
    for device, colour in zip(devices(snapshot), COLOURS, strict=False):
        rows = [row for row in reversed(snapshot.rows) if row.get(DEVICE) == device]
        if sensor.has_range:
            series += _band(sensor, rows, row_interval, colour)
        if snapshot.readings:
            readings = [one for one in snapshot.readings if sensor.name in one.values]
            dots = [[_ms(r.time), r.values[sensor.name]] for r in readings if r.device == device or not by_device]
            series.append(_dots(dots, colour))
        name = (device or NO_DEVICE) if by_device else sensor.name
        series.append(_line(name, _points(rows, row_interval, lambda row: row[sensor.line]), row_interval, colour))
    # The same for all charts: from the first row to the time of the refresh, so that missing new rows show as a gap.
    start, end = min(times, default=snapshot.at), max([*times, snapshot.at])
    label = {**_TIME_LABEL, "formatter": next(pattern for span, pattern in _TIMES if end - start < span)}
    return {
        **_CHART,
        "xAxis": {**_TIME_AXIS, "min": _ms(start), "max": _ms(end), "axisLabel": label},
        "series": series,
    }


def _points(rows: Sequence[Row], row_interval: timedelta | None, value: Callable[[Row], float | None]) -> list[Any]:
    """Return (milliseconds, value) of each row, in order, and the end of an interval if the next row is missing."""
    points: list[Any] = []
    times = [row[TIMESTAMP] for row in rows]
    for row, time, following in zip(rows, times, [*times[1:], None], strict=False):
        points.append([_ms(time), value(row)])
        if row_interval and (not following or following - time > 1.5 * row_interval):
            end = _ms(time + row_interval)
            points += [{"value": [end, value(row)], "symbol": "none"}, [end, None]]
    return points


def _line(name: str, points: list[Any], row_interval: timedelta | None, colour: str) -> Series:
    return {
        "type": "line",
        "name": name,
        "data": points,
        # A row has the timestamp of its interval's start. The length of unevenly spaced intervals is not in the table.
        "step": "end" if row_interval else False,
        "showSymbol": len(points) <= DOTS_UP_TO,
        "symbol": "circle",
        "symbolSize": 5,
        "color": colour,
        "lineStyle": {"width": 2 if row_interval else 1},
        "emphasis": {"disabled": True},
        "z": 3,
    }


def _band(sensor: Sensor, rows: Sequence[Row], row_interval: timedelta | None, colour: str) -> list[Series]:
    """Return the range of each row's readings: an area with the height of the range, stacked on the lowest reading."""
    low, high = sensor.column(MIN), sensor.column(MAX)
    common = {
        **_BEHIND,
        "type": "line",
        "name": "span",
        "stack": colour,
        "stackStrategy": "all",
        "step": "end" if row_interval else False,
        "symbol": "none",
        "color": colour,
        "lineStyle": {"width": 0},
        "z": 1,
    }
    height = _points(rows, row_interval, lambda row: None if row[low] is None else row[high] - row[low])
    return [
        {**common, "data": _points(rows, row_interval, lambda row: row[low])},
        {**common, "data": height, "areaStyle": {"opacity": 0.14}},
    ]


def _dots(points: list[Any], colour: str) -> Series:
    style = {"symbolSize": 4, "color": colour, "itemStyle": {"opacity": 0.35}, "z": 2}
    return {**_BEHIND, **style, "type": "scatter", "name": "readings", "data": points}


def _ms(time: datetime) -> float:
    return time.timestamp() * 1000
