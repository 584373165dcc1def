"""The pipeline as a process, between the two emulators."""

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from local.stack.emulators import ACK_DEADLINE, Emulator, all_rows, insecure_channel
from local.stack.processes import Child, running, wait_for
from pipeline.launch import tables

TIMEOUT_SECONDS = 90.0


@dataclass
class Stack:
    """A topic, a subscription to it and a dataset for one test; `start` runs the pipeline on them."""

    project: str
    topic: str
    subscription: str
    dataset: str
    publisher: PublisherClient
    subscriber: SubscriberClient
    bq: bigquery.Client
    start: Callable[..., AbstractContextManager[Child]]

    @property
    def table_flag(self) -> str:
        return f"--output_table={self.project}:{self.dataset}.readings"

    def publish(self, messages: Sequence[tuple[bytes, dict[str, str]]]) -> None:
        """Publish (data, attributes) in order, a thousand a request."""
        for start in range(0, len(messages), 1000):
            batch = [{"data": data, "attributes": attributes} for data, attributes in messages[start : start + 1000]]
            self.publisher.publish(topic=self.topic, messages=batch)

    def rows(self, table: str = "readings") -> list[dict]:
        """Return the rows of the table, none if it does not exist."""
        if not self.table_exists(table):
            return []
        return [dict(row) for row in all_rows(self.bq, f"{self.project}.{self.dataset}.{table}")]

    def table_exists(self, table: str = "readings") -> bool:
        return table in {found.table_id for found in self.bq.list_tables(self.dataset)}

    def wait_for_rows(self, pipeline: Child, count: int, table: str = "readings") -> list[dict]:
        """Return the table's rows once there are `count` or more."""
        wait_for(pipeline, lambda: len(self.rows(table)) >= count, TIMEOUT_SECONDS)
        return self.rows(table)

    def topic_has_subscribers(self, count: int) -> bool:
        return len(list(self.publisher.list_topic_subscriptions(topic=self.topic))) >= count


@pytest.fixture
def stack(
    pubsub_server: str, bigquery_server: Emulator, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    name = f"t{uuid.uuid4().hex}"
    for variable, value in bigquery_server.env.items():
        monkeypatch.setenv(variable, value)
    bq = tables.client(project)
    bq.create_dataset(name)
    channel = insecure_channel(pubsub_server)
    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    topic, subscription = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
    publisher.create_topic(name=topic)
    # As for `local up` and the demo: the messages of a bundle that takes longer are redelivered.
    request = {"name": subscription, "topic": topic, "ack_deadline_seconds": ACK_DEADLINE}
    subscriber.create_subscription(request)

    def start(*flags: str, entry: Sequence[str] = ("local", "pipeline")) -> AbstractContextManager[Child]:
        env = {"PUBSUB_EMULATOR_HOST": pubsub_server, **bigquery_server.env}
        command = [sys.executable, "-m", *entry, *flags]
        return running("the pipeline", command, tmp_path / "pipeline.log", env)

    yield Stack(project, topic, subscription, name, publisher, subscriber, bq, start)
    bq.delete_dataset(name, delete_contents=True)
    channel.close()
