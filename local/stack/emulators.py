"""Pub/Sub and BigQuery on this machine: start the emulators, create what the pipeline needs in them."""

import http.client
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb_extensions
import grpc  # type: ignore[import-untyped]
from google.api_core.exceptions import AlreadyExists, NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, PullRequest, PullResponse, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from local.stack.processes import Child, LocalStackError, running, scratch_folder, wait_for

LOCALHOST = "127.0.0.1"
BIGQUERY_STORAGE = "BIGQUERY_STORAGE_EMULATOR_HOST"
START_TIMEOUT = 60.0  # seconds; 5 are usual for Pub/Sub, 2 for BigQuery
ACK_DEADLINE = (
    60  # seconds a bundle may take before its messages come again; the default of 10 is short for a busy machine
)
PULL_MESSAGES = 100  # the most the Pub/Sub emulator gives a call, whatever is asked
PULL_TIMEOUT = 30.0  # seconds; it answers at once, unless it hangs

GET_PUBSUB = """\
Get the Pub/Sub emulator in one of these ways:
    gcloud components install pubsub-emulator beta          (gcloud from Google's installer)
    apt-get install google-cloud-cli-pubsub-emulator        (gcloud from Google's apt repository)
    docker run --rm -p 127.0.0.1:8085:8085 google/cloud-sdk:emulators \\
        gcloud beta emulators pubsub start --host-port=0.0.0.0:8085
        and then: export PUBSUB_EMULATOR_HOST=127.0.0.1:8085"""
INSTALL_PUBSUB = "gcloud components install pubsub-emulator beta (or apt-get install google-cloud-cli-pubsub-emulator)"
INSTALL_JAVA = "apt-get install default-jre-headless"
GET_JAVA = f"The Pub/Sub emulator needs Java 11 or newer on PATH: {INSTALL_JAVA}"


