"""The three ways to write rows, against the same stand-in: run with `make bench-writing`.

Each writes the same rows through Beam's own worker in this process; the stand-in, `local.bigquery_server`, has another.
CPU is this process's, less that of a pipeline that drops the rows. Rows a second are of the stand-in as much as of the
sink, so only their ratio says something, and little about BigQuery.
"""

import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud import bigquery
from rich.console import Console
from rich.table import Table

from benchmarks.load import SENSORS
from benchmarks.ratios import spread
from local import emulators
from pipeline import sinks, storage_write, tables
from pipeline.bigquery import TableId, client
from pipeline.dead_letters import rfc3339

_PROJECT = "sensor-stream-bench"
_DEVICES = 100
# Rows of a run: enough that a method's CPU stands out from that of starting a pipeline.
_COUNTS = {"streaming_inserts": 2_000, "storage_write": 20_000, "upsert": 20_000}
_OUT = Path("build/bench")
_COLUMNS = tables.row_columns(SENSORS, by_device=True, revise=False)
_KEY = tables.row_key(by_device=True)

Rows = list[dict]


class _Drop(beam.PTransform):
    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return rows | beam.Filter(lambda row: False)


def _appended(table_id: TableId) -> beam.PTransform:
    return storage_write.AppendRows(table_id, _COLUMNS)


def _upserted(table_id: TableId) -> beam.PTransform:
    return storage_write.UpsertRows(table_id, _COLUMNS, _KEY, time.time_ns() // 1_000_000)


METHODS: dict[str, Callable[[TableId], beam.PTransform]] = {
    "nothing": lambda table_id: _Drop(),
    "streaming_inserts": sinks.BigQueryRows,
    "storage_write": _appended,
    "upsert": _upserted,
}


class NotStored(AssertionError):
    """A method did not store each row once."""


def rows(count: int) -> Rows:
    """Return rows as AverageRows makes them for upserts: per interval and device, all sensors."""
    start = 1_795_352_400_000_000
    return [
        {
            "Timestamp": rfc3339(start + n // _DEVICES * 15_000_000),
            **dict.fromkeys(SENSORS, n / 7),
            "Device": f"device-{n % _DEVICES}",
        }
        for n in range(count)
    ]


def run(method: str, count: int, bq: bigquery.Client) -> tuple[float, float]:
    """Write so many rows into a new table, and check that it holds them.

    Returns:
      Seconds of CPU, and seconds that passed.
    """
    table_id = TableId(_PROJECT, "bench", f"t{uuid.uuid4().hex}")
    numbered = {"Revision": 0, "WrittenAt": None} if method == "upsert" else {}
    elements = [row | numbered for row in rows(count)]
    tables.prepare(table_id, _COLUMNS, tables.TIMESTAMP, tables.DEVICE, _KEY if method == "upsert" else ())
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    _ = pipeline | beam.Create([elements]) | beam.FlatMap(list) | "Write" >> METHODS[method](table_id)
    cpu, now = time.process_time(), time.monotonic()
    pipeline.run().wait_until_finish()
    took = time.process_time() - cpu, time.monotonic() - now
    stored = len(emulators.all_rows(bq, f"{_PROJECT}.bench.{table_id.table}"))
    if stored != (0 if method == "nothing" else count):
        raise NotStored(f"{method}: {stored} of {count} rows")
    return took


def main() -> None:
    """Measure, print, and write build/bench/writing.json."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    rounds = 1 if quick else 7
    logging.disable(logging.WARNING)
    cpu: dict[str, list[float]] = {name: [] for name in _COUNTS}
    rate: dict[str, list[float]] = {name: [] for name in _COUNTS}
    with emulators.bigquery_emulator(_PROJECT) as emulator:
        os.environ |= emulator.env
        bq = client(_PROJECT)
        bq.create_dataset("bench")
        run("storage_write", 10, bq)  # imports, and the first connection
        for _ in range(rounds):
            for name, count in _COUNTS.items():
                started, _ = run("nothing", count, bq)
                seconds, passed = run(name, count, bq)
                cpu[name].append((seconds - started) / count * 1e6)
                rate[name].append(count / passed)
    table = Table("method", "µs of CPU per row", "÷ streaming_inserts", "rows/s", "÷ streaming_inserts")
    for name in _COUNTS:
        shown = []
        for found in (cpu, rate):
            ratios = sorted(mine / base for mine, base in zip(found[name], found["streaming_inserts"], strict=True))
            shown += [spread(sorted(found[name])), spread(ratios)]
        table.add_row(name, *shown)
    Console(width=None if os.isatty(1) else 160).print(table)
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "writing.json").write_text(json.dumps({"rows": _COUNTS, "micros": cpu, "rows_per_second": rate}) + "\n")


if __name__ == "__main__":
    main()
