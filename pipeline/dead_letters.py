"""Dead letters: rows of the table that holds every value, message or row that the pipeline could not use."""

import base64
import hashlib
import random
import time
from collections.abc import Mapping
from typing import Any

from pipeline.decode import strict_json
from pipeline.timestamps import rfc3339
from pipeline.version import VERSION

# Tag of the dead letters among the outputs of a step.
DEAD_LETTERS = "dead_letters"

# Characters of base64 in a part. A message of 10 MB, which Pub/Sub allows, exceeds as base64 the 10 MB that BigQuery
# allows for a row and for a request:
# https://cloud.google.com/bigquery/quotas#streaming_inserts
PART_SIZE = 6_000_000


def dead_letter(
    stage: str,
    error: str,
    message: str,
    payload: bytes,
    attributes: Mapping[str, str] | None = None,
    message_id: str | None = None,
    dead_letter_id: str | None = None,
    received_at: int | None = None,
    event_time: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Return a row for the dead-letter table (`tables.DEAD_LETTER_COLUMNS`).

    Args:
      stage: the stage that failed: decode, timestamp, validate, late, average, insert or silence.
      error: the name of the error, for grouping and alerting.
      message: a description of the error.
      payload: the bytes of the message, or the JSON of what was derived from messages.
      attributes: the message's attributes; only known with `keep_attributes`.
      message_id: the message's Pub/Sub id; only known with `keep_attributes`.
      dead_letter_id: by default a `new_id`.
      received_at: time of the failure, in microseconds since the epoch; by default now.
      event_time: RFC 3339, if known.
      device: if known and not empty.
    """
    return {
        "dead_letter_id": dead_letter_id or new_id(),
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
    """Return a unique id: 128 random bits, in hex."""
    return f"{random.getrandbits(128):032x}"


def derived_id(*identity: Any) -> str:
    """Return an id that is the same when a retried bundle creates the dead letter again: 128 bits of a digest, in hex.

    Args:
      identity: JSON values that identify the dead letter among all others, and do not differ between retries.
    """
    return hashlib.blake2b(strict_json.dumps(identity).encode(), digest_size=16).hexdigest()


def in_parts(dead_letter: dict[str, Any], size: int = PART_SIZE) -> list[dict[str, Any]]:
    """Return the dead letter as rows of at most `size` characters of base64 payload each, numbered in `part`."""
    payload = dead_letter["payload"]
    size = size // 4 * 4  # base64 of complete bytes, so that each part can be decoded alone
    chunks = [payload[start : start + size] for start in range(0, len(payload), size)] or [""]
    return [{**dead_letter, "payload": chunk, "part": n, "parts": len(chunks)} for n, chunk in enumerate(chunks, 1)]
