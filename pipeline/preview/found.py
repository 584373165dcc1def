"""The paths that exist in documents, with what is there."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pipeline.decode.avro import FetchSchema
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import InvalidReading, SchemaUnavailable
from pipeline.decode.formats import unwrapped
from pipeline.decode.json_text import container
from pipeline.decode.mapped import reader_for
from pipeline.decode.mapping import Mapping
from pipeline.decode.paths import MAX_LENGTH, MAX_STEPS

MAX_DOCUMENTS = 20  # of a message; all are alike in most
_MAX_PATHS = 500
_MAX_ITEMS = 20  # of a list
_MAX_VISITS = 20_000
_MAX_NAME = 200  # characters of a key
_LONGEST_STEP = _MAX_NAME + len("['']")
_BARE = re.compile(r"[^\s.:,|~/=\[\]()'\"*?$@]+").fullmatch

# By path, what is there in one document after the other; of lists, in their items.
Found = dict[str, list[Any]]


def documents(data: bytes, envelope: Envelope, mapping: Mapping, fetch_schema: FetchSchema | None) -> list[Any]:
    """Return the first documents of a message by the format of a mapping; none if it is not of that format."""
    read = reader_for(mapping, fetch_schema)
    found = []
    try:
        for document in unwrapped(lambda inner: read(inner, envelope), data):
            if not isinstance(document, InvalidReading):
                found.append(document)
            if len(found) == MAX_DOCUMENTS:
                break
    except (InvalidReading, SchemaUnavailable, ValueError, RecursionError):
        pass
    return found


def find(documents: Iterable[Any]) -> Found:
    """Return the paths to all values that are neither objects nor lists, in the order of the first document."""
    found: Found = {}
    visits = 0
    for document in documents:
        pending: list[tuple[str, int, Any]] = [("", 0, document)]
        while pending and visits < _MAX_VISITS:
            visits += 1
            path, steps, value = pending.pop()
            inner = container(value)
            if inner is None:
                if path in found or len(found) < _MAX_PATHS:
                    found.setdefault(path or "$", []).append(value)
            elif steps < MAX_STEPS and len(path) <= MAX_LENGTH - _LONGEST_STEP:
                pending += reversed([(path + step, steps + 1, member) for step, member in _members(inner, not path)])
    return found


def _members(value: dict[str, Any] | list[Any], first: bool) -> Iterator[tuple[str, Any]]:
    """Yield (step, value) of the first members of an object, or items of a list."""
    if isinstance(value, dict):
        for name, member in islice(value.items(), _MAX_PATHS):
            if len(name) <= _MAX_NAME and (step := _step(name, first)):
                yield step, member
        return
    walked = any(isinstance(item, dict | list) for item in value)
    for index, item in enumerate(value[:_MAX_ITEMS]):
        yield "[*]" if walked else f"[{index}]", item


def _step(name: str, first: bool) -> str | None:
    """Return the step to a member; None for a name that a path, or the parameter it is in, cannot have."""
    if not name.isprintable() or "\\" in name or ("'" in name and '"' in name):
        return None
    if _BARE(name):
        return name if first else f".{name}"
    return f'["{name}"]' if "'" in name else f"['{name}']"
