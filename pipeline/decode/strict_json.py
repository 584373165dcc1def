"""JSON as RFC 8259 has it.

Python's json also writes and reads NaN and Infinity, which BigQuery, Pub/Sub subscribers and jq refuse, and guesses
UTF-16 and UTF-32 from the bytes.
"""

import json
import math
from typing import Any, NoReturn


def dumps(value: Any) -> str:
    """Return the JSON text of a value.

    What is no JSON number becomes the text "NaN", "Infinity" or "-Infinity", as in BigQuery's own JSON and in that of
    protocol buffers (https://protobuf.dev/programming-guides/json/); `float` reads it.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_spelled_out(value), allow_nan=False)


def loads(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
      ValueError: it is none.
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
