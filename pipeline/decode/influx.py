"""InfluxDB line protocol (https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/).

A line becomes `{"name":..,"tags":{..},"fields":{..},"timestamp":..}`, as in Telegraf's JSON. The timestamp is
the number in the line, nanoseconds by default. A line without a time has no `timestamp`.
"""

import re
from collections.abc import Iterator
from typing import Any

from pipeline.decode.documents import Documents, Lines
from pipeline.decode.errors import BadFormat
from pipeline.decode.formats import utf8_text

_NAME = r"(?:[^\s,=\\]|\\.)+"  # of a tag or field, or a tag's value; a backslash escapes commas, equal signs and blanks
_MEASUREMENT = r"(?:[^\s,\\]|\\.)+"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_FIELD = rf'{_NAME}=(?:{_TEXT}|[^\s,"]+)'
# Quoted text may have line breaks, so lines are found by what they consist of.
_LINE = re.compile(
    rf"({_MEASUREMENT})((?:,{_NAME}={_NAME})*)[ ]+({_FIELD}(?:,{_FIELD})*)(?:[ ]+(-?[0-9]{{1,20}}))?[ \t]*(?:\r?\n|$)",
    re.DOTALL,
)
_BLANK_OR_COMMENT = re.compile(r"(?:[ \t]*(?:#[^\n]*)?(?:\r?\n|$))")
_TAGS = re.compile(rf",({_NAME})=({_NAME})", re.DOTALL)
_FIELDS = re.compile(rf'({_NAME})=(?:({_TEXT})|([^\s,"]+))', re.DOTALL)
_ESCAPED = re.compile(r"\\([,= \\])")
_ESCAPED_IN_TEXT = re.compile(r'\\(["\\])')
_INTEGER = re.compile(r"-?[0-9]{1,20}[iu]").fullmatch
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?").fullmatch
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")
_BOOLEANS = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}
_EXPECTED = "not line protocol: expected MEASUREMENT,TAG=VALUE FIELD=VALUE TIME"


def read_influx(payload: bytes) -> Documents:
    """Return the lines of line protocol.

    Raises:
      BadFormat: the payload is not UTF-8, or has no blank, which every line needs.
    """
    text = utf8_text(payload)
    if " " not in text.strip():
        raise BadFormat(_EXPECTED)
    return Lines(_lines(text))


def _lines(text: str) -> Iterator[tuple[Any, bytes]]:
    at = 0
    while at < len(text):
        skipped = _BLANK_OR_COMMENT.match(text, at)
        if skipped and skipped.end() > at:
            at = skipped.end()
            continue
        found = _LINE.match(text, at)
        if found:
            end = found.end()
            yield _point(found), found[0].strip().encode()
        else:
            end = text.find("\n", at) + 1 or len(text)
            yield BadFormat(_EXPECTED), text[at:end].strip().encode()
        at = end


def _point(line: re.Match[str]) -> Any:
    measurement, tags, fields, time = line.groups()
    try:
        values = {_unescaped(name): _value(quoted, bare) for name, quoted, bare in _FIELDS.findall(fields)}
    except ValueError as error:
        return BadFormat(f"not line protocol: {error}")
    point = {
        "name": _unescaped(measurement),
        "tags": {_unescaped(name): _unescaped(value) for name, value in _TAGS.findall(tags)},
        "fields": values,
    }
    return {**point, "timestamp": int(time)} if time else point


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _value(quoted: str, bare: str) -> str | float | bool:
    if quoted:
        return _ESCAPED_IN_TEXT.sub(r"\1", quoted[1:-1])
    if bare in _BOOLEANS:
        return _BOOLEANS[bare]
    if _INTEGER(bare):
        return int(bare[:-1])
    if _FLOAT(bare):
        return float(bare)
    raise ValueError("a field is neither a number, a boolean nor quoted text")
