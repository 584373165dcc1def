"""One sensor's chart, as options of Apache ECharts. Colours are those of page.css, so that dark mode is the page's."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low
from typing import Any

from dashboard.queries import Snapshot
from dashboard.tables import DEVICE, TIMESTAMP

COLOURS = ("#3a86d8", "#e0763a", "#2a9d6f", "#c44e9b", "#8a6fd1", "#b8941a", "#1797ab", "#d1495b")
DOTS_UP_TO = 150  # rows of a line that are drawn with a dot each

Point = list[float | None]


def spacing(times: Iterable[datetime]) -> timedelta | None:
    """Return how far apart rows are, or None if they are not evenly so, as rows of sessions."""
    steps = [after - before for before, after in pairwise(sorted(set(times)))]
    return min(steps) if steps and min(steps) == median_low(steps) else None


def devices(snapshot: Snapshot) -> list[str | None]:
    """Return the devices that have a line each: at most as many as there are colours, by name."""
    if not snapshot.columns.device:
        return [None]
    return sorted({row[DEVICE] for row in snapshot.rows}, key=lambda name: name or "")[: len(COLOURS)]


def options(snapshot: Snapshot, sensor: str) -> dict[str, Any]:
    """Return the chart of `sensor`: a step per row; behind it the span of its readings, and readings, where known."""
    shown = devices(snapshot)
    apart = spacing(row[TIMESTAMP] for row in snapshot.rows)
    series: list[dict[str, Any]] = []
    for device, colour in zip(shown, COLOURS, strict=False):
        rows = [row for row in reversed(snapshot.rows) if row.get(DEVICE) == device]
        low, high = f"{sensor}_min", f"{sensor}_max"
        if {low, high} <= set(snapshot.columns.statistics):
            series += _band(rows, low, high, colour, apart)
        if snapshot.readings:
            series.append(_dots(snapshot, sensor, device, colour))
        series.append(_line(sensor, device, _points(rows, lambda row: row[sensor], apart), colour, apart))
    return {
        "animation": False,
        "useUTC": True,
        "grid": {"left": 4, "right": 14, "top": 14, "bottom": 4, "containLabel": True},
        "xAxis": _time_axis(snapshot),
        "yAxis": _value_axis(),
        "tooltip": _tooltip(),
        "series": series,
    }


def _points(rows: Sequence[Mapping[str, Any]], value: Any, apart: timedelta | None) -> list[Point]:
    """Return (milliseconds, value) of each row, in order, and a hole where rows are missing."""
    points: list[Point] = []
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        points.append([_ms(row[TIMESTAMP]), value(row)])
        if apart and following and following[TIMESTAMP] - row[TIMESTAMP] > 1.5 * apart:
            points.append([_ms(row[TIMESTAMP] + apart), None])
    return points


def _line(sensor: str, device: str | None, points: list[Point], colour: str, apart: timedelta | None) -> dict[str, Any]:
    return {
        "type": "line",
        "name": device or sensor,
        "data": points,
        # A row is stamped with the start of its interval; of uneven rows nobody knows how long theirs are.
        "step": "end" if apart else False,
        "showSymbol": len(points) <= DOTS_UP_TO,
        "symbol": "circle",
        "symbolSize": 5,
        "color": colour,
        "lineStyle": {"width": 2 if apart else 1},
        "emphasis": {"disabled": True},
        "z": 3,
    }


def _band(
    rows: Sequence[Mapping[str, Any]], low: str, high: str, colour: str, apart: timedelta | None
) -> list[dict[str, Any]]:
    """From the lowest to the highest reading of each row: the difference, stacked on the lowest."""

    def height(row: Mapping[str, Any]) -> float | None:
        return None if row[low] is None or row[high] is None else row[high] - row[low]

    common = {
        "type": "line",
        "name": "span",
        "stack": colour,
        "stackStrategy": "all",
        "step": "end" if apart else False,
        "symbol": "none",
        "color": colour,
        "lineStyle": {"width": 0},
        "silent": True,
        "tooltip": {"show": False},
        "z": 1,
    }
    return [
        {**common, "data": _points(rows, lambda row: row[low], apart)},
        {**common, "data": _points(rows, height, apart), "areaStyle": {"opacity": 0.18}},
    ]


def _dots(snapshot: Snapshot, sensor: str, device: str | None, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": "readings",
        "data": [
            [_ms(reading.time), reading.values[sensor]]
            for reading in snapshot.readings or ()
            if sensor in reading.values and (reading.device == device or not snapshot.columns.device)
        ],
        "symbolSize": 4,
        "color": colour,
        "itemStyle": {"opacity": 0.28},
        "emphasis": {"disabled": True},
        "silent": True,
        "tooltip": {"show": False},
        "z": 2,
    }


def _time_axis(snapshot: Snapshot) -> dict[str, Any]:
    """All charts have the same: from the first row to the moment of the refresh, so a late table shows as a gap."""
    times = [row[TIMESTAMP] for row in snapshot.rows] or [snapshot.at]
    start, end = min(times), max(*times, snapshot.at)
    return {
        "type": "time",
        "min": _ms(start),
        "max": _ms(end),
        "splitNumber": 4,
        "axisLine": {"lineStyle": {"color": "var(--line)"}},
        "axisTick": {"lineStyle": {"color": "var(--line)"}},
        "axisLabel": {
            "color": "var(--soft)",
            "hideOverlap": True,
            "formatter": {
                "year": "{yyyy}",
                "month": "{d} {MMM}",
                "day": "{d} {MMM}",
                "hour": "{HH}:{mm}",
                "minute": "{HH}:{mm}",
                "second": "{HH}:{mm}:{ss}",
                "millisecond": "{HH}:{mm}:{ss}",
            },
        },
        "axisPointer": {"lineStyle": {"color": "var(--soft)"}},
    }


def _value_axis() -> dict[str, Any]:
    return {
        "type": "value",
        "scale": True,
        "splitNumber": 3,
        "axisLabel": {"color": "var(--soft)"},
        "splitLine": {"lineStyle": {"color": "var(--line)"}},
    }


def _tooltip() -> dict[str, Any]:
    return {
        "trigger": "axis",
        "confine": True,
        "backgroundColor": "var(--surface)",
        "borderColor": "var(--line)",
        "textStyle": {"color": "var(--ink)", "fontSize": 12},
        # NiceGUI makes a JavaScript function of what has a colon before its name.
        ":valueFormatter": "value => value == null ? 'no value' : String(+value.toPrecision(7))",
    }


def _ms(time: datetime) -> float:
    return time.timestamp() * 1000
