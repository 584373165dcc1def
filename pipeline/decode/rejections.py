"""Collects the rejections of messages, a bounded number for each message."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.decode.documents import Documents
from pipeline.decode.errors import InvalidReading, Rejection, TooManyRefused, as_reason
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.decode.strict_json import dumps

# Dead letters of one message. One more counts and holds all further items, because a message of 10 MB, Pub/Sub's limit,
# may have five million.
MAX_REJECTIONS = 1_000

# Characters of a rejection's reason.
MAX_REASON = 1_000

# Bytes of the array that holds all further items; for a longer message, the length of the message.
_MIN_CAPACITY = 1_000_000

# Characters of a value, time or device in canonical form. Longer ones are invalid, and still are when cut.
_LONGEST = 1_100


# By column: the value as it was sent, and why it is invalid.
BadValues = dict[str, tuple[Any, InvalidReading]]


def canonical(timestamp: Any, device: Any, columns: Mapping[str, Any]) -> bytes:
    """Return values with their time and device as a message that every decoder reads, whatever its mapping.

    Values longer than any valid one are cut, because a thousand values may share one time or device.
    """
    fields = {TIMESTAMP: timestamp, DEVICE: device, **columns}
    return dumps({name: _excerpt(value) for name, value in fields.items()}).encode()


def _excerpt(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST]
    if isinstance(value, dict | list):
        try:
            return value if len(dumps(value)) <= _LONGEST else type(value)()
        except RecursionError:
            return type(value)()
    return value


class _Mark(NamedTuple):
    """The state to which `undo` returns."""

    rejections: int
    left: int
    others: int
    held: int
    errors: Counter[str]


class Rejections:
    """Collects rejections: up to MAX_REJECTIONS for each message, and one for all others.

    Args:
      into: the list that rejections are added to.

    Attributes:
      message: the index of the message whose rejections are being collected.
    """

    def __init__(self, into: list[Rejection]):
        self._into = into
        self.message = -1

    def begin(self, message: int, payload: bytes, documents: Documents) -> None:
        """Start collecting rejections of this message, unless that has been done."""
        if message == self.message:
            return
        self.end()
        self.message = message
        self._documents = documents
        # If an array cannot be split, its first rejection holds all items.
        self._left = MAX_REJECTIONS if documents.splits else 1
        self._capacity = max(len(payload), _MIN_CAPACITY)
        self._others = bytearray()
        self._held = 0
        self._errors: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether the message has MAX_REJECTIONS, so that the next is only counted."""
        return self._left == 0

    def add(self, index: int, error: Exception, errors: Mapping[str, int] | None = None) -> None:
        """Add the rejection of a document, with its own bytes.

        Args:
          index: the index of the document in the message.
          error: the reason.
          errors: the number of rejected parts of the document, by the name of their error; by default one part.
        """
        reason = as_reason(error)
        name = type(reason).__name__
        if self.full:
            self.count([self._documents.own_bytes(index)], {name: 1})
            return
        self._append(index, reason, str(reason), self._documents.own_bytes(index), dict(errors or {name: 1}))

    def add_part(self, index: int, error: Exception, timestamp: Any, device: Any, columns: Mapping[str, Any]) -> None:
        """Add the rejection of a part of a document, in canonical form."""
        reason = as_reason(error)
        name = type(reason).__name__
        if not self.full:
            part = canonical(timestamp, device, columns)
            self._append(index, reason, f"{reason}; the payload is its canonical form", part, {name: 1})
            return
        self._errors[name] += 1
        if len(self._others) < self._capacity:
            self._hold([canonical(timestamp, device, columns)])

    def mark(self) -> "_Mark":
        """Return the state to which `undo` returns."""
        return _Mark(len(self._into), self._left, len(self._others), self._held, self._errors.copy())

    def undo(self, mark: "_Mark") -> Counter[str]:
        """Remove what was added after `mark`; return the number of parts it stood for, by the name of their error."""
        errors = self._errors - mark.errors
        for rejection in self._into[mark.rejections :]:
            errors.update(rejection.errors)
        del self._into[mark.rejections :], self._others[mark.others :]
        self._left, self._held, self._errors = mark.left, mark.held, mark.errors
        return errors

    def add_values(self, index: int, timestamp: Any, device: str, bad: BadValues) -> None:
        """Add a rejection for each invalid value of a reading that has valid ones."""
        for name, (value, reason) in bad.items():
            self.add_part(index, reason, timestamp, device or None, {name: value})

    def _append(self, index: int, reason: InvalidReading, words: str, payload: bytes, errors: dict[str, int]) -> None:
        self._left -= 1
        if not self._documents.is_single:
            words = f"item {index}: {words}"
        # A new exception, because the traceback of a raised one keeps all messages of its batch in memory.
        self._into.append(Rejection(type(reason)(words[:MAX_REASON]), payload, self.message, errors))

    def count(self, items: Sequence[bytes], errors: Mapping[str, int]) -> None:
        """Count documents for the one rejection of all others, and hold their bytes if there is room.

        Args:
          items: the bytes of each.
          errors: how many there are, by the name of their error.
        """
        self._errors.update(errors)
        if self._documents.splits:
            self._hold(items)

    def _hold(self, items: Sequence[bytes]) -> None:
        joined = b",".join(items)
        if len(self._others) + len(joined) >= self._capacity:
            # As many as there is room for.
            for item in items if len(items) > 1 else ():
                self._hold([item])
        elif items:
            self._others += b"," if self._others else b""
            self._others += joined
            self._held += len(items)

    def end(self) -> None:
        """Add one rejection for all items of the last message that were only counted."""
        if self.message < 0 or not self._errors:
            return
        by_error = ", ".join(f"{count} {error}" for error, count in self._errors.most_common())
        total = self._errors.total()
        held = "the array of them" if self._held == total else f"the array of the first {self._held} of them"
        words = f"{total} more items were refused: {by_error}; the payload is {held}"
        rejection = Rejection(TooManyRefused(words), b"[" + self._others + b"]", self.message, dict(self._errors))
        self._into.append(rejection)
