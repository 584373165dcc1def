"""Ours: the shipped graph on Beam, in three ways; and plain Python without any engine.

shipped worker  Beam's own worker up to the first shuffle, in bundles of 1,000: what Dataflow runs and bills as CPU
                of a worker; the shuffle, the windows' state and the rest of the graph are not in it
shipped local   the whole graph to its rows and dead letters, on FnApiRunner; all messages in one bundle
shipped demo    the same on BundleBasedDirectRunner, which `make demo` runs on
loop            the checks written out for just this load, and sums in a dict; neither rows nor dead letters
"""

import base64
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.contenders import Contender
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.peers.engine import BATCH, Form, Job, Outcome, Rows
from pipeline import graph, options

# Read and written by the steps below; in the pipeline itself they would be pickled with it.
_payloads: Sequence[bytes] = ()
_rows: list[dict[str, Any]] = []
_dead_letters: list[dict[str, Any]] = []


def _up_to_shuffle(name: str) -> Form:
    def prepare(load: Load, sent: Sequence[tuple[float, bytes]]) -> Job:
        contender = Contender(name, load)
        bundles = contender.prepare([sent[at : at + BATCH] for at in range(0, len(sent), BATCH)])

        def run() -> None:
            for bundle in bundles:
                contender.run(bundle)

        def finish(_: None) -> Outcome:
            result = contender.result(bundles)
            return Outcome(result.rows or {}, result.bad or 0, None)

        return Job(run, finish)

    return prepare


def _to_rows(runner: str) -> Form:
    def prepare(load: Load, sent: Sequence[tuple[float, bytes]]) -> Job:
        logging.disable(logging.WARNING)
        by_device = str(load.by_device).lower()
        job, _ = options.parse(
            [
                "--input_topic=projects/bench-project/topics/readings",
                f"--interval={INTERVAL}s",
                f"--sensors={','.join(SENSORS)}",
                f"--group_by_device={by_device}",
            ]
        )
        payloads = [data for _, data in sent]

        def run() -> None:
            global _payloads  # noqa: PLW0603
            _payloads = payloads
            _rows.clear()
            _dead_letters.clear()
            with beam.Pipeline(runner=runner, options=PipelineOptions(["--streaming"])) as pipeline:
                graph.build(pipeline, job, _Source(), _RowSink(), _DeadLetterSink())

        def finish(_: None) -> Outcome:
            return Outcome(_as_rows(), len(_dead_letters), [base64.b64decode(one["payload"]) for one in _dead_letters])

        return Job(run, finish)

    return prepare


def _as_rows() -> Rows:
    rows: Rows = {}
    for row in _rows:
        key = (int(datetime.fromisoformat(row["Timestamp"]).timestamp()), row.get("Device") or "")
        if key in rows:
            raise AssertionError("an interval has two rows")
        rows[key] = {name: row[name] for name in SENSORS if row[name] is not None}
    return rows


class _Source(beam.PTransform):
    def expand(self, begin: Any) -> beam.PCollection:
        return begin | beam.Impulse() | beam.FlatMap(_all_payloads).with_output_types(bytes)


class _RowSink(beam.PTransform):
    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return rows | beam.FlatMap(_keep_row).with_output_types(Any)


class _DeadLetterSink(beam.PTransform):
    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        return letters | beam.Map(_keep_dead_letter)


def _all_payloads(_: bytes) -> Sequence[bytes]:
    return _payloads


def _keep_row(row: dict[str, Any]) -> tuple[()]:
    _rows.append(row)
    return ()


def _keep_dead_letter(letter: dict[str, Any]) -> None:
    _dead_letters.append(letter)


DISTRIBUTION = "apache-beam"
FORMS: dict[str, Form] = {
    "shipped worker": _up_to_shuffle("shipped"),
    "shipped local": _to_rows("FnApiRunner"),
    "shipped demo": _to_rows("BundleBasedDirectRunner"),
    "loop": _up_to_shuffle("loop"),
}
