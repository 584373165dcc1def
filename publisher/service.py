"""What publishing and listening share: reaching Pub/Sub, and saying in one line what to do when that fails."""

import os

import grpc  # type: ignore[import-untyped]
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError

CONNECT_SECONDS = 5


class ServiceError(Exception):
    """Pub/Sub cannot be used; the text is one line that names the fix."""


def check_reachable(channel: grpc.Channel, host: str) -> None:
    """Wait until the channel to `host` (host:port) is up; a ServiceError after CONNECT_SECONDS."""
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
    except grpc.FutureTimeoutError:
        if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
            raise ServiceError(
                f"no emulator answers at PUBSUB_EMULATOR_HOST={emulator}; start it with: "
                f"gcloud beta emulators pubsub start --host-port={emulator} (or unset the variable to use Google Cloud)"
            ) from None
        raise ServiceError(f"{host} does not answer; check the network, proxy and firewall of this machine") from None


def is_expired_login(error: BaseException) -> bool:
    """Whether the user must log in again, which gRPC reports as if the service were unavailable for a moment."""
    return "Getting metadata from plugin failed" in str(error) and any(
        sign in str(error) for sign in ("invalid_grant", "Reauthentication")
    )


def explain(error: BaseException, resource: str) -> str:
    """One line: what went wrong with `resource` (projects/P/topics/T or projects/P/subscriptions/S), and the fix."""
    _, project, kind, name = resource.split("/")
    reason = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split()).rstrip(".")
    if isinstance(error, GoogleAuthError | exceptions.Unauthorized) or is_expired_login(error):
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
    # gcloud would create it in the real project, so for the emulator name the plain request.
    if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
        url = f"http://{emulator}/v1/projects/{project}/{kind}/{name}"
        if kind == "topics":
            return f"curl -X PUT {url}"
        topic = f'{{"topic": "projects/{project}/topics/TOPIC"}}'
        return f"curl -X PUT {url} -H 'Content-Type: application/json' -d '{topic}'"
    command = f"gcloud pubsub {kind} create {name} --project={project}"
    return command if kind == "topics" else f"{command} --topic=TOPIC"
