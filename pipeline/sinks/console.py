"""Rows and dead letters on the terminal, when no table is named."""

import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from pipeline.decode import strict_json


class PrintRows(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[Any]]):
    """Prints each row to stdout as a line of JSON; rejects no row."""

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return rows | "Print" >> beam.FlatMap(_print_row).with_output_types(Any)


class PrintDeadLetters(beam.PTransform[beam.PCollection[dict[str, Any]], beam.PCollection[None]]):
    """Prints each dead letter to stderr as a line of JSON."""

    def expand(self, dead_letters: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return dead_letters | "Print" >> beam.FlatMap(_print_dead_letter)


def _print_row(row: dict[str, Any]) -> Iterator[Any]:
    print(strict_json.dumps(row), flush=True)
    yield from ()


def _print_dead_letter(dead_letter: dict[str, Any]) -> Iterator[None]:
    print(strict_json.dumps(dead_letter), file=sys.stderr, flush=True)
    yield from ()
