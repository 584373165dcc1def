"""Starts the emulators of Pub/Sub and BigQuery, and creates topics, subscriptions and datasets in them."""

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
# Seconds a bundle may take before its messages are redelivered; the default of 10 is short for a busy machine.
ACK_DEADLINE = 60
PULL_MESSAGES = 100  # the most that the Pub/Sub emulator returns for one call
PULL_TIMEOUT = 30.0  # seconds; the emulator responds immediately unless it hangs

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
    """The official Pub/Sub emulator is not installed; `reason` says what is missing, `install` is a command."""

    def __init__(self, message: str, reason: str, install: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.install = install


@dataclass(frozen=True)
class Emulator:
    """A running emulator; `env` are the environment variables by which a process finds it."""

    host: str  # 127.0.0.1:PORT
    env: Mapping[str, str]
    child: Child | None = None  # None if this process did not start it

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
    """Run a Pub/Sub emulator for the length of the block: the official one, or `pubsub_server` where that is missing.

    Prints a line on stderr if it is not the official one. Otherwise like `official_pubsub_emulator`.
    """
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(official_pubsub_emulator(project, port, log_dir))
        except OfficialEmulatorMissing as missing:
            print(
                f"Using local/stack/pubsub_server as Pub/Sub: {missing.reason}. To use the official emulator: "
                f"{missing.install}",
                file=sys.stderr,
            )
            emulator = stack.enter_context(own_pubsub_server(port, log_dir))
        yield emulator


@contextmanager
def official_pubsub_emulator(project: str, port: int | None = None, log_dir: Path | None = None) -> Iterator[Emulator]:
    """Run the official Pub/Sub emulator for the length of the block.

    If PUBSUB_EMULATOR_HOST is set, the emulator that it names is used and none is started.

    Args:
      project: the project of the emulator.
      port: the port to listen on, by default a free one.
      log_dir: where it writes its log.

    Raises:
      OfficialEmulatorMissing: it is not installed.
      LocalStackError: it did not start; the message says how to fix that.
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
                # Every message about a missing gcloud component, beta command or emulator contains this word.
                if "component" in child.tail():
                    raise OfficialEmulatorMissing(message, "gcloud has no such component", INSTALL_PUBSUB) from None
                raise LocalStackError(message) from None
            yield _pubsub(host, child)


@contextmanager
def own_pubsub_server(port: int | None = None, log_dir: Path | None = None) -> Iterator[Emulator]:
    """Run local.stack.pubsub_server as a process for the length of the block; `port` and `log_dir` as above."""
    port = _port("Pub/Sub", "--pubsub-port", port)
    with _serving(
        "The Pub/Sub server", ["local.stack.pubsub_server", f"--port={port}"], log_dir, "pubsub-server.log"
    ) as child:
        yield _pubsub(f"{LOCALHOST}:{port}", child)


@contextmanager
def bigquery_emulator(
    project: str, port: int | None = None, log_dir: Path | None = None, storage_port: int | None = None
) -> Iterator[Emulator]:
    """Run a BigQuery emulator for the length of the block, with tables in memory.

    If BIGQUERY_EMULATOR_HOST is set, the emulator that it names is used; otherwise `bigquery_server` is started.
    `storage_port` is the port of the Storage Write API; the other arguments are those of `official_pubsub_emulator`.
    """
    if already := os.environ.get("BIGQUERY_EMULATOR_HOST"):
        yield _bigquery(already.removeprefix("http://").rstrip("/"), os.environ.get(BIGQUERY_STORAGE))
        return
    port = _port("BigQuery", "--bigquery-port", port)
    storage_port = _port("BigQuery storage", "--bigquery-storage-port", storage_port)
    # Installed from a package, because DuckDB would otherwise try to download this extension.
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
    """Run a server module with arguments, which prints "Listening on" once it listens."""
    with (
        scratch_folder("emulator-") as scratch,
        running(name, [sys.executable, "-m", *module], (log_dir or scratch) / log) as child,
    ):
        wait_for(child, lambda: "Listening on" in child.tail(), START_TIMEOUT)
        yield child


def insecure_channel(host: str) -> grpc.Channel:
    """Return a channel to a server at `host` (127.0.0.1:PORT) without a limit on the size of responses.

    gRPC's default limit is 4 MB, but a message of Pub/Sub may have 10 MB and a response may hold several. The channels
    of Google's clients to the service have no limit either.
    """
    return grpc.insecure_channel(host, [("grpc.max_receive_message_length", -1)])


def publisher_client(host: str) -> PublisherClient:
    """Return Google's generated client for publishing, connected to the emulator at `host` (127.0.0.1:PORT)."""
    return PublisherClient(transport=PublisherGrpcTransport(channel=insecure_channel(host)))


def subscriber_client(host: str) -> SubscriberClient:
    """Return Google's generated client for pulling, connected to the emulator at `host` (127.0.0.1:PORT)."""
    return SubscriberClient(transport=SubscriberGrpcTransport(channel=insecure_channel(host)))


def bigquery_client(host: str, project: str) -> bigquery.Client:
    """Return Google's BigQuery client for the emulator at `host` (127.0.0.1:PORT), without credentials."""
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

    With `retain_acknowledged`, a seek to a time has messages redelivered that were acknowledged since.
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
    """Pull the messages that are available now, at most `at_most`, without waiting; returns ReceivedMessages.

    They are raw protobuf, because reading fields through proto-plus takes ten times as long.
    """
    received: list[Any] = []
    while len(received) < at_most:
        request = PullRequest(subscription=subscription, max_messages=at_most - len(received), return_immediately=True)
        batch = PullResponse.pb(client.pull(request, timeout=PULL_TIMEOUT)).received_messages
        received += batch
        if len(batch) < PULL_MESSAGES:
            break
    return received


def create_dataset(host: str, project: str, dataset: str) -> str:
    """Create a dataset unless it exists; returns its full name, P.D."""
    name = f"{project}.{dataset}"
    bigquery_client(host, project).create_dataset(name, exists_ok=True)
    return name


def table_exists(client: bigquery.Client, table: str) -> bool:
    """Return whether the table project.dataset.table exists."""
    try:
        client.get_table(table)
    except NotFound:
        return False
    return True


def all_rows(client: bigquery.Client, table: str) -> list[dict[str, Any]]:
    """Return all rows of the table project.dataset.table.

    Uses a query, because the emulator lists rows and inserts rows on different threads with the same connection to
    DuckDB, which can hang both.
    """
    return [dict(row) for row in client.query_and_wait(f"SELECT * FROM `{table}`")]


def _answers(host: str, path: str) -> bool:
    """Return whether a GET of `path` succeeds. Plain HTTP, so that proxy settings do not apply."""
    connection = http.client.HTTPConnection(host, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port(port: int = 0) -> int:
    """Return the port if it is not in use, or for 0 any such port; raises OSError if it is in use."""
    with socket.socket() as probe:
        # As servers do: without it, a port counts as in use for a while after its connections were closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOCALHOST, port))
        return int(probe.getsockname()[1])


def _port(name: str, flag: str, requested: int | None) -> int:
    """Return the requested port, or a free one for None; raises LocalStackError if the requested one is in use."""
    try:
        return free_port(requested or 0)
    except OSError as error:
        raise LocalStackError(
            f"Port {requested} for the {name} emulator cannot be used ({error.strerror}). "
            f"Choose another with {flag} PORT, or leave {flag} out for a free one."
        ) from None
