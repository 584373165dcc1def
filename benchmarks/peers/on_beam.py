"""The shipped graph on Beam, in three ways; and plain Python without an engine.

shipped worker  Beam's own worker up to the first shuffle, in bundles of 1,000: what Dataflow runs and bills as CPU
                of a worker; the shuffle, the windows' state and the rest of the graph are not in it
shipped local   the whole graph to its rows and dead letters, on FnApiRunner; all messages in one bundle
shipped demo    the same on BundleBasedDirectRunner, which `make demo` runs on
loop            the checks written out for this load, sums and dead letters; no rows
"""

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.contenders import Contender, Outcome, job
from benchmarks.load import SENSORS, Load
from benchmarks.peers.engine import BATCH, Form, Sinks
from pipeline import graph

# Global because the steps below would pickle them.
_payloads: Sequence[bytes] = ()
_sinks = Sinks()


def _bundles(name: str, load: Load, sent: Sequence[tuple[float, bytes]]) -> tuple[Contender, list[Any]]:
    contender = Contender(name, load)
    return contender, [contender.prepare(sent[at : at + BATCH]) for at in range(0, len(sent), BATCH)]


def _up_to_shuffle(load: Load, prepared: tuple[Contender, list[Any]]) -> Callable[[], Outcome]:
    contender, bundles = prepared
    return partial(contender.outcome, [contender.run(bundle) for bundle in bundles])


def _to_rows(runner: str, load: Load, payloads: Sequence[bytes]) -> Callable[[], Outcome]:
    global _payloads, _sinks
    _payloads, _sinks = payloads, Sinks()
    source = beam.Impulse() | beam.FlatMap(_all_payloads).with_output_types(bytes)
    with beam.Pipeline(runner=runner, options=PipelineOptions(["--streaming"])) as pipeline:
        graph.build(pipeline, job(load), source, beam.FlatMap(_keep_row), beam.FlatMap(_keep_dead_letter))
    return _sinks.outcome


def _all_payloads(_: bytes) -> Sequence[bytes]:
    return _payloads


def _keep_row(row: dict[str, Any]) -> tuple[()]:
    start = int(datetime.fromisoformat(row["Timestamp"]).timestamp())
    means = {name: row[name] for name in SENSORS if row[name] is not None}
    _sinks.rows.append((start, row.get("Device") or "", means))
    return ()


def _keep_dead_letter(dead_letter: dict[str, Any]) -> tuple[()]:
    _sinks.dead_letters.append(base64.b64decode(dead_letter["payload"]))
    return ()


FORMS = {
    "shipped worker": Form(_up_to_shuffle, partial(_bundles, "shipped")),
    "shipped local": Form(partial(_to_rows, "FnApiRunner")),
    "shipped demo": Form(partial(_to_rows, "BundleBasedDirectRunner")),
    "loop": Form(_up_to_shuffle, partial(_bundles, "loop")),
}
