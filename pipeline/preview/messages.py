"""The messages to preview: the lines of a file, or some that a subscription has."""

import base64
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from google.api_core.exceptions import DeadlineExceeded, GoogleAPIError, NotFound, PermissionDenied
from google.cloud import pubsub_v1

from pipeline.decode.errors import BadTimestamp
from pipeline.decode.timestamps import parse_timestamp
from pipeline.errors import SensorStreamError
from pipeline.launch import one_line, preflight
from pipeline.launch.credentials import credentials_problem

MAX_LINE = 20_000_000  # bytes; a message has at most 10 MB, and base64 of it a third more
PULLED = 10  # messages of a subscription
_TIMEOUT_SECONDS = 10.0  # for all of them
_MORE_SECONDS = 1.0  # for those after the first

_FIELDS = frozenset(["data", "encoding", "attributes", "publish_time"])
_MILLISECONDS = re.compile(r"\d{1,15}", re.ASCII).fullmatch


class InputError(SensorStreamError):
    """The file or the subscription cannot be read; the message is one line that says why."""


class Message(NamedTuple):
    """A message as Pub/Sub has it.

    Attributes:
      place: where it was found, such as `line 3`.
      data: its bytes.
      attributes: its attributes.
      publish_time: in microseconds since the epoch.
    """

    place: str
    data: bytes
    attributes: dict[str, str]
    publish_time: int

    def event_time(self, attribute: str | None) -> int:
        """Return its event time: that of an attribute (epoch milliseconds or RFC 3339), otherwise the publish time."""
        text = self.attributes.get(attribute or "", "")
        if _MILLISECONDS(text):
            return int(text) * 1000
        try:
            return parse_timestamp(text)
        except BadTimestamp:
            return self.publish_time


def read(source: str) -> Iterator[Message]:
    """Yield the messages of a file, or some of a subscription, `projects/PROJECT/subscriptions/NAME`.

    Raises:
      InputError: it cannot be read, or a line is too long or a damaged envelope.
      CheckError: Google refuses the credentials.
    """
    return _pull(source) if is_subscription(source) else _lines(source)


def is_subscription(source: str) -> bool:
    """Return whether a subscription is meant, and not a file."""
    return source.startswith("projects/") and "/subscriptions/" in source


def _lines(path: str) -> Iterator[Message]:
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise InputError(f"{one_line.value(path)}, line {number}: longer than {MAX_LINE:,} bytes")
                text = line.rstrip(b"\r\n")
                if not text.strip():
                    continue
                try:
                    yield _of_line(f"line {number}", text)
                except (ValueError, OverflowError) as error:
                    raise InputError(f"{one_line.value(path)}, line {number}: {one_line.reason(error)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line.reason(error)
        raise InputError(f"cannot read {one_line.value(path)}: {reason}") from None


def _of_line(place: str, text: bytes) -> Message:
    """Return the message that a line is: an envelope, or else plain data; raises ValueError for a damaged envelope."""
    envelope = _envelope(text)
    if envelope is None:
        return Message(place, text, {}, time.time_ns() // 1000)
    attributes = envelope.get("attributes") or {}
    if not all(type(value) is str for value in attributes.values()):
        raise ValueError("the value of an attribute is not text")
    data = envelope["data"].encode()
    encoding = envelope.get("encoding")
    if encoding == "base64":
        data = base64.b64decode(data, validate=True)
    elif encoding is not None:
        raise ValueError("the encoding of an envelope is base64, or left out")
    publish_time = envelope.get("publish_time")
    published = time.time_ns() // 1000 if publish_time is None else parse_timestamp(publish_time)
    return Message(place, data, attributes, published)


def _envelope(text: bytes) -> dict[str, Any] | None:
    if b'"data"' not in text:
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if type(value) is not dict or not value.keys() <= _FIELDS or type(value.get("data")) is not str:
        return None
    return value if type(value.get("attributes") or {}) is dict else None


def _pull(subscription: str) -> Iterator[Message]:
    """Yield up to PULLED messages and return them to the subscription, which delivers them again."""
    if not os.environ.get("PUBSUB_EMULATOR_HOST"):
        preflight.check_credentials()
    client = pubsub_v1.SubscriberClient()
    received: dict[str, Any] = {}  # by the id of a message, which may be delivered twice
    try:
        with client:
            deadline = time.monotonic() + _TIMEOUT_SECONDS
            while len(received) < PULLED and (left := deadline - time.monotonic()) > 0:
                timeout = min(left, _MORE_SECONDS) if received else left
                answer = _pull_once(client, subscription, PULLED - len(received), timeout)
                if received and not answer:
                    break
                received.update({one.message.message_id: one for one in answer})
            if received:
                ids = [one.ack_id for one in received.values()]
                client.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=0)
    except GoogleAPIError as error:
        raise _refused(subscription, error) from None
    if not received:
        raise InputError(f"{subscription} had no message within {_TIMEOUT_SECONDS:.0f} seconds")
    for number, one in enumerate(received.values(), 1):
        yield _pulled(number, one.message)


def _pull_once(client: pubsub_v1.SubscriberClient, subscription: str, count: int, timeout: float) -> Any:
    try:
        return client.pull(subscription=subscription, max_messages=count, retry=None, timeout=timeout).received_messages
    except DeadlineExceeded:
        return []


def _pulled(number: int, message: Any) -> Message:
    published: datetime = message.publish_time
    return Message(f"message {number}", message.data, dict(message.attributes), parse_timestamp(published.isoformat()))


def _refused(subscription: str, error: GoogleAPIError) -> InputError:
    problem = credentials_problem(error)
    if problem:
        return InputError(problem)
    _, project, _, name = subscription.split("/")
    if isinstance(error, NotFound):
        return InputError(f"{subscription} does not exist")
    if isinstance(error, PermissionDenied):
        return InputError(
            f"no permission to pull from {subscription}; grant it with: gcloud pubsub subscriptions "
            f"add-iam-policy-binding {name} --project={project} --role=roles/pubsub.subscriber --member=user:YOU"
        )
    return InputError(f"cannot pull from {subscription} ({one_line.reason(error)})")
