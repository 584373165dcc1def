"""Converts values of sensors: JSON numbers; with `values=lenient` also numbers in text, with a unit, and booleans."""

import re
from collections.abc import Callable

from pipeline.decode.errors import BadValue
from pipeline.decode.json_types import json_type

# Texts, in upper or lower case, that sensors send when they have no value; Home Assistant sends some of them.
ABSENT_TEXTS = frozenset(["", "nan", "null", "unknown", "unavailable"])

_LONGEST_NUMBER = 64  # characters, with the unit
_DECIMAL = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?"
# Begins with a letter or a symbol; has single digits right after a letter, ^ or -, as in m3 or W·m-2; is not hex.
_UNIT = r"(?=[^\W\d_]|[%‰°'\"µ$€])(?!x[0-9A-Fa-f])(?:[^\W\d_]|[%‰°'\"µ$€²³/·*^ -]|(?<=[^\W\d_]|[\^-])[0-9](?![0-9]))*"
_PLAIN = re.compile(_DECIMAL).fullmatch
_WITH_UNIT = re.compile(rf"({_DECIMAL})\s*{_UNIT}").fullmatch

# Returns the value as a finite float, or None if it is absent; raises BadValue. The name is for the error.
ReadValue = Callable[[str, object], float | None]


def strict(name: str, value: object) -> float | None:
    """Return a JSON number as a float, and None for null.

    Raises:
      BadValue: the value is of another type, or too large for a 64-bit float.
    """
    if value is None:
        return None
    if type(value) is not int and type(value) is not float:
        raise no_number(name, value)
    return _finite(name, value)


def plain_text(name: str, value: object) -> float | None:
    """Return the number in a text, as `strict` does for a JSON number; for formats whose values are all text.

    Raises:
      BadValue: the text is not a decimal number, or too large for a 64-bit float.
    """
    if not isinstance(value, str):
        return strict(name, value)
    text = value.strip()
    if not text:
        return None
    if len(text) > _LONGEST_NUMBER or not _PLAIN(text):
        raise BadValue(f"{name} is text, not a number; values=lenient reads numbers with a unit")
    return _finite(name, float(text))


def lenient(name: str, value: object) -> float | None:
    """Return a number, a number in text with or without a unit, or a boolean as 0 or 1; None if absent.

    Raises:
      BadValue: the value is of another type, a text without a number at its start, or too large for a 64-bit float.
    """
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return strict(name, value)
    if len(value) > _LONGEST_NUMBER:
        raise BadValue(f"{name} is a text of more than {_LONGEST_NUMBER} characters, not a number")
    text = value.strip()
    if text.lower() in ABSENT_TEXTS:
        return None
    if _PLAIN(text):
        return _finite(name, float(text))
    found = _WITH_UNIT(text)
    if not found:
        raise BadValue(f"{name} is a text that is not a number")
    return _finite(name, float(found[1]))


def no_number(name: str, value: object) -> BadValue:
    """Return the error of a value of another type."""
    return BadValue(f"{name} is {json_type(value)}, not a number")


def too_large(name: str) -> BadValue:
    """Return the error of a number too large for a 64-bit float."""
    return BadValue(f"{name} is too large for a 64-bit float")


def _finite(name: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number in (float("inf"), float("-inf")):
        raise too_large(name)
    return number
