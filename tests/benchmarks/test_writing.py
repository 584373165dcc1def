"""The benchmark of write methods counts nothing that was not stored."""

import pytest

from benchmarks import writing
from benchmarks.frame import DifferentRows
from pipeline.sinks.bigquery import client


@pytest.fixture
def bq(bigquery_emulator, bigquery_storage, monkeypatch):
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator)
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", bigquery_storage)
    made = client(writing.PROJECT)
    made.create_dataset("bench")
    yield made
    made.delete_dataset("bench", delete_contents=True)


def test_run_stores_each_row_once_with_every_method(bq):
    for method in writing.METHODS:
        cpu, passed = writing.run(method, 150, bq)
        assert cpu > 0
        assert passed > 0


def test_run_raises_when_rows_are_lost(bq, monkeypatch):
    monkeypatch.setitem(writing.METHODS, "storage_write", writing.METHODS["nothing"])
    with pytest.raises(DifferentRows, match="0 of 10 rows"):
        writing.run("storage_write", 10, bq)
