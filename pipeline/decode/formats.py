"""From the bytes of a message to documents: step one of two, for each `format`.

A reader takes the bytes and returns `Documents`; it raises `NotJson` or `BadFormat` for bytes that are not its format.
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

MAX_DECOMPRESSED = 10_000_000  # bytes, as large as a message may be that is not compressed
MAX_FORM_FIELDS = 10_000
_LOOKED_AT = 10  # lines, of what may be NDJSON
_LAYERS = 4  # of gzip, base64 and byte order marks
_GZIP, _BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"

Reader = Callable[[bytes], Documents]


def unwrapped(read: Reader, payload: bytes) -> Documents:
    """Return the documents of a message, decompressed and decoded from base64 as often as it takes.

    Raises:
      InvalidReading: it is none of these of the reader's format; of several reasons, the first.
    """
    reason: InvalidReading | None = None
    inner = payload
    for _ in range(_LAYERS):
        if inner.startswith(_GZIP):
            inner = decompressed(inner)
        elif inner.startswith(_BYTE_ORDER_MARK):
            inner = inner[len(_BYTE_ORDER_MARK) :]
        else:
            try:
                documents = read(inner)
                if not documents.one:
                    return documents
                [document] = documents
                if reason is None or isinstance(document, dict | list):  # else it is base64 only by chance
                    # Its bytes are the message's own, whatever they are wrapped in.
                    return OneDocument(document, payload)
            except (NotJson, BadFormat) as error:
                reason = reason or as_reason(error)
            decoded = from_base64(inner)
            if decoded is None:
                break
            inner = decoded
    raise as_reason(reason or BadFormat(f"wrapped more than {_LAYERS} times in gzip, base64 or byte order marks"))


def decompressed(payload: bytes) -> bytes:
    """Return what is in one or more gzip members.

    Raises:
      BadFormat: it is damaged, or more than MAX_DECOMPRESSED bytes.
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


def read_json(payload: bytes, arrays_whole: bool = False) -> Documents:
    """Return a JSON document, the items of an array, or either of each line.

    Args:
      payload: the bytes.
      arrays_whole: whether an array is one document.
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
            return Lines(_json_lines(payload, arrays_whole))
        raise why_not_json(error) from None
    if type(document) is not list or arrays_whole:
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
    """Return whether one of the first lines, of several, is an object or an array by itself."""
    lines = payload.split(b"\n", _LOOKED_AT)[:_LOOKED_AT]
    return len(lines) > 1 and any(type(_line(line.strip())) in (dict, list) for line in lines)


def _json_lines(payload: bytes, arrays_whole: bool) -> Iterator[tuple[Any, bytes]]:
    for line in io.BytesIO(payload):
        text = line.strip()
        if not text:
            continue
        document = _line(text)
        if type(document) is list and document and not arrays_whole:
            items = ArrayItems(document, text)
            for index, item in enumerate(items):
                yield item, items.own_bytes(index)
        else:
            yield document, text


def read_text(payload: bytes) -> Documents:
    """Return the text as the one document."""
    return OneDocument(_utf8(payload), payload)


def read_form(payload: bytes) -> Documents:
    """Return the fields of a URL-encoded form as one object; of a name that is there twice the last counts."""
    text = _utf8(payload).strip()
    if "=" not in text.rstrip("="):  # else it may be base64, which ends with them
        raise BadFormat("no form: no name=value")
    try:
        fields = urllib.parse.parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise BadFormat(f"no form: {error}") from None
    return OneDocument(dict(fields), payload)


def csv_reader(columns: Sequence[str]) -> Reader:
    """Return the reader of CSV with these columns; a column without a name is left out, an empty field is absent."""
    header = [name.strip() for name in columns]

    def read(payload: bytes) -> Documents:
        return Lines(_csv_rows(_utf8(payload), header))

    return read


def _csv_rows(text: str, header: list[str]) -> Iterator[tuple[Any, bytes]]:
    taken: list[str] = []  # the lines of the current row, of which a quoted field may have several

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
            yield BadFormat(f"no CSV: {error}"), "".join(taken).encode()
            continue
        if fields is None:
            return
        if fields and [field.strip() for field in fields] != header:
            document = {name: field or None for name, field in zip(header, fields, strict=False) if name}
            yield document, "".join(taken).rstrip("\r\n").encode()


def _utf8(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise BadFormat(f"not UTF-8: {error.reason} at byte {error.start}") from None
