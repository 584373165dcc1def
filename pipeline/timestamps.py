"""Timestamps as the pipeline writes them."""

from datetime import datetime, timedelta

_EPOCH = datetime(1970, 1, 1)


def rfc3339(micros: int) -> str:
    """Return microseconds since the epoch as BigQuery reads a TIMESTAMP, e.g. 2026-11-22T13:00:00.000000Z."""
    return f"{(_EPOCH + timedelta(microseconds=micros)).isoformat(timespec='microseconds')}Z"
