"""Dead letters, and where they go back to: a topic or a table."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.api_core.exceptions import ClientError, GoogleAPICallError, InvalidArgument
from google.api_core.retry import Retry
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient

from pipeline.dead_letters import rfc3339
from pipeline.decode import strict_json
from pipeline.decode.decoder import TIMESTAMP, BadTimestamp, parse_timestamp
from pipeline.sinks.append_stream import shared_stream
from pipeline.sinks.bigquery import TableId
from pipeline.sinks.storage_write import CHANGE_COLUMNS, TYPES, Encoder

# At first BigQuery is tried for half a minute; the client's own ten minutes would look like a hang.
IMPATIENT = bigquery.DEFAULT_RETRY.with_timeout(30.0)

# Seconds for which a batch is sent again to a service that is unavailable, before the run ends with the cause.
RETRY_SECONDS = 120.0

# https://cloud.google.com/pubsub/quotas#resource_limits
MOST_ATTRIBUTES = 100

# Statuses by which BigQuery refuses a request for what one of its rows holds: invalid, or too large.
_BAD_ROW = (400, 413)


class Letter(NamedTuple):
    """A dead letter to send; `claims` counts the earlier attempts to send it."""

    id: str
    stage: str
    payload: bytes
    attributes: dict[str, str]
    claims: int

    @property
    def size(self) -> int:
        """About the bytes it takes in a request."""
        attributes = sum(len(key.encode()) + len(value.encode()) for key, value in self.attributes.items())
        return len(self.payload) + attributes + 200


# Stores rows, or publishes messages, by the ids of their dead letters; returns the refused ones' errors by id.
Store = Callable[[dict[str, dict[str, Any]]], dict[str, ClientError]]

# Sends dead letters and returns the refused ones' errors by id.
Send = Callable[[Sequence[Letter]], dict[str, ClientError]]


@dataclass(frozen=True)
class Target:
    """Where letters go back to.

    Attributes:
      kind: topic or table.
      name: of the topic or table.
      send: sends letters and returns the refused ones' errors by id; the others arrived, the refused certainly did not.
        When it raises, any of them may have arrived.
    """

    kind: str
    name: str
    send: Send


def to_topic(topic: str, id_attribute: str | None, timestamp_attribute: str) -> Target:
    """Return the target of messages; raises GoogleAuthError."""
    publisher = PublisherClient()

    def publish(messages: dict[str, dict[str, Any]]) -> dict[str, ClientError]:
        try:
            publisher.publish(topic=topic, messages=list(messages.values()), retry=Retry(timeout=RETRY_SECONDS))
        except InvalidArgument as error:
            return _in_halves(publish, messages, error)
        except ClientError as error:
            return dict.fromkeys(messages, error)
        return {}

    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        return publish({letter.id: _message(letter, id_attribute, timestamp_attribute) for letter in letters})

    return Target("topic", topic, send)


def to_table(bq: bigquery.Client, table_id: TableId) -> Target:
    """Return the target of rows, or of changes if it has a key; raises NotFound and whatever else BigQuery answers."""
    table = bq.get_table(table_id.reference, retry=IMPATIENT)
    keyed = table.table_constraints is not None and table.table_constraints.primary_key is not None
    return Target("table", str(table_id), _rows(_upserts(table_id, table) if keyed else _inserts(bq, table)))


def _rows(store: Store) -> Send:
    """Return what sends dead letters as rows; one whose payload is not a row is refused by itself."""

    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        rows: dict[str, dict[str, Any]] = {}
        refused: dict[str, ClientError] = {}
        for letter in letters:
            try:
                row = strict_json.loads(letter.payload)
            except (ValueError, RecursionError) as error:
                refused[letter.id] = InvalidArgument(f"its payload is not JSON: {error}")
                continue
            if isinstance(row, dict):
                rows[letter.id] = row
            else:
                refused[letter.id] = InvalidArgument("its payload is JSON, but not a row")
        return refused | (store(rows) if rows else {})

    return send


def _inserts(bq: bigquery.Client, table: bigquery.Table) -> Store:
    def store(rows: dict[str, dict[str, Any]]) -> dict[str, ClientError]:
        ids = list(rows)
        try:
            # By insertId BigQuery knows a request that is tried again because its answer was lost.
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
    """Changes keep the sequence number that they failed with, so what a job has written since wins over them."""
    encoder = Encoder([*(column for column in table.schema if column.field_type in TYPES), *CHANGE_COLUMNS])
    stream = shared_stream(table_id, encoder.schema)

    def store(rows: dict[str, dict[str, Any]]) -> dict[str, ClientError]:
        refused: dict[str, ClientError] = {}
        encoded: dict[str, bytes] = {}
        for letter_id, row in rows.items():
            try:
                encoded[letter_id] = encoder.encode(row)
            except (TypeError, ValueError) as error:
                refused[letter_id] = InvalidArgument(str(error))
        ids = list(encoded)
        errors = stream.store(list(encoded.values()), RETRY_SECONDS) if ids else {}
        return refused | {ids[index]: InvalidArgument(f"{code}: {words}") for index, (code, words) in errors.items()}

    return store


def _in_halves(send: Store, items: dict[str, dict[str, Any]], error: ClientError) -> dict[str, ClientError]:
    """Send what was refused as one request in two: a single bad item has the others of its request refused too."""
    if len(items) == 1:
        return dict.fromkeys(items, error)
    pairs, middle = list(items.items()), len(items) // 2
    return send(dict(pairs[:middle])) | send(dict(pairs[middle:]))


def _message(letter: Letter, id_attribute: str | None, timestamp_attribute: str) -> dict[str, Any]:
    # Keys that begin with goog are Pub/Sub's own, and refused from anyone else.
    attributes = {key: value for key, value in letter.attributes.items() if not key.startswith("goog")}
    before = attributes.get("redrive_attempt", "")
    attempt = int(before) + 1 if re.fullmatch("[0-9]{1,9}", before) else 1
    if id_attribute:
        attributes[id_attribute] = letter.id
    if not letter.attributes and (event_time := _event_time(letter.payload)):
        attributes[timestamp_attribute] = event_time
    for name, value in (("dead_letter_id", letter.id), ("redrive_attempt", str(attempt))):
        # The message's own attributes matter more than what redrive adds.
        if name in attributes or len(attributes) < MOST_ATTRIBUTES:
            attributes[name] = value
    return {"data": letter.payload, "attributes": attributes}


def _event_time(payload: bytes) -> str | None:
    """Return the Timestamp of a message as RFC 3339, of an array the earliest one; None if there is none to read."""
    try:
        document = strict_json.loads(payload)
    except (ValueError, RecursionError):
        return None
    times = []
    for item in document if isinstance(document, list) else [document]:
        with suppress(BadTimestamp, OverflowError):
            times.append(rfc3339(parse_timestamp(item.get(TIMESTAMP) if isinstance(item, dict) else None)))
    return min(times, default=None)
