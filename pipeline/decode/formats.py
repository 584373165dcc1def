"""Parses the bytes of a message to documents, for each `format`: the first of two steps of decoding.

A reader takes the bytes and returns `Documents`; it raises `NotJson` or `BadFormat` for bytes in another format.
"""

import csv
import io
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from pipeline.decode.documents import ArrayItems, Documents, Lines, OneDocument, raw_items
from pipeline.decode.errors import BadFormat, BadValue, InvalidReading, NotAReading, NotJson, as_reason
from pipeline.decode.json_text import from_base64, loads

MAX_DECOMPRESSED = 10_000_000  # bytes; a message without compression may be as large
MAX_FORM_FIELDS = 10_000
_SAMPLED_LINES = 10  # parsed to recognize NDJSON
_MAX_LAYERS = 4  # of gzip, base64 and byte order marks
_GZIP, _BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"

Reader = Callable[[bytes], Documents]


def unwrapped(read: Reader, payload: bytes) -> Documents:
    """Return the documents of a message, after removing any layers of gzip, base64 and byte order marks.

    Raises:
      InvalidReading: no layer is in the reader's format. If `read` raised several errors, this is the first one.
    """
    reason: InvalidReading | None = None
    inner = payload
    for _ in range(_MAX_LAYERS):
        if inner.startswith(_GZIP):
            inner = decompressed(inner)
        elif inner.startswith(_BYTE_ORDER_MARK):
            inner = inner[len(_BYTE_ORDER_MARK) :]
        else:
            try:
                documents = read(inner)
                if not documents.is_single:
                    return documents
                [document] = documents
                if reason is None or isinstance(document, dict | list):  # a scalar in base64 is a coincidence
                    # Rejections hold the message as it was sent, with all layers.
                    return OneDocument(document, payload)
            except (NotJson, BadFormat) as error:
                reason = reason or as_reason(error)
            decoded = from_base64(inner)
            if decoded is None:
                break
            inner = decoded
    raise as_reason(reason or BadFormat(f"wrapped more than {_MAX_LAYERS} times in gzip, base64 or byte order marks"))


def decompressed(payload: bytes) -> bytes:
    """Return the content of one or more gzip members.

    Raises:
      BadFormat: the gzip data is damaged or incomplete, or its content is longer than MAX_DECOMPRESSED bytes.
    """
    found = bytearray()
    while payload:
        member = zlib.decompressobj(wbits=31)  # gzip, with its header and checksum
        try:
            found += member.decompress(payload, MAX_DECOMPRESSED + 1 - len(found))
        except zlib.error as error:
            raise BadFormat(f"damaged gzip: {error}") from None
        if len(found) > MAX_DECOMPRESSED:
            raise BadFormat(f"gzip of more than {MAX_DECOMPRESSED:,} bytes")
        if not member.eof:
            raise BadFormat("gzip that ends too early")
        payload = member.unused_data
    return bytes(found)


def read_json(payload: bytes, array_is_document: bool = False) -> Documents:
    """Return a JSON document, or the items of an array; for NDJSON, those of all lines.

    Args:
      payload: the bytes.
      array_is_document: whether an array is a single document.
    """
    try:
        document = loads(payload)
    except msgspec.ValidationError as error:  # a number with thousands of digits
        items = raw_items(payload)
        return (
            ArrayItems([_line(item) for item in items], payload) if items else OneDocument(why_not_json(error), payload)
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _is_ndjson(payload):
            return Lines(_json_lines(payload, array_is_document))
        raise why_not_json(error) from None
    if type(document) is not list or array_is_document:
        return OneDocument(document, payload)
    if not document:
        raise NotAReading("an empty array holds no reading")
    return ArrayItems(document, payload)


def why_not_json(error: Exception) -> InvalidReading:
    """Return the reason for an exception of a JSON parser."""
    if isinstance(error, msgspec.ValidationError):
        return BadValue("a number is too large for a 64-bit float")
    return NotJson(str(error))


def _line(text: bytes | msgspec.Raw) -> Any:
    try:
        return loads(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return why_not_json(error)


def _is_ndjson(payload: bytes) -> bool:
    """Return whether the text has several lines, and one of the first is a JSON object or array."""
    lines = payload.split(b"\n", _SAMPLED_LINES)[:_SAMPLED_LINES]
    return len(lines) > 1 and any(type(_line(line.strip())) in (dict, list) for line in lines)


def _json_lines(payload: bytes, array_is_document: bool) -> Iterator[tuple[Any, bytes]]:
    for line in io.BytesIO(payload):
        text = line.strip()
        if not text:
            continue
        document = _line(text)
        if type(document) is list and document and not array_is_document:
            items = ArrayItems(document, text)
            for index, item in enumerate(items):
                yield item, items.own_bytes(index)
        else:
            yield document, text


def read_text(payload: bytes) -> Documents:
    """Return the text as a single document."""
    return OneDocument(utf8_text(payload), payload)


def read_form(payload: bytes) -> Documents:
    """Return the fields of a URL-encoded form as one object; if a name is repeated, its last value counts."""
    text = utf8_text(payload).strip()
    if "=" not in text.rstrip("="):  # base64 may end with equal signs
        raise BadFormat("not a form: no name=value")
    try:
        fields = urllib.parse.parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise BadFormat(f"not a form: {error}") from None
    return OneDocument(dict(fields), payload)


def csv_reader(columns: Sequence[str]) -> Reader:
    """Return a reader of CSV with these columns; it skips columns without a name, and empty fields are absent."""
    header = [name.strip() for name in columns]

    def read(payload: bytes) -> Documents:
        return Lines(_csv_rows(utf8_text(payload), header))

    return read


def _csv_rows(text: str, header: list[str]) -> Iterator[tuple[Any, bytes]]:
    taken: list[str] = []  # lines of the current row; a quoted field may have line breaks

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    rows = csv.reader(lines(), skipinitialspace=True)
    while True:
        taken.clear()
        try:
            fields = next(rows, None)
        except csv.Error as error:
            yield BadFormat(f"not CSV: {error}"), "".join(taken).encode()
            continue
        if fields is None:
            return
        if fields and [field.strip() for field in fields] != header:
            document = {name: field or None for name, field in zip(header, fields, strict=False) if name}
            yield document, "".join(taken).rstrip("\r\n").encode()


def utf8_text(payload: bytes) -> str:
    """Return the text that is encoded in UTF-8.

    Raises:
      BadFormat: the payload is not UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise BadFormat(f"not UTF-8: {error.reason} at byte {error.start}") from None
