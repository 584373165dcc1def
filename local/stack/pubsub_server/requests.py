"""Checks of requests; a wrong request is refused with the status that the service uses."""

import re
from collections.abc import Iterable
from typing import Any

import grpc  # type: ignore[import-untyped]

from pipeline.errors import SensorStreamError

PUBLISH_MESSAGES = 1000  # the most in one request, as on the service
PUBLISH_BYTES = 10_000_000
ACK_DEADLINES = range(10, 601)  # seconds a subscription may ask for
RETENTIONS = (600, 31 * 86400)  # seconds a subscription may ask for, from and to
PAGE = 1000  # names a list call returns at most
ATTRIBUTES = 100  # the most a message has; these limits are of https://cloud.google.com/pubsub/quotas#resource_limits
ATTRIBUTE_NAME_BYTES = 256
ATTRIBUTE_VALUE_BYTES = 1024
ORDERING_KEY_BYTES = 1024
SUPPORTED = {"name", "topic", "ack_deadline_seconds", "retain_acked_messages", "message_retention_duration"}
IGNORED = {"labels", "expiration_policy"}  # stored and returned, without effect
PROJECT = re.compile(r"projects/[^/]+")
NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~%+-]{2,254}")
Code = grpc.StatusCode


class RequestRejected(SensorStreamError):
    """Ends a call with this status code and message."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


def check_published(request: Any) -> None:
    """Refuse a publish request that the service would reject."""
    if not request.messages:
        raise RequestRejected(Code.INVALID_ARGUMENT, "No messages to publish")
    if len(request.messages) > PUBLISH_MESSAGES:
        raise RequestRejected(Code.INVALID_ARGUMENT, "Too many messages to publish")
    if request.ByteSize() > PUBLISH_BYTES:
        raise RequestRejected(Code.INVALID_ARGUMENT, f"The request is larger than {PUBLISH_BYTES} bytes")
    if not all(message.data or message.attributes for message in request.messages):
        raise RequestRejected(Code.INVALID_ARGUMENT, "Some messages are empty")
    for message in request.messages:
        # Reading attributes is expensive, and most are too small to exceed a limit.
        if message.ByteSize() - len(message.data) > ATTRIBUTE_NAME_BYTES:
            _check_attributes(message)


def _check_attributes(message: Any) -> None:
    if len(message.attributes) > ATTRIBUTES:
        raise RequestRejected(Code.INVALID_ARGUMENT, f"A message has more than {ATTRIBUTES} attributes")
    for name, value in message.attributes.items():
        if len(name.encode()) > ATTRIBUTE_NAME_BYTES:
            raise RequestRejected(
                Code.INVALID_ARGUMENT, f"The name of an attribute exceeds {ATTRIBUTE_NAME_BYTES} bytes"
            )
        if len(value.encode()) > ATTRIBUTE_VALUE_BYTES:
            raise RequestRejected(
                Code.INVALID_ARGUMENT, f"The value of an attribute exceeds {ATTRIBUTE_VALUE_BYTES} bytes"
            )
    if len(message.ordering_key.encode()) > ORDERING_KEY_BYTES:
        raise RequestRejected(Code.INVALID_ARGUMENT, f"An ordering key exceeds {ORDERING_KEY_BYTES} bytes")


def check_topic(request: Any) -> None:
    """Refuse a topic with settings that this server does not support."""
    _check_fields(request, {"name", "labels"})


def check_subscription(request: Any) -> None:
    """Refuse a subscription with settings that this server does not support or the service rejects."""
    _check_fields(request, SUPPORTED | IGNORED)
    if request.ack_deadline_seconds and request.ack_deadline_seconds not in ACK_DEADLINES:
        raise RequestRejected(Code.INVALID_ARGUMENT, "ack_deadline_seconds must be from 10 to 600")
    if request.HasField("message_retention_duration"):
        least, most = (seconds * 10**9 for seconds in RETENTIONS)
        if not least <= nanoseconds(request.message_retention_duration) <= most:
            raise RequestRejected(
                Code.INVALID_ARGUMENT, "message_retention_duration must be from 10 minutes to 31 days"
            )


def _check_fields(request: Any, known: set[str]) -> None:
    if unknown := {field.name for field, _ in request.ListFields()} - known:
        raise RequestRejected(Code.UNIMPLEMENTED, f"This server does not support {', '.join(sorted(unknown))}")


def nanoseconds(moment: Any) -> int:
    """Convert a Timestamp (since 1970) or positive Duration to nanoseconds; refuses one outside of its type's range."""
    try:
        moment.ToJsonString()  # checks both parts, unlike ToNanoseconds of a Duration
    except ValueError as error:
        raise RequestRejected(Code.INVALID_ARGUMENT, str(error)) from None
    return int(moment.ToNanoseconds())


def check_ack_ids(request: Any) -> None:
    """Refuse a request without ack ids."""
    if not request.ack_ids:
        raise RequestRejected(Code.INVALID_ARGUMENT, "No ack ids specified")


def no_subscription() -> RequestRejected:
    """Return the error of a call for a subscription that does not exist or was deleted."""
    return RequestRejected(Code.NOT_FOUND, "Subscription does not exist")


def check_name(name: str, kind: str) -> None:
    """Refuse an invalid name; `kind` is topics or subscriptions."""
    match = NAME.fullmatch(name)
    if not match or match[1] != kind:
        raise RequestRejected(Code.INVALID_ARGUMENT, f"Invalid [{kind}] name: (name={name})")


def check_project(name: str) -> None:
    """Refuse an invalid name of a project."""
    if not PROJECT.fullmatch(name):
        raise RequestRejected(Code.INVALID_ARGUMENT, f"Invalid [projects] name: (name={name})")


def check_stream_deadline(seconds: int) -> None:
    """Refuse an ack deadline that the service does not allow for a streaming pull."""
    if seconds not in ACK_DEADLINES:
        raise RequestRejected(Code.INVALID_ARGUMENT, "stream_ack_deadline_seconds must be from 10 to 600")


def check_deadline(seconds: int) -> None:
    """Refuse a new ack deadline outside of the allowed range."""
    if not 0 <= seconds < ACK_DEADLINES.stop:
        raise RequestRejected(Code.INVALID_ARGUMENT, "An ack deadline must be from 0 to 600 seconds")


def page(request: Any, names: Iterable[str]) -> tuple[list[str], str]:
    """Return the names of the requested page, and the token of the next one: the last name of this page, or empty.

    Refuses a negative size, see https://google.aip.dev/158.
    """
    if request.page_size < 0:
        raise RequestRejected(Code.INVALID_ARGUMENT, "page_size must be 0 or more")
    rest = sorted(name for name in names if name > request.page_token)
    page = rest[: min(request.page_size or PAGE, PAGE)]
    return page, page[-1] if len(page) < len(rest) else ""
