"""The one envelope for whatever cannot become part of a row, from every stage."""

import base64
import hashlib
import random
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pipeline.decode import strict_json
from pipeline.version import VERSION

# Namespace of the job's own metrics.
METRICS = "sensor_stream"

# Tag of the dead letters among the outputs of a step.
DEAD_LETTERS = "dead_letters"

_EPOCH = datetime(1970, 1, 1)


def dead_letter(
    stage: str,
    error: str,
    message: str,
    payload: bytes,
    attributes: Mapping[str, str] | None = None,
    message_id: str | None = None,
    letter_id: str | None = None,
    received_at: int | None = None,
    event_time: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Return a row for the dead-letter table (`tables.DEAD_LETTER_COLUMNS`).

    Args:
      stage: where it failed: decode, timestamp, validate, late, average, insert or silence.
      error: the name of the error, fit for grouping and alerting.
      message: the error in words, for a person.
      payload: the bytes that failed; a message's own, or the JSON of what was made from it.
      attributes: the message's attributes; only kept with `keep_attributes`.
      message_id: Pub/Sub's id; only kept with `keep_attributes`.
      letter_id: its id; by default a `new_id`.
      received_at: when it failed, microseconds since the epoch, if that is not now.
      event_time: RFC 3339, where known.
      device: where known and not empty.
    """
    return {
        "dead_letter_id": letter_id or new_id(),
        "part": 1,
        "parts": 1,
        "event_time": event_time,
        "received_at": rfc3339(received_at or int(time.time() * 1_000_000)),
        "stage": stage,
        "error": error,
        "message": message,
        "payload": base64.b64encode(payload).decode("ascii"),
        "attributes": [{"key": key, "value": value} for key, value in sorted((attributes or {}).items())],
        "message_id": message_id,
        "device": device or None,
        "pipeline_version": VERSION,
    }


def new_id() -> str:
    """Return an id that no other letter has: 128 random bits, in hex."""
    return f"{random.getrandbits(128):032x}"


def derived_id(*identity: Any) -> str:
    """Return the id of a dead letter that is made again when its bundle is retried: 128 bits of a digest, in hex.

    Args:
      identity: JSON values that the letter has after every retry, and that no other letter has.
    """
    return hashlib.blake2b(strict_json.dumps(identity).encode(), digest_size=16).hexdigest()


def in_parts(letter: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Return the letter as rows of at most `most` characters of base64 payload each, numbered in `part`."""
    payload = letter["payload"]
    size = most // 4 * 4  # base64 of whole bytes, so that each part decodes by itself
    chunks = [payload[start : start + size] for start in range(0, len(payload), size)] or [""]
    return [{**letter, "payload": chunk, "part": n, "parts": len(chunks)} for n, chunk in enumerate(chunks, 1)]


def rfc3339(micros: int) -> str:
    """Return microseconds since the epoch as BigQuery reads a TIMESTAMP, e.g. 2026-11-22T13:00:00.000000Z."""
    return f"{(_EPOCH + timedelta(microseconds=micros)).isoformat(timespec='microseconds')}Z"
