"""The three write methods against the same stand-in: run with `make bench-writing`.

Each writes the same rows through Beam's own worker in this process; the stand-in, `local.stack.bigquery_server`, has a
process of its own. CPU is this process's, less that of a pipeline that drops the rows. Rows per second depend on the
stand-in as much as on the sink, so only their ratio means something, and little for BigQuery.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud import bigquery

from benchmarks.frame import QUICK, DifferentRows, publish, ratios, take_turns
from benchmarks.load import SENSORS
from local.stack import emulators
from pipeline.launch import tables
from pipeline.sinks import storage_write, streaming_inserts
from pipeline.sinks.bigquery import TableId, client
from pipeline.timestamps import rfc3339

PROJECT = "sensor-stream-bench"
_DEVICES = 100
# Rows of a run: enough for a method's CPU to be well above that of starting a pipeline.
_COUNTS = {"streaming_inserts": 2_000, "storage_write": 20_000, "upsert": 20_000}
_COLUMNS = tables.row_columns(SENSORS, by_device=True, revise=False)
_KEY = tables.row_key(by_device=True)

METHODS: dict[str, Callable[[TableId], beam.PTransform]] = {
    "nothing": lambda table_id: beam.Filter(lambda row: False),
    "streaming_inserts": streaming_inserts.InsertRows,
    "storage_write": lambda table_id: storage_write.AppendRows(table_id, _COLUMNS),
    "upsert": lambda table_id: storage_write.UpsertRows(table_id, _COLUMNS, _KEY, time.time_ns() // 1_000_000),
}


def run(method: str, count: int, bq: bigquery.Client) -> tuple[float, float]:
    """Write so many rows into a new table, and check that it has them; return seconds of CPU, and seconds elapsed."""
    table_id = TableId(PROJECT, "bench", f"t{uuid.uuid4().hex}")
    tables.prepare(table_id, _COLUMNS, tables.TIMESTAMP, tables.DEVICE, _KEY if method == "upsert" else ())
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    rows = [_row(number, method == "upsert") for number in range(count)]
    _ = pipeline | beam.Create([rows]) | beam.FlatMap(list) | "Write" >> METHODS[method](table_id)
    cpu, now = time.process_time(), time.monotonic()
    pipeline.run().wait_until_finish()
    took = time.process_time() - cpu, time.monotonic() - now
    stored = len(emulators.all_rows(bq, f"{PROJECT}.bench.{table_id.table}"))
    if stored != (0 if method == "nothing" else count):
        raise DifferentRows(f"{method}: {stored} of {count} rows")
    return took


def _row(number: int, numbered: bool) -> dict[str, Any]:
    """Return a row as MakeRows yields it: per interval and device, all sensors; for upserts with its revision."""
    stamp = rfc3339(1_795_352_400_000_000 + number // _DEVICES * 15_000_000)
    row = {"Timestamp": stamp, **dict.fromkeys(SENSORS, number / 7), "Device": f"device-{number % _DEVICES}"}
    return row | {"Revision": 0, "WrittenAt": stamp} if numbered else row


def turn(method: str, count: int, bq: bigquery.Client) -> dict[str, float]:
    """Return a method's figures; the CPU of a pipeline that drops its rows is subtracted."""
    started, _ = run("nothing", count, bq)
    seconds, passed = run(method, count, bq)
    return {"us of CPU per row": (seconds - started) / count * 1e6, "rows/s": count / passed}


def main() -> None:
    """Measure, print, and write build/bench/writing.json."""
    logging.disable(logging.WARNING)
    with emulators.bigquery_emulator(PROJECT) as emulator:
        os.environ |= emulator.env
        bq = client(PROJECT)
        bq.create_dataset("bench")
        run("storage_write", 10, bq)  # imports, and the first connection
        turns = {method: partial(turn, method, count, bq) for method, count in _COUNTS.items()}
        found = take_turns(turns, 1 if QUICK else 7)
    rows: list[dict[str, Any]] = [{"method": method} for method in found]
    for heading in ("us of CPU per row", "rows/s"):
        figures = {method: [one[heading] for one in turns] for method, turns in found.items()}
        for row in rows:
            times = ratios(figures, row["method"], "streaming_inserts")
            row |= {heading: figures[row["method"]], f"{heading} / inserts": times}
    publish("writing", {"Writing rows": rows})


if __name__ == "__main__":
    main()
