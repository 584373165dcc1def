"""Documents of one message, and the bytes that each of them was."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


class Documents(Protocol):
    """The documents of one message, to be iterated over once; an `InvalidReading` in place of one that is unreadable.

    Attributes:
      one: whether the message is one document.
    """

    one: bool

    def __iter__(self) -> Iterator[Any]:
        """Yield the documents."""

    @property
    def splits(self) -> bool:
        """Whether each document has bytes of its own; if not, `own_bytes` are those of all."""

    def own_bytes(self, index: int) -> bytes:
        """Return the bytes of the document that was yielded last, which is number `index` from 0 on."""


class OneDocument:
    """A message that is one document; its bytes are the message's own, compressed or not."""

    one = splits = True

    def __init__(self, document: Any, payload: bytes):
        self._document = document
        self._payload = payload

    def __iter__(self) -> Iterator[Any]:
        yield self._document

    def own_bytes(self, index: int) -> bytes:
        """Return the message."""
        return self._payload


class ArrayItems:
    """The items of a JSON array, and the text of it."""

    one = False

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
        return bytes(self._raw[index]) if self.splits and self._raw else self._text


class Lines:
    """Documents that are a line each, or a few.

    Args:
      pairs: (document, its own bytes) in turn.
    """

    one, splits = False, True

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
    """Return the items of an array unparsed; nothing if it is no array, or one that is nested too deeply."""
    try:
        return _RAW_ITEMS.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return []
