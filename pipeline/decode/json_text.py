"""Parses JSON, and JSON within text."""

import binascii
import math
import re
from typing import Any

import msgspec

_TOO_LARGE = 10**400
_MAX_LAYERS = 3  # of JSON within text within JSON
_BASE64_BYTES = re.compile(rb"[A-Za-z0-9+/_-]{2,}={0,2}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _float(text: str) -> float:
    """Return a float, or an integer too large for one, so that only this value is rejected and not the document."""
    number = float(text)
    return number if math.isfinite(number) else int(math.copysign(1, number)) * _TOO_LARGE


_parse = msgspec.json.Decoder().decode
_parse_large = msgspec.json.Decoder(float_hook=_float).decode


def loads(text: bytes | str | msgspec.Raw) -> Any:
    """Return the value of a JSON text.

    Raises:
      msgspec.DecodeError, UnicodeDecodeError, RecursionError: the text is not JSON, or is nested too deeply.
    """
    try:
        return _parse(text)
    except msgspec.ValidationError:
        return _parse_large(text)


def container(value: object) -> dict[str, Any] | list[Any] | None:
    """Return a value that is an object or a list, or a text with the JSON of one, also in base64; otherwise None."""
    for _ in range(_MAX_LAYERS):
        if isinstance(value, dict | list):
            return value
        if not isinstance(value, str):
            return None
        value = _loaded(value.strip())
    return value if isinstance(value, dict | list) else None


def _loaded(text: str) -> Any:
    try:
        if text[:1] in ("{", "[", '"'):
            return loads(text)
        decoded = from_base64(text.encode())
        return loads(decoded) if decoded else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def from_base64(text: bytes) -> bytes | None:
    """Return the bytes that a text encodes in base64, in either alphabet, padded or not; None if it is not base64."""
    stripped = text.strip()
    if not _BASE64_BYTES.fullmatch(stripped):
        return None
    standard = stripped.rstrip(b"=").translate(_URL_SAFE)
    try:
        return binascii.a2b_base64(standard + b"=" * (-len(standard) % 4))
    except binascii.Error:
        return None
