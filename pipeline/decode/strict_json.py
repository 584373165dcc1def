"""Reads and writes JSON as RFC 8259 defines it.

Python's json also writes and reads NaN and Infinity, which BigQuery, Pub/Sub subscribers and jq refuse, and guesses
UTF-16 and UTF-32 from the bytes.
"""

import json
import math
from typing import Any, NoReturn


def dumps(value: Any) -> str:
    """Return the JSON text of a value.

    Non-finite numbers become the texts "NaN", "Infinity" and "-Infinity", as in the JSON of BigQuery and of protocol
    buffers (https://protobuf.dev/programming-guides/json/); `float` reads them.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_spelled_out(value), allow_nan=False)


def loads(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
      ValueError: the text is not JSON in UTF-8.
    """
    return json.loads(text.decode(), parse_constant=_refuse)


def _spelled_out(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spelled_out(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(inner) for inner in value]
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
