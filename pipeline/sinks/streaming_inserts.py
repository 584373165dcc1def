"""Where rows and dead letters end up: BigQuery tables, or the terminal when no table is named.

A sink of rows returns the dead letters of the rows it could not write; a sink of dead letters returns nothing.
"""

import base64
import logging
import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.bigquery import BigQueryDisposition, RetryStrategy, WriteToBigQuery
from apache_beam.io.gcp.pubsub import PubsubMessage, WriteToPubSub
from apache_beam.metrics import Metrics
from google.api_core.exceptions import GoogleAPICallError
from google.api_core.retry import Retry, if_exception_type
from google.auth.exceptions import TransportError
from google.cloud import bigquery
from requests.exceptions import RequestException

from pipeline.dead_letters import METRICS, dead_letter, derived_id, in_parts, new_id
from pipeline.decode import strict_json
from pipeline.decode.decoder import DEVICE, TIMESTAMP, parse_timestamp
from pipeline.rows import CHANGE_SEQUENCE_NUMBER, REVISION, WRITTEN_AT
from pipeline.silences import BACK_AT, NOTICED_AT, SILENT_SINCE
from pipeline.sinks.bigquery import TableId, TransientError, client

_LOGGER = logging.getLogger(__name__)


class BigQueryRows(beam.PTransform):
    """Appends rows to an existing table; returns a dead letter for each row that BigQuery refuses for good."""

    def __init__(self, table_id: TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return rows | "Insert" >> _Insert(self._table_id) | "ToDeadLetters" >> to_dead_letters()


class BigQueryDeadLetters(beam.PTransform):
    """Appends dead letters to an existing table; those BigQuery refuses for good go to the log, payload included."""

    def __init__(self, table_id: TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Apply the write."""
        return (
            letters
            | "InParts" >> beam.FlatMap(in_parts, MAX_PAYLOAD).with_output_types(Any)
            | "Insert" >> _Insert(self._table_id)
            | "Log" >> beam.FlatMap(log_dead_letter)
        )


class DeadLetters(beam.PTransform):
    """Hands dead letters to a sink and, if a topic is named, publishes them as well.

    A Reshuffle comes first, so that a retry writes the same dead letters, and none that a retry did not make again.

    On the topic the payload is the data; the other columns are attributes, followed by the message's own, within what
    Pub/Sub allows. A payload of more than MAX_PUBLISHED bytes leaves no room for them, and goes to the sink alone.
    """

    MAX_PUBLISHED = 9_000_000

    def __init__(self, sink: beam.PTransform, topic: str | None):
        super().__init__()
        self._sink = sink
        self._topic = topic

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Apply both."""
        letters |= "Reshuffle" >> beam.Reshuffle()
        if self._topic:
            messages = letters | "ToMessages" >> beam.FlatMap(to_messages).with_output_types(PubsubMessage)
            _ = messages | "Publish" >> WriteToPubSub(self._topic, with_attributes=True)
        return letters | "Store" >> self._sink


class Silences(beam.PTransform):
    """Hands silences to a sink of rows and, if a topic is named, publishes them as well.

    On the topic a silence is JSON, with the attributes `event`, which is silent or back, and `device` if it is one.
    Returns a dead letter of the stage silence for each that the sink could not write.

    A Reshuffle comes first: the bundle that notices a silence may be retried with a reading that prevents the silence.

    Args:
      sink: takes rows, returns dead letters.
      topic: to publish to, or None.
      revise: tell the sink by Revision which of the rows of a silence is to stay.
    """

    def __init__(self, sink: beam.PTransform, topic: str | None, revise: bool = False):
        super().__init__()
        self._sink = sink
        self._topic = topic
        self._revise = revise

    def expand(self, silences: beam.PCollection) -> beam.PCollection:
        """Apply both."""
        silences |= "Reshuffle" >> beam.Reshuffle()
        if self._topic:
            messages = silences | "ToMessages" >> beam.Map(silence_message).with_output_types(PubsubMessage)
            _ = messages | "Publish" >> WriteToPubSub(self._topic, with_attributes=True)
        if self._revise:
            silences |= "Revise" >> beam.Map(revision_of_silence).with_output_types(Any)
        unwritten = silences | "Store" >> self._sink
        return unwritten | "OfSilences" >> beam.Map(lambda letter: {**letter, "stage": "silence"})


class Reshuffled(beam.PTransform):
    """Hands rows to a sink of rows after a Reshuffle, so that it is only given what a retry cannot change."""

    def __init__(self, sink: beam.PTransform):
        super().__init__()
        self._sink = sink

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply both."""
        return rows | "Reshuffle" >> beam.Reshuffle() | "Store" >> self._sink


class PrintRows(beam.PTransform):
    """Prints each row to stdout as a line of JSON; never fails a row."""

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply the printing."""
        return rows | "Print" >> beam.FlatMap(_print_row)


class PrintDeadLetters(beam.PTransform):
    """Prints each dead letter to stderr as a line of JSON."""

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Apply the printing."""
        return letters | "Print" >> beam.FlatMap(_print_dead_letter)


class _Insert(beam.PTransform):
    """Streams dicts into a table; returns (destination, dict, errors) for those that failed for good."""

    def __init__(self, table_id: TableId):
        super().__init__()
        self._table_id = table_id

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return (
            rows
            | "Stream"
            >> WriteToBigQuery(
                str(self._table_id),
                method=WriteToBigQuery.Method.STREAMING_INSERTS,
                create_disposition=BigQueryDisposition.CREATE_NEVER,
                write_disposition=BigQueryDisposition.WRITE_APPEND,
                insert_retry_strategy=RetryStrategy.RETRY_NEVER,  # InsertClient has done it by then
                test_client=InsertClient(self._table_id.project),
            )
        ).failed_rows_with_errors


class InsertClient:
    """The one call that WriteToBigQuery makes, with retries that neither give up nor hold up.

    Beam's own strategies see the HTTP phrase of a failed request rather than BigQuery's reason, retry a bad row along
    with the good ones, and give up, or end the bundle, when an outage outlasts the client library's ten minutes.

    Whatever may pass by itself (no connection, a server error, a quota) is retried until it has passed, with the same
    insertIds, by which BigQuery recognises a row that it has stored already. Whatever will not pass is returned as the
    rows' errors, with BigQuery's own reason.

    Clients do not pickle, so the real one is made where it runs.
    """

    def __init__(self, project: str):
        self._project = project
        self._client: bigquery.Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_project": self._project, "_client": None}

    def insert_rows_json(
        self, table: str, json_rows: list[dict], row_ids: list[str], **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Insert rows; returns [{"index": position, "errors": [{"reason", "message"}]}] of those refused for good."""
        self._client = self._client or client(self._project)
        insert = self._client.insert_rows_json
        waiting = list(range(len(json_rows)))
        refused: list[dict[str, Any]] = []

        def insert_waiting() -> None:
            rows, ids = [json_rows[i] for i in waiting], [row_ids[i] for i in waiting]
            try:
                failures = insert(table, rows, row_ids=ids, retry=None, **kwargs)
            except (RequestException, TransportError) as error:
                raise TransientError(str(error)) from None
            except GoogleAPICallError as error:
                errors = [{"reason": _reason(error), "message": error.message}]
                if error.code in _TRANSIENT_STATUS or _reason(error) in _TRANSIENT_REASONS:
                    raise TransientError(str(error)) from None
                failures = [{"index": i, "errors": errors} for i in range(len(rows))]
            failed = {waiting[failure["index"]]: failure["errors"] for failure in failures}
            transient = [i for i, errors in failed.items() if any(e["reason"] in _TRANSIENT_REASONS for e in errors)]
            refused.extend({"index": i, "errors": errors} for i, errors in failed.items() if i not in transient)
            waiting[:] = transient
            if waiting:
                raise TransientError(f"{len(waiting)} rows: {failed[waiting[0]]}")

        RETRY_TRANSIENT(insert_waiting)()
        return refused


# Characters of base64. A message can have 10 MB, and so can an insert request, base64 included.
# https://cloud.google.com/bigquery/quotas#streaming_inserts
MAX_PAYLOAD = 6_000_000


def _reason(error: GoogleAPICallError) -> str:
    return error.errors[0]["reason"] if error.errors else type(error).__name__


def _log_retry(error: Exception) -> None:
    _LOGGER.warning("BigQuery does not take rows for now, trying again: %s", error)


RETRY_TRANSIENT = Retry(
    predicate=if_exception_type(TransientError), initial=0.2, maximum=30.0, timeout=None, on_error=_log_retry
)

# https://cloud.google.com/bigquery/docs/error-messages: those that a streaming insert can outwait.
_TRANSIENT_STATUS = frozenset([408, 429, 500, 502, 503, 504])
_TRANSIENT_REASONS = frozenset(
    ["backendError", "internalError", "quotaExceeded", "rateLimitExceeded", "tableUnavailable", "timeout", "stopped"]
)


def to_dead_letters() -> beam.PTransform:
    """Return the transform from (table, row, errors) to the dead letters of rows that BigQuery rejected for good."""
    return beam.Map(failed_row_to_dead_letter, new_id())


def failed_row_to_dead_letter(failed: tuple[str, dict[str, Any], Any], job: str) -> dict[str, Any]:
    """Return the dead letter of (table, row, errors); `job` makes its id differ from those of other jobs."""
    table, row, errors = failed
    # Beam itself refuses a row beyond the size of a request, in words instead of a list.
    error = errors[0]["reason"] if isinstance(errors, list) else "RowTooLarge"
    Metrics.counter(METRICS, "insert_failures").inc()
    payload = strict_json.dumps(row).encode()
    event_time = row.get(TIMESTAMP) or row[SILENT_SINCE]
    return dead_letter(
        "insert",
        error,
        strict_json.dumps(errors),
        payload,
        letter_id=derived_id(job, table, _without_attempt(row)),
        event_time=event_time,
        device=row.get(DEVICE),
    )


def _without_attempt(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without the time at which it was made, which differs when its bundle is retried."""
    same = {name: value for name, value in row.items() if name != WRITTEN_AT}
    if CHANGE_SEQUENCE_NUMBER in same:
        same[CHANGE_SEQUENCE_NUMBER] = same[CHANGE_SEQUENCE_NUMBER].rpartition("/")[0]
    return same


def to_messages(letter: dict[str, Any]) -> list[PubsubMessage]:
    """Return the letter as a Pub/Sub message, or nothing if its payload is too large for one."""
    payload = base64.b64decode(letter["payload"])
    if len(payload) > DeadLetters.MAX_PUBLISHED:
        return []
    attributes = {key: value for key, value in letter.items() if key != "payload" and isinstance(value, str)}
    for own in letter["attributes"]:
        # Keys that begin so are Pub/Sub's: https://cloud.google.com/pubsub/quotas#resource_limits
        if len(attributes) < 100 and own["key"] not in attributes and not own["key"].lower().startswith("goog"):
            attributes[own["key"]] = own["value"]
    return [
        PubsubMessage(
            payload, {key: value.encode()[:1024].decode(errors="ignore") for key, value in attributes.items()}
        )
    ]


def revision_of_silence(silence: dict[str, Any]) -> dict[str, Any]:
    """Return the silence with its Revision, 0 until it is over and more the earlier it was over, and WrittenAt."""
    back = silence[BACK_AT]
    revision = _LATEST - parse_timestamp(back) if back else 0
    return {**silence, REVISION: revision, WRITTEN_AT: silence[NOTICED_AT]}


# The year 10000, in microseconds.
_LATEST = 253_402_300_800_000_000


def silence_message(silence: dict[str, Any]) -> PubsubMessage:
    """Return the silence as a Pub/Sub message."""
    attributes = {"event": "back" if silence[BACK_AT] else "silent"}
    if silence[DEVICE]:
        # https://cloud.google.com/pubsub/quotas#resource_limits
        attributes["device"] = silence[DEVICE].encode()[:1024].decode(errors="ignore")
    return PubsubMessage(strict_json.dumps(silence).encode(), attributes)


def log_dead_letter(failed: tuple[str, dict[str, Any], Any]) -> Iterator[None]:
    """Write (table, dead letter, errors) to the log, since BigQuery refused it for good; yields nothing."""
    _, letter, errors = failed
    Metrics.counter(METRICS, "dead_letter_failures").inc()
    _LOGGER.error("dead letter not written (%s): %s", strict_json.dumps(errors), strict_json.dumps(letter))
    yield from ()


def _print_row(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    print(strict_json.dumps(row), flush=True)
    yield from ()


def _print_dead_letter(letter: dict[str, Any]) -> Iterator[None]:
    print(strict_json.dumps(letter), file=sys.stderr, flush=True)
    yield from ()
