"""Dead letters, and where they go back to: a topic or a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.api_core.exceptions import ClientError, InvalidArgument
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient

from pipeline import strict_json
from pipeline.append_stream import shared_stream
from pipeline.bigquery import TableId
from pipeline.storage_write import CHANGE_COLUMNS, TYPES, Encoder

# At first BigQuery is tried for half a minute; the client's own ten would look like a hang.
IMPATIENT = bigquery.DEFAULT_RETRY.with_timeout(30.0)


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
        return len(self.payload) + sum(len(key) + len(value) for key, value in self.attributes.items()) + 200


# Sends letters and returns the refused ones' errors by id.
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


def to_topic(topic: str, id_attribute: str | None) -> Target:
    """Return the target of messages; raises GoogleAuthError."""
    publisher = PublisherClient()

    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        try:
            publisher.publish(topic=topic, messages=[_message(letter, id_attribute) for letter in letters])
        except InvalidArgument as error:
            if len(letters) == 1:
                return {letters[0].id: error}
            # A single bad message has the whole request refused: halve it until that one is alone.
            middle = len(letters) // 2
            return send(letters[:middle]) | send(letters[middle:])
        except ClientError as error:
            return {letter.id: error for letter in letters}
        return {}

    return Target("topic", topic, send)


def to_table(bq: bigquery.Client, table_id: TableId) -> Target:
    """Return the target of rows, or of changes if it has a key; raises NotFound and whatever else BigQuery answers."""
    table = bq.get_table(table_id.reference, retry=IMPATIENT)
    keyed = table.table_constraints is not None and table.table_constraints.primary_key is not None
    return Target("table", str(table_id), _upserts(table_id, table) if keyed else _inserts(bq, table))


def _inserts(bq: bigquery.Client, table: bigquery.Table) -> Send:
    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        rows, ids = [strict_json.loads(letter.payload) for letter in letters], [letter.id for letter in letters]
        try:
            # By insertId BigQuery knows a request that is tried again because its answer was lost.
            errors = bq.insert_rows_json(table, rows, row_ids=ids, skip_invalid_rows=True)
        except ClientError as error:
            return dict.fromkeys(ids, error)
        return {ids[error["index"]]: InvalidArgument(strict_json.dumps(error["errors"])) for error in errors}

    return send


def _upserts(table_id: TableId, table: bigquery.Table) -> Send:
    """Changes keep the sequence number that they failed with, so what a job has written since wins over them."""
    encoder = Encoder([*(column for column in table.schema if column.field_type in TYPES), *CHANGE_COLUMNS])
    stream = shared_stream(table_id, encoder.schema)

    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        refused: dict[str, ClientError] = {}
        encoded = {}
        for letter in letters:
            try:
                encoded[letter.id] = encoder.encode(strict_json.loads(letter.payload))
            except (TypeError, ValueError) as error:
                refused[letter.id] = InvalidArgument(str(error))
        ids = list(encoded)
        errors = stream.store(list(encoded.values()))
        return refused | {ids[index]: InvalidArgument(f"{code}: {words}") for index, (code, words) in errors.items()}

    return send


def _message(letter: Letter, id_attribute: str | None) -> dict[str, Any]:
    # Keys that begin with goog are Pub/Sub's own, and refused from anyone else.
    kept = {key: value for key, value in letter.attributes.items() if not key.startswith("goog")}
    before = kept.get("redrive_attempt", "")
    attempt = int(before) + 1 if before.isdecimal() else 1
    own_id = {id_attribute: letter.id} if id_attribute else {}
    return {
        "data": letter.payload,
        "attributes": kept | own_id | {"redrive_attempt": str(attempt), "dead_letter_id": letter.id},
    }
