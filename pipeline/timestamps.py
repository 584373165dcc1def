"""Timestamps as the pipeline writes them."""

from datetime import datetime, timedelta

_EPOCH = datetime(1970, 1, 1)


def rfc3339(micros: int) -> str:
    """Return a time in microseconds since the epoch as RFC 3339, for example 2026-11-22T13:00:00.000000Z.

    Raises:
      OverflowError: the time is not of the years 1 to 9999.
    """
    return f"{(_EPOCH + timedelta(microseconds=micros)).isoformat(timespec='microseconds')}Z"
