"""The demo's picture: each sensor's readings over time, and the averages the pipeline made of them."""

from collections.abc import Sequence
from datetime import UTC, timedelta
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # draws into files; needs no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter, date2num

from local.verify.balance import Reading
from local.verify.reconcile import Row


def draw(
    path: Path, sensors: Sequence[str], interval: timedelta, readings: Sequence[Reading], rows: Sequence[Row]
) -> None:
    """Write a PNG with one panel per sensor: readings as faint dots, each row as a line as long as its interval."""
    figure, panels = plt.subplots(
        len(sensors), 1, sharex=True, squeeze=False, figsize=(10, 2.1 * len(sensors) + 0.8), layout="constrained"
    )
    for axes, sensor in zip(panels[:, 0], sensors, strict=True):
        _draw_sensor(axes, sensor, interval, readings, rows)
    last = panels[-1, 0]
    last.xaxis.set_major_locator(AutoDateLocator(maxticks=10))
    last.xaxis.set_major_formatter(DateFormatter("%H:%M:%S", tz=UTC))
    last.set_xlabel("event time (UTC)")
    seconds = interval.total_seconds()
    figure.suptitle(
        f"Readings (dots) and their {seconds:g} s averages in BigQuery (lines)", x=0.01, ha="left", fontsize=11
    )
    figure.legend(*last.get_legend_handles_labels(), loc="outside upper right", fontsize=9, ncols=4, markerscale=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_sensor(
    axes: Axes, sensor: str, interval: timedelta, readings: Sequence[Reading], rows: Sequence[Row]
) -> None:
    for device in sorted({reading.device or "" for reading in readings}):
        mine = [r for r in readings if (r.device or "") == device and r.sensor == sensor]
        axes.plot(
            [float(date2num(r.time)) for r in mine],
            [r.value for r in mine],
            linestyle="none",
            marker=".",
            markersize=3,
            alpha=0.35,
            label=device,
        )
    means = [(row.start, mean) for row in rows if (mean := row.means[sensor]) is not None]
    starts = [float(date2num(start)) for start, _ in means]
    ends = [float(date2num(start + interval)) for start, _ in means]
    axes.hlines([mean for _, mean in means], starts, ends, color="black", linewidth=2, label="average")
    axes.set_title(sensor, loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)
