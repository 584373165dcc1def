"""Reads single Avro records of a topic's schema, as Pub/Sub delivers them.

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

_MAX_SCHEMAS = 100  # revisions in the cache
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

# Takes the name of a schema and the id of a revision, and returns the schema's text; raises BadFormat if there is no
# such schema, and any other exception if the call should be retried.
FetchSchema = Callable[[str, str], str]


class AvroReader:
    """Reads records by the attributes of their messages.

    Args:
      fetch: returns the text of a schema.
    """

    def __init__(self, fetch: FetchSchema):
        self._schemas: BoundedCache[tuple[str, str], Any] = BoundedCache(lambda key: _parsed(fetch(*key)), _MAX_SCHEMAS)

    def read(self, payload: bytes, attributes: Mapping[str, str]) -> Documents:
        """Return the record.

        Raises:
          NotJson, BadFormat: the payload is not a record of the schema, or the schema cannot be fetched.
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
        except Exception as error:  # fastavro raises a dozen types
            raise BadFormat(f"not a record of the topic's schema: {type(error).__name__}: {error}") from None
        if stream.tell() < len(payload):
            raise BadFormat("not a record of the topic's schema: more bytes than the record has")
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
    """Return whether values of a schema may take no bytes.

    Raises:
      BadFormat: the schema is recursive, or has arrays of items that take no bytes, so that a few bytes could stand for
        any number of items.
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
            raise BadFormat("the topic's schema has arrays of items that take no bytes")
    elif kind == "fixed":
        empty = schema.get("size") == 0
    elif kind != "enum":
        empty = _check(kind, within)
    return empty


def _without_times(schema: Any) -> Any:
    """Return the schema without logical types of times, so that times are read as numbers."""
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
    """Return a record with 21.4 in place of `{"double": 21.4}`, as Avro's JSON has values of nullable fields."""
    if isinstance(value, dict):
        if len(value) == 1:
            [(name, inner)] = value.items()
            if type(inner) in _BRANCHES.get(name, ()):
                return inner
        return {name: _without_unions(inner) for name, inner in value.items()}
    return [_without_unions(inner) for inner in value] if isinstance(value, list) else value