class OfficialEmulatorMissing(LocalStackError):
    """The official Pub/Sub emulator is not on this machine; `reason` is why in a few words, `install` a command."""

    def __init__(self, message: str, reason: str, install: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.install = install


@dataclass(frozen=True)
class Emulator:
    """An emulator that answers; `env` is the environment a process needs to use it."""

    host: str  # 127.0.0.1:PORT
    env: Mapping[str, str]
    child: Child | None = None  # None when somebody else started it

    def check(self) -> None:
        """Raise LocalStackError with the tail of its log if the emulator has ended."""
        if self.child:
            self.child.check()


def _pubsub(host: str, child: Child | None = None) -> Emulator:
    return Emulator(host, {"PUBSUB_EMULATOR_HOST": host}, child)


def _bigquery(host: str, storage_host: str | None, child: Child | None = None) -> Emulator:
    storage = {BIGQUERY_STORAGE: storage_host} if storage_host else {}
    return Emulator(host, {"BIGQUERY_EMULATOR_HOST": f"http://{host}", **storage}, child)


@contextmanager
def pubsub_emulator(project: str, port: int | None = None, log_dir: Path | None = None) -> Iterator[Emulator]:
    """A Pub/Sub emulator, for the length of the block: the official one, or `pubsub_server` where that is missing.

    Says on stderr if it is not the official one. Otherwise like `official_pubsub_emulator`.
    """
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(official_pubsub_emulator(project, port, log_dir))
        except OfficialEmulatorMissing as missing:
            print(
                f"Pub/Sub is played by local/stack/pubsub_server: {missing.reason}. For the official emulator: "
                f"{missing.install}",
                file=sys.stderr,
            )
            emulator = stack.enter_context(own_pubsub_server(port, log_dir))
        yield emulator


@contextmanager
def official_pubsub_emulator(project: str, port: int | None = None, log_dir: Path | None = None) -> Iterator[Emulator]:
    """The official Pub/Sub emulator, for the length of the block.

    Uses the one PUBSUB_EMULATOR_HOST names if that is set; else starts one on `port` (a free one if None) that writes
    its log to `log_dir`. Raises LocalStackError, with what to do about it, when it cannot be had:
    OfficialEmulatorMissing if it must be installed first.
    """
    if already := os.environ.get("PUBSUB_EMULATOR_HOST"):
        yield _pubsub(already)
        return
    gcloud = shutil.which("gcloud")
    if not gcloud:
        raise OfficialEmulatorMissing(f"gcloud is not on PATH.\n{GET_PUBSUB}", "gcloud is not on PATH", INSTALL_PUBSUB)
    if not shutil.which("java"):
        raise OfficialEmulatorMissing(GET_JAVA, "Java is not on PATH", INSTALL_JAVA)
    port = _port("Pub/Sub", "--pubsub-port", port)
    host = f"{LOCALHOST}:{port}"
    with scratch_folder("pubsub-emulator-") as scratch:
        command = [gcloud, "beta", "emulators", "pubsub", "start", "--quiet"]
        command += [f"--project={project}", f"--host-port={host}", f"--data-dir={scratch}"]
        with running("The Pub/Sub emulator", command, (log_dir or scratch) / "pubsub-emulator.log") as child:
            try:
                wait_for(child, lambda: _answers(host, f"/v1/projects/{project}/topics"), START_TIMEOUT)
            except LocalStackError as error:
                message = f"{error}\n{GET_PUBSUB}"
                # The word is in all that gcloud says when it, its beta commands or the emulator must be installed.
                if "component" in child.tail():
                    raise OfficialEmulatorMissing(message, "gcloud has no such component", INSTALL_PUBSUB) from None
                raise LocalStackError(message) from None
            yield _pubsub(host, child)


@contextmanager
def own_pubsub_server(port: int | None = None, log_dir: Path | None = None) -> Iterator[Emulator]:
    """local.stack.pubsub_server as a process, for the length of the block; `port` and `log_dir` as above."""
    port = _port("Pub/Sub", "--pubsub-port", port)
    with _serving(
        "The Pub/Sub server", ["local.stack.pubsub_server", f"--port={port}"], log_dir, "pubsub-server.log"
    ) as child:
        yield _pubsub(f"{LOCALHOST}:{port}", child)


@contextmanager
def bigquery_emulator(
    project: str, port: int | None = None, log_dir: Path | None = None, storage_port: int | None = None
) -> Iterator[Emulator]:
    """A BigQuery emulator, for the length of the block; tables are kept in memory and gone at the end.

    Uses the one BIGQUERY_EMULATOR_HOST names if that is set; else starts `bigquery_server`, like `pubsub_emulator`.
    The Storage Write API has a port of its own.
    """
    if already := os.environ.get("BIGQUERY_EMULATOR_HOST"):
        yield _bigquery(already.removeprefix("http://").rstrip("/"), os.environ.get(BIGQUERY_STORAGE))
        return
    port = _port("BigQuery", "--bigquery-port", port)
    storage_port = _port("BigQuery storage", "--bigquery-storage-port", storage_port)
    # Offline: DuckDB would otherwise try to download this extension. Costs nothing when it is there already.
    duckdb_extensions.import_extension("spatial")
    command = [
        "local.stack.bigquery_server",
        f"--project={project}",
        f"--rest-port={port}",
        f"--grpc-port={storage_port}",
    ]
    with _serving("The BigQuery emulator", command, log_dir, "bigquery-emulator.log") as child:
        yield _bigquery(f"{LOCALHOST}:{port}", f"{LOCALHOST}:{storage_port}", child)


@contextmanager
def _serving(name: str, module: Sequence[str], log_dir: Path | None, log: str) -> Iterator[Child]:
    """A module that says where it listens, as a process, with its arguments."""
    with (
        scratch_folder("emulator-") as scratch,
        running(name, [sys.executable, "-m", *module], (log_dir or scratch) / log) as child,
    ):
        wait_for(child, lambda: "Listening on" in child.tail(), START_TIMEOUT)
        yield child


def insecure_channel(host: str) -> grpc.Channel:
    """A channel to a server at `host` (127.0.0.1:PORT) that takes answers of any size.

    gRPC's default is 4 MB, but a message of Pub/Sub may have 10 MB, and an answer several messages. The channels that
    Google's clients make to the service have no limit either.
    """
    return grpc.insecure_channel(host, [("grpc.max_receive_message_length", -1)])


def publisher_client(host: str) -> PublisherClient:
    """Google's generated Pub/Sub client for publishing, talking to the emulator at `host` (127.0.0.1:PORT)."""
    return PublisherClient(transport=PublisherGrpcTransport(channel=insecure_channel(host)))


def subscriber_client(host: str) -> SubscriberClient:
    """Google's generated Pub/Sub client for pulling, talking to the emulator at `host` (127.0.0.1:PORT)."""
    return SubscriberClient(transport=SubscriberGrpcTransport(channel=insecure_channel(host)))


def bigquery_client(host: str, project: str) -> bigquery.Client:
    """Google's BigQuery client on the emulator at `host` (127.0.0.1:PORT); looks for no credentials."""
    return bigquery.Client(project, AnonymousCredentials(), client_options={"api_endpoint": f"http://{host}"})


def create_topic(host: str, project: str, topic: str) -> str:
    """Create a topic unless it exists; returns its full name, projects/P/topics/T."""
    name = f"projects/{project}/topics/{topic}"
    with publisher_client(host) as client, suppress(AlreadyExists):
        client.create_topic(name=name)
    return name


def create_subscription(
    host: str, project: str, topic: str, subscription: str, retain_acknowledged: bool = False
) -> str:
    """Create a subscription to `topic` unless it exists; returns its full name, projects/P/subscriptions/S.

    With `retain_acknowledged`, a seek to a time brings back what was acknowledged since.
    """
    name = f"projects/{project}/subscriptions/{subscription}"
    request = {
        "name": name,
        "topic": f"projects/{project}/topics/{topic}",
        "ack_deadline_seconds": ACK_DEADLINE,
        "retain_acked_messages": retain_acknowledged,
    }
    with subscriber_client(host) as client, suppress(AlreadyExists):
        client.create_subscription(request)
    return name


def pull(client: SubscriberClient, subscription: str, at_most: int) -> list[Any]:
    """Pull what is there now, waiting for nothing: at most `at_most` ReceivedMessages, not acknowledged.

    They are raw protobuf, because reading fields through proto-plus costs ten times as much.
    """
    received: list[Any] = []
    while len(received) < at_most:
        request = PullRequest(subscription=subscription, max_messages=at_most - len(received), return_immediately=True)
        got = PullResponse.pb(client.pull(request, timeout=PULL_TIMEOUT)).received_messages
        received += got
        if len(got) < PULL_MESSAGES:
            break
    return received


def create_dataset(host: str, project: str, dataset: str) -> str:
    """Create a dataset unless it exists; returns its full name, P.D."""
    name = f"{project}.{dataset}"
    bigquery_client(host, project).create_dataset(name, exists_ok=True)
    return name


def table_exists(client: bigquery.Client, table: str) -> bool:
    """Whether BigQuery has the table P.D.T."""
    try:
        client.get_table(table)
    except NotFound:
        return False
    return True


def all_rows(client: bigquery.Client, table: str) -> list[bigquery.Row]:
    """All rows of the table P.D.T.

    By a query, because the emulator answers a list call on another thread than it inserts on, and on the same
    connection to DuckDB: sooner or later both hang.
    """
    return list(client.query_and_wait(f"SELECT * FROM `{table}`"))


def _answers(host: str, path: str) -> bool:
    """Whether a GET of `path` is answered with 200. Plain HTTP, so that no proxy setting comes between."""
    connection = http.client.HTTPConnection(host, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port(port: int = 0) -> int:
    """Return the port if nobody listens on it (OSError if somebody does), for 0 any such."""
    with socket.socket() as probe:
        # As servers do: a port is not in use because a connection to it was closed a moment ago.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOCALHOST, port))
        return int(probe.getsockname()[1])


def _port(name: str, flag: str, wanted: int | None) -> int:
    """The wanted port if nobody listens on it (LocalStackError if somebody does), or a free one if None is wanted."""
    try:
        return free_port(wanted or 0)
    except OSError as error:
        raise LocalStackError(
            f"Port {wanted}, wanted for the {name} emulator, cannot be used ({error.strerror}). "
            f"Pick another with {flag} PORT, or leave {flag} out for a free one."
        ) from None
