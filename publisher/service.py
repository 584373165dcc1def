"""Connects to Pub/Sub for both commands, and explains in one line why that fails and how to fix it."""

import os
import re
import shlex
import sys
from typing import Any

import google.auth
import grpc  # type: ignore[import-untyped]
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from publisher.errors import PublisherError

CONNECT_SECONDS = 5
REASON_LENGTH = 400  # characters of a service's error message, which may be very long
SCOPES = ["https://www.googleapis.com/auth/pubsub"]
# gRPC reports a failure to get credentials as if Pub/Sub were unavailable. Failures like these are transient.
NO_CONNECTION = re.compile(
    r"Max retries exceeded|Connection|[Tt]imed out|[Tt]imeout|internal_failure|server_error|temporarily_unavailable"
    r'|"code": (?:429|5\d\d)'
)


class ServiceError(PublisherError):
    """Pub/Sub cannot be used; the message is one line with the reason and the fix."""


def check_reachable(channel: grpc.Channel, host: str) -> None:
    """Wait until the channel to `host` (host:port) is connected; raises ServiceError after CONNECT_SECONDS."""
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
    except grpc.FutureTimeoutError:
        if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
            raise ServiceError(
                f"no emulator answers at PUBSUB_EMULATOR_HOST={emulator}; start it with: "
                f"gcloud beta emulators pubsub start --host-port={emulator} (or unset the variable to use Google Cloud)"
            ) from None
        raise ServiceError(f"{host} does not answer; check the network, proxy and firewall of this machine") from None


def find_credentials(resource: str) -> Any:
    """Return google-auth credentials with a fresh token; None for an emulator, which needs none.

    Raises:
        ServiceError: there are none, or they are refused.
    """
    if os.environ.get("PUBSUB_EMULATOR_HOST"):
        return None
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except GoogleAuthError as error:
        raise ServiceError(explain(error, resource)) from error
    check_credentials(credentials, resource)
    return credentials


def check_credentials(credentials: Any, resource: str) -> None:
    """Get a token if there is none or it has expired.

    Google's clients do so too, but retry for a minute or forever, whatever the reason of the failure.

    Raises:
        ServiceError: the credentials are refused.
    """
    if not credentials.valid:
        try:
            credentials.refresh(Request())
        except GoogleAuthError as error:
            raise ServiceError(explain(error, resource)) from error


def are_credentials_refused(error: BaseException) -> bool:
    """Return whether credentials were refused, which gRPC reports as if Pub/Sub were temporarily unavailable."""
    return "Getting metadata from plugin failed" in str(error) and not NO_CONNECTION.search(str(error))


def explain(error: BaseException, resource: str) -> str:
    """Return one line: what went wrong with `resource` (projects/P/topics/T or .../subscriptions/S), and the fix."""
    _, project, kind, name = resource.split("/")
    if isinstance(error, exceptions.RetryError) and error.cause:
        error = error.cause
    reason = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split()).rstrip(".")
    if len(reason) > REASON_LENGTH:
        reason = f"{reason[:REASON_LENGTH]}..."
    if isinstance(error, GoogleAuthError | exceptions.Unauthorized) or are_credentials_refused(error):
        if "impersonat" in reason:
            return (
                f"no permission to impersonate a service account ({reason}); grant it with: gcloud iam "
                "service-accounts add-iam-policy-binding ACCOUNT --role=roles/iam.serviceAccountTokenCreator "
                "--member=user:YOU@EXAMPLE.COM"
            )
        return f"no usable Google Cloud credentials ({reason}); run: gcloud auth application-default login"
    if isinstance(error, exceptions.NotFound):
        return f"{resource} was not found ({reason}); create it with: {_create_command(project, kind, name)}"
    if isinstance(error, exceptions.Forbidden):
        if "has not been used" in reason or "SERVICE_DISABLED" in reason:
            return f"{reason}; run: gcloud services enable pubsub.googleapis.com --project={project}"
        role = "publisher" if kind == "topics" else "subscriber"
        return (
            f"no permission to use {resource} ({reason}); grant it with: gcloud pubsub {kind} add-iam-policy-binding "
            f"{name} --project={project} --role=roles/pubsub.{role} --member=user:YOU@EXAMPLE.COM"
        )
    return f"{resource}: {reason}"


def _create_command(project: str, kind: str, name: str) -> str:
    # gcloud would create it in the real project. This works on every emulator: all speak gRPC, but not all REST.
    if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
        path = f"projects/{project}/{kind}/{name}"
        if kind == "topics":
            code = f"PublisherClient().create_topic(name={path!r})"
        else:
            code = f"SubscriberClient().create_subscription(name={path!r}, topic='projects/{project}/topics/TOPIC')"
        code = f"from google.pubsub_v1 import {code.partition('(')[0]}; {code}"
        return f"PUBSUB_EMULATOR_HOST={shlex.quote(emulator)} {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    command = f"gcloud pubsub {kind} create {name} --project={project}"
    return command if kind == "topics" else f"{command} --topic=TOPIC"
