"""Single Avro records of a topic's schema, as Pub/Sub delivers them.

Pub/Sub sets attributes that name the schema, its revision and the encoding, but does not send the schema itself
(https://cloud.google.com/pubsub/docs/schemas#message-metadata). JSON can be read without it; for BINARY it is fetched
from the schema service, once per revision and worker.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from pipeline.decode.bounded_cache import BoundedCache
from pipeline.decode.documents import Documents, OneDocument
from pipeline.decode.errors import BadFormat, NotJson
from pipeline.decode.json_text import loads

SCHEMA_NAME, SCHEMA_REVISION = "googclient_schemaname", "googclient_schemarevisionid"
SCHEMA_ENCODING = "googclient_schemaencoding"
ATTRIBUTES = (SCHEMA_NAME, SCHEMA_REVISION, SCHEMA_ENCODING)

_MOST_SCHEMAS = 100  # revisions remembered
# How a union's branch is named in Avro's JSON encoding, and the types its value may have.
_BRANCHES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "bytes": (str,),
    "string": (str,),
}

# Takes the name of a schema and the id of a revision, and returns the schema's text; raises BadFormat if there is none
# and never will be, and any other exception if it should be tried again.
FetchSchema = Callable[[str, str], str]


class AvroReader:
    """Reads records by the attributes of their messages.

    Args:
      fetch: returns the text of a schema.
    """

    def __init__(self, fetch: FetchSchema):
        self._schemas: BoundedCache[tuple[str, str], Any] = BoundedCache(
            lambda key: _parsed(fetch(*key)), _MOST_SCHEMAS
        )

    def read(self, payload: bytes, attributes: Mapping[str, str]) -> Documents:
        """Return the record.

        Raises:
          NotJson, BadFormat: it is no record of the schema, or the schema cannot be had.
        """
        encoding = attributes.get(SCHEMA_ENCODING)
        if encoding == "JSON":
            try:
                return OneDocument(_without_unions(loads(payload)), payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise NotJson(str(error)) from None
        if encoding != "BINARY":
            raise BadFormat(f"no attribute {SCHEMA_ENCODING} with BINARY or JSON, which a topic with a schema sets")
        schema = self._schemas[attributes.get(SCHEMA_NAME, ""), attributes.get(SCHEMA_REVISION, "")]
        stream = io.BytesIO(payload)
        import fastavro  # noqa: PLC0415, not in the dashboard's image

        try:
            record = fastavro.schemaless_reader(stream, schema, None)
        except Exception as error:  # of a dozen types
            raise BadFormat(f"no record of the topic's schema: {type(error).__name__}: {error}") from None
        if stream.tell() < len(payload):
            raise BadFormat("no record of the topic's schema: more bytes than the record has")
        return OneDocument(_plain(record), payload)


def _parsed(text: str) -> Any:
    import fastavro  # noqa: PLC0415, not in the dashboard's image

    try:
        schema = json.loads(text)
        _check(schema, frozenset())
        return fastavro.parse_schema(_without_times(schema))
    except BadFormat:
        raise
    except Exception as error:
        raise BadFormat(f"the topic's schema cannot be parsed: {type(error).__name__}: {error}") from None


def _check(schema: Any, within: frozenset[str]) -> bool:
    """Return whether a value of a schema may take no byte at all.

    Raises:
      BadFormat: a few bytes could then stand for endless items, or an item could hold itself.
    """
    if isinstance(schema, list):
        for branch in schema:
            _check(branch, within)
        return False
    if isinstance(schema, str):
        if schema in within:
            raise BadFormat(f"the topic's schema is recursive: {schema}")
        return schema == "null"
    kind, empty = schema.get("type"), False
    if kind in ("record", "error"):
        inside = within | {schema.get("name", "")}
        fields = [_check(field["type"], inside) for field in schema.get("fields", [])]
        empty = all(fields)
    elif kind in ("array", "map"):
        if _check(schema.get("items") or schema.get("values"), within) and kind == "array":
            raise BadFormat("the topic's schema has arrays of items without a byte")
    elif kind == "fixed":
        empty = schema.get("size") == 0
    elif kind != "enum":
        empty = _check(kind, within)
    return empty


def _without_times(schema: Any) -> Any:
    """Return the schema without logical types of times, so that these stay the numbers they are."""
    if isinstance(schema, list):
        return [_without_times(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    timed = "time" in str(schema.get("logicalType", ""))
    return {name: _without_times(inner) for name, inner in schema.items() if not (timed and name == "logicalType")}


def _plain(value: Any) -> Any:
    """Return a record with JSON's types only."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _without_unions(value: Any) -> Any:
    """Return a record in which a value of a nullable field is itself, and not `{"double": 21.4}`."""
    if isinstance(value, dict):
        if len(value) == 1:
            [(name, inner)] = value.items()
            if type(inner) in _BRANCHES.get(name, ()):
                return inner
        return {name: _without_unions(inner) for name, inner in value.items()}
    return [_without_unions(inner) for inner in value] if isinstance(value, list) else value
