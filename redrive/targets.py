"""The targets to which dead letters are sent: a topic or a table."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.api_core.exceptions import ClientError, GoogleAPICallError, InvalidArgument
from google.api_core.retry import Retry
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient

from pipeline.decode import strict_json
from pipeline.decode.errors import BadTimestamp
from pipeline.decode.reading import TIMESTAMP
from pipeline.decode.timestamps import parse_timestamp
from pipeline.sinks.append_stream import shared_stream
from pipeline.sinks.bigquery import TableId
from pipeline.sinks.storage_write import CHANGE_COLUMNS, TYPES, Encoder
from pipeline.timestamps import rfc3339

# At the start BigQuery is retried for half a minute; the client's default of ten minutes would look like a hang.
START_RETRY = bigquery.DEFAULT_RETRY.with_timeout(30.0)

# Seconds for which a batch is retried while a service is unavailable; then the run ends with the cause.
RETRY_SECONDS = 120.0

# https://cloud.google.com/pubsub/quotas#resource_limits
MAX_ATTRIBUTES = 100

# Statuses with which BigQuery rejects a request because of one of its rows: invalid, or too large.
_BAD_ROW = (400, 413)


class DeadLetter(NamedTuple):
    """A dead letter to send; `claims` is the number of times that earlier runs claimed it."""

    id: str
    stage: str
    payload: bytes
    attributes: dict[str, str]
    claims: int

    @property
    def size(self) -> int:
        """The approximate number of bytes that it takes in a request."""
        attributes = sum(len(key.encode()) + len(value.encode()) for key, value in self.attributes.items())
        return len(self.payload) + attributes + 200


# Stores rows, or publishes messages, by the ids of their dead letters; returns the errors of rejected ones by id.
Store = Callable[[dict[str, dict[str, Any]]], dict[str, ClientError]]

# Sends dead letters and returns the errors of rejected ones by id.
Send = Callable[[Sequence[DeadLetter]], dict[str, ClientError]]


@dataclass(frozen=True)
class Target:
    """A topic or a table.

    Attributes:
      kind: topic or table.
      name: the name of the topic or table.
      send: sends dead letters and returns the errors of the rejected ones by id. Rejected ones were not
        stored, the others were. If it raises, any of them may have been stored.
    """

    kind: str
    name: str
    send: Send


def to_topic(topic: str, id_attribute: str | None, timestamp_attribute: str) -> Target:
    """Return the target of messages.

    Args:
      topic: projects/P/topics/T.
      id_attribute: the attribute that is set to the dead letter's id, or None.
      timestamp_attribute: the attribute that is set to the event time if the message's attributes were not kept.

    Raises:
      GoogleAuthError: there are no credentials.
    """
    publisher = PublisherClient()

    def publish(messages: dict[str, dict[str, Any]]) -> dict[str, ClientError]:
        try:
            as_dicts: list[Any] = list(messages.values())  # accepted by the client in place of PubsubMessages
            publisher.publish(topic=topic, messages=as_dicts, retry=Retry(timeout=RETRY_SECONDS))
        except InvalidArgument as error:
            return _in_halves(publish, messages, error)
        except ClientError as error:
            return dict.fromkeys(messages, error)
        return {}

    def send(dead_letters: Sequence[DeadLetter]) -> dict[str, ClientError]:
        return publish(
            {dead_letter.id: _message(dead_letter, id_attribute, timestamp_attribute) for dead_letter in dead_letters}
        )

    return Target("topic", topic, send)


def to_table(bq: bigquery.Client, table_id: TableId) -> Target:
    """Return the target of rows, or of changes if the table has a primary key.

    Raises:
      GoogleAPIError, GoogleAuthError, RequestException: the table does not exist, or BigQuery cannot be reached.
    """
    table = bq.get_table(table_id.reference, retry=START_RETRY)
    keyed = table.table_constraints is not None and table.table_constraints.primary_key is not None
    return Target("table", str(table_id), _rows(_upserts(table_id, table) if keyed else _inserts(bq, table)))


def _rows(store: Store) -> Send:
    """Return a function that sends dead letters as rows; it rejects those whose payload is not a row."""

    def send(dead_letters: Sequence[DeadLetter]) -> dict[str, ClientError]:
        rows: dict[str, dict[str, Any]] = {}
        rejected: dict[str, ClientError] = {}
        for dead_letter in dead_letters:
            try:
                row = strict_json.loads(dead_letter.payload)
            except (ValueError, RecursionError) as error:
                rejected[dead_letter.id] = InvalidArgument(f"its payload is not JSON: {error}")
                continue
            if isinstance(row, dict):
                rows[dead_letter.id] = row
            else:
                rejected[dead_letter.id] = InvalidArgument("its payload is JSON, but not a row")
        return rejected | (store(rows) if rows else {})

    return send


def _inserts(bq: bigquery.Client, table: bigquery.Table) -> Store:
    def store(rows: dict[str, dict[str, Any]]) -> dict[str, ClientError]:
        ids = list(rows)
        try:
            # BigQuery recognizes by their insertIds rows that are sent again after a lost response.
            retry = bigquery.DEFAULT_RETRY.with_timeout(RETRY_SECONDS)
            errors = bq.insert_rows_json(table, list(rows.values()), row_ids=ids, skip_invalid_rows=True, retry=retry)
        except GoogleAPICallError as error:
            if error.code in _BAD_ROW:
                return _in_halves(store, rows, InvalidArgument(error.message))
            if isinstance(error, ClientError):
                return dict.fromkeys(ids, error)
            raise
        return {ids[error["index"]]: InvalidArgument(strict_json.dumps(error["errors"])) for error in errors}

    return store


def _upserts(table_id: TableId, table: bigquery.Table) -> Store:
    """Return a function that writes changes with their original sequence numbers, so that newer rows win."""
    encoder = Encoder([*(column for column in table.schema if column.field_type in TYPES), *CHANGE_COLUMNS])
    stream = shared_stream(table_id, encoder.schema)

    def store(rows: dict[str, dict[str, Any]]) -> dict[str, ClientError]:
        rejected: dict[str, ClientError] = {}
        encoded: dict[str, bytes] = {}
        for dead_letter_id, row in rows.items():
            try:
                encoded[dead_letter_id] = encoder.encode(row)
            except (TypeError, ValueError) as error:
                rejected[dead_letter_id] = InvalidArgument(str(error))
        ids = list(encoded)
        errors = stream.store(list(encoded.values()), RETRY_SECONDS) if ids else {}
        return rejected | {ids[index]: InvalidArgument(f"{code}: {reason}") for index, (code, reason) in errors.items()}

    return store


def _in_halves(send: Store, items: dict[str, dict[str, Any]], error: ClientError) -> dict[str, ClientError]:
    """Send the two halves of a rejected request separately, because one bad item makes a service reject all of it."""
    if len(items) == 1:
        return dict.fromkeys(items, error)
    pairs, middle = list(items.items()), len(items) // 2
    return send(dict(pairs[:middle])) | send(dict(pairs[middle:]))


def _message(dead_letter: DeadLetter, id_attribute: str | None, timestamp_attribute: str) -> dict[str, Any]:
    # Pub/Sub reserves keys that begin with goog, and rejects them from publishers.
    attributes = {key: value for key, value in dead_letter.attributes.items() if not key.startswith("goog")}
    previous = attributes.get("redrive_attempt", "")
    attempt = int(previous) + 1 if re.fullmatch("[0-9]{1,9}", previous) else 1
    if id_attribute:
        attributes[id_attribute] = dead_letter.id
    if not dead_letter.attributes and (event_time := _event_time(dead_letter.payload)):
        attributes[timestamp_attribute] = event_time
    for name, value in (("dead_letter_id", dead_letter.id), ("redrive_attempt", str(attempt))):
        # The message's own attributes take precedence over those of redrive.
        if name in attributes or len(attributes) < MAX_ATTRIBUTES:
            attributes[name] = value
    return {"data": dead_letter.payload, "attributes": attributes}


def _event_time(payload: bytes) -> str | None:
    """Return the Timestamp of a message as RFC 3339, of an array the earliest; None if it cannot be read."""
    try:
        document = strict_json.loads(payload)
    except (ValueError, RecursionError):
        return None
    times = []
    for item in document if isinstance(document, list) else [document]:
        with suppress(BadTimestamp, OverflowError):
            times.append(rfc3339(parse_timestamp(item.get(TIMESTAMP) if isinstance(item, dict) else None)))
    return min(times, default=None)
