"""Writes to BigQuery that are retried until they succeed."""

import logging

from google.api_core.retry import Retry, if_exception_type

from pipeline.errors import SensorStreamError

_LOGGER = logging.getLogger(__name__)


class TransientError(SensorStreamError):
    """A write failed, and a retry may succeed; its rows may or may not be stored."""


def _log_retry(error: Exception) -> None:
    _LOGGER.warning("BigQuery did not accept a write, retrying: %s", error)


# Without a timeout: while BigQuery is unavailable, rows wait in the job.
RETRY_TRANSIENT = Retry(
    predicate=if_exception_type(TransientError), initial=0.2, maximum=30.0, timeout=None, on_error=_log_retry
)
