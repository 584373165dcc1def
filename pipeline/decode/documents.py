"""The documents of one message, with the original bytes of each."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


class Documents(Protocol):
    """The documents of one message, with an `InvalidReading` in place of each unreadable one; iterate over them once.

    Attributes:
      is_single: whether the message is one document.
    """

    is_single: bool

    def __iter__(self) -> Iterator[Any]:
        """Yield the documents."""

    @property
    def splits(self) -> bool:
        """Whether each document has its own bytes; if not, `own_bytes` returns the bytes of all documents."""

    def own_bytes(self, index: int) -> bytes:
        """Return the bytes of the document that was yielded last, whose index is `index`."""


class OneDocument:
    """A message that is one document; its bytes are the message's own, compressed or not."""

    is_single = splits = True

    def __init__(self, document: Any, payload: bytes):
        self._document = document
        self._payload = payload

    def __iter__(self) -> Iterator[Any]:
        yield self._document

    def own_bytes(self, index: int) -> bytes:
        """Return the message."""
        return self._payload


class ArrayItems:
    """The items of a JSON array, and the text of the array."""

    is_single = False

    def __init__(self, items: list[Any], text: bytes):
        self._items = items
        self._text = text
        self._raw: list[msgspec.Raw] | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    @property
    def splits(self) -> bool:
        """Whether the text can be split into its items."""
        if self._raw is None:
            self._raw = raw_items(self._text)
        return len(self._raw) > 0

    def own_bytes(self, index: int) -> bytes:
        """Return the item as it was written."""
        return bytes(self._raw[index]) if self._raw or (self.splits and self._raw) else self._text


class Lines:
    """Documents that each take one or more lines.

    Args:
      pairs: yields (document, its own bytes).
    """

    is_single, splits = False, True

    def __init__(self, pairs: Iterable[tuple[Any, bytes]]):
        self._pairs = pairs
        self._current = b""

    def __iter__(self) -> Iterator[Any]:
        for document, own in self._pairs:
            self._current = own
            yield document

    def own_bytes(self, index: int) -> bytes:
        """Return the line."""
        return self._current


def raw_items(payload: bytes) -> list[msgspec.Raw]:
    """Return the unparsed items of a JSON array; none if the payload is not an array, or is nested too deeply."""
    try:
        return _RAW_ITEMS.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return []
