"""SenML packs (https://www.rfc-editor.org/rfc/rfc8428), base fields resolved.

A pack becomes one document, the list of its records as `{"n":..,"name":..,"device":..,"t":..,"v":..}`: the record's own
name, that with the base name, the base name, seconds since the epoch, and the value, whatever its type.
"""

from typing import Any

import msgspec

from pipeline.decode.documents import Documents, OneDocument
from pipeline.decode.errors import BadFormat, NotJson
from pipeline.decode.json_text import loads

_RELATIVE_BELOW = 2**28  # seconds; smaller times are relative to now (RFC 8428, section 4.5.3)
_VERSION = 10  # of the known fields (section 4.4)


def read_senml(payload: bytes, now: int) -> Documents:
    """Return the resolved records of a pack, as one document.

    Args:
      payload: a JSON array of records.
      now: the time that relative times refer to, in microseconds since the epoch.

    Raises:
      NotJson, BadFormat: the payload is not a SenML pack.
    """
    try:
        pack = loads(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(str(error)) from None
    records = pack if isinstance(pack, list) else [pack]
    if not records or not all(isinstance(record, dict) for record in records):
        raise BadFormat("not a SenML pack: expected an array of records")
    return OneDocument(_resolved(records, now), payload)


def _resolved(records: list[dict[str, Any]], now: int) -> list[dict[str, Any]]:
    base: dict[str, Any] = {}
    resolved = []
    for record in records:
        base |= {name: record[name] for name in ("bn", "bt", "bu", "bv", "bver") if record.get(name) is not None}
        version = base.get("bver", _VERSION)
        if not isinstance(version, int | float) or version > _VERSION:
            raise BadFormat(f"not a SenML pack of a known version, up to {_VERSION}")
        prefix, own = base.get("bn", ""), record.get("n", "")
        if not isinstance(prefix, str) or not isinstance(own, str):
            raise BadFormat("not a SenML pack: a name is not text")
        document = {
            "n": own,
            "name": prefix + own,
            "device": prefix or None,
            "t": _time(record, base, now),
            "v": _value(record, base),
            "u": record.get("u", base.get("bu")),
        }
        resolved.append(document)
    return resolved


def _value(record: dict[str, Any], base: dict[str, Any]) -> Any:
    value = next((record[name] for name in ("v", "vb", "vs", "vd") if record.get(name) is not None), None)
    if "bv" not in base or any(record.get(name) is not None for name in ("vb", "vs", "vd")):
        return value
    return _sum(0 if value is None else value, base["bv"])


def _time(record: dict[str, Any], base: dict[str, Any], now: int) -> Any:
    time = _sum(record.get("t") or 0, base.get("bt", 0))
    return time + now / 1_000_000 if isinstance(time, int | float) and time < _RELATIVE_BELOW else time


def _sum(own: Any, base: Any) -> Any:
    """Return the sum of two numbers; otherwise the term that is not a number, which the decoder rejects."""
    for term in (own, base):
        if not isinstance(term, int | float) or isinstance(term, bool):
            return term
    return own + base
