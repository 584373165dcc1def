"""Fixtures of the sinks' tests."""

from collections.abc import Iterator

import pytest

from tests.pipeline.fake_bigquery import FakeBigQuery, fake_bigquery


@pytest.fixture
def inserts(monkeypatch) -> Iterator[FakeBigQuery]:
    """A BigQuery that takes streaming inserts."""
    with fake_bigquery() as fake:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", fake.host)
        yield fake
