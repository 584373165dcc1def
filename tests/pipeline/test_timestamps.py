"""Timestamps as the pipeline writes them."""

import pytest

from pipeline.timestamps import rfc3339


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_795_352_400_250_001, "2026-11-22T13:00:00.250001Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_rfc3339_formats_microseconds_as_bigquery_reads_them(micros, text):
    assert rfc3339(micros) == text
