"""A run of the publisher: sends readings at the times of their timestamps, and counts every outcome."""

import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from google.api_core import exceptions
from google.pubsub_v1 import PublisherClient

from publisher.faults import Faults
from publisher.manifest import Manifest
from publisher.messages import Message, pack
from publisher.sending import (
    ATTEMPT_SECONDS,
    MAX_SINGLE_REJECTIONS,
    IncompleteResponse,
    Outcome,
    Sender,
    is_transient,
)
from publisher.sensors import Reading
from publisher.service import ServiceError, check_reachable, explain, find_credentials

TICK_SECONDS = 0.02
RETRY_SECONDS = 60
STOP_SECONDS = 7.0  # to wait for outcomes after a stop; containers are killed 10 s after SIGTERM


class Publishing:
    """One run of the publisher.

    Of the `accepted` readings, `published` were confirmed by the service and `failed` were not; `last_error` is the
    reason, in one line. All may be read from other threads during the run.
    """

    def __init__(
        self,
        topic: str,
        faults: Faults | None = None,
        manifest: Manifest | None = None,
        retry_seconds: float = RETRY_SECONDS,
        pack: int = 1,
    ):
        """Prepare a run.

        Args:
            topic: projects/P/topics/T.
            faults: the faults to inject, by default none.
            manifest: where to record what was published.
            retry_seconds: how long a request is retried after transient errors.
            pack: the most readings in one message; those sent at the end of a tick of TICK_SECONDS have fewer.
        """
        self.topic = topic
        self._faults = faults or Faults()
        self._manifest = manifest
        self._pack = pack
        self.accepted = 0
        self.published = 0
        self.failed = 0
        self.last_error = ""
        self._ended_by_error = False
        self._retry_seconds = retry_seconds
        self._stop = threading.Event()
        self._sender: Sender | None = None
        self._gave_up = False
        self._counting = threading.Lock()
        self._gathered: list[Message] = []
        self._now_ms = 0
        self._started = time.monotonic()
        self._seconds: float | None = None

    @property
    def seconds(self) -> float:
        """The duration of the run, in seconds, until now or until its end."""
        return self._seconds if self._seconds is not None else time.monotonic() - self._started

    @property
    def summary(self) -> str:
        """One line: `Published 1200 readings in 60.1 s (20.0/s), 0 failed.`"""
        rate = self.published / max(self.seconds, 0.001)
        line = f"Published {self.published} readings in {self.seconds:.1f} s ({rate:.1f}/s), {self.failed} failed."
        return f"{line} Last error: {self.last_error}" if self.failed else line

    def stop(self) -> None:
        """Accept no further readings; `run` sends those that are held back, waits for the outcomes and returns.

        It waits at most STOP_SECONDS from now on. Readings that are not confirmed by then count as failed.
        """
        self._stop.set()
        timer = threading.Timer(STOP_SECONDS, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        self._gave_up = True
        if self._sender:
            self._sender.abandon()

    def run(self, readings: Iterable[Reading]) -> None:
        """Publish each reading at the time of its timestamp, immediately if that is past, and wait for all outcomes.

        Accepted readings are sent when a request is full, and before any wait for the clock. A permanent error ends the
        run: the topic was deleted, permission revoked, or the manifest cannot be written. A single message that the
        service rejects, on a topic that accepts others, does not.

        Raises:
            ServiceError: nothing could be published.
        """
        self._started = time.monotonic()
        client = PublisherClient(credentials=find_credentials(self.topic))
        with client, Sender(client, self.topic, self._count_outcome, self._retry_seconds) as sender:
            self._sender = sender
            transport: Any = client.transport  # of gRPC; the clients' base class has no channel
            check_reachable(transport.grpc_channel, client.transport.host)
            self._send(sender, readings)
            limit = self._retry_seconds + 2 * ATTEMPT_SECONDS
            is_complete = sender.finish(limit)
            # Before the connection is closed, which takes another fifth of a second.
            self._seconds = self.seconds
        if not is_complete:
            with self._counting:
                self.failed = self.accepted - self.published
                waited = f"{STOP_SECONDS:.0f} s after the stop" if self._gave_up else f"within {limit:.0f} s"
                self.last_error = f"{self.topic}: {self.failed} readings were not confirmed {waited}"
        if self._ended_by_error and not self.published:
            raise ServiceError(self.last_error)

    def _send(self, sender: Sender, readings: Iterable[Reading]) -> None:
        for message in self._faults.messages(self._paced(sender, readings), run_id=secrets.token_hex(6)):
            # Only messages that were held back are not due yet. After a stop they are sent immediately, not dropped.
            if message.due_ms > self._now_ms:
                self._wait_until(message.due_ms, sender)
            self.accepted += 1
            if message.alone or self._pack == 1:
                sender.send(message)
            else:
                self._gathered.append(message)
                if len(self._gathered) == self._pack:
                    self._send_packed(sender)
        self._send_packed(sender)

    def _send_packed(self, sender: Sender) -> None:
        if self._gathered:
            sender.send(pack(self._gathered))
            self._gathered = []

    def _paced(self, sender: Sender, readings: Iterable[Reading]) -> Iterator[Reading]:
        """Yield each reading at the time of its timestamp, until the run is stopped."""
        for reading in readings:
            if not self._wait_until(reading.time_ms, sender):
                return
            yield reading

    def _wait_until(self, time_ms: int, sender: Sender) -> bool:
        """Send gathered messages and wait until `time_ms`, if that is ahead; returns False once the run is stopped."""
        if time_ms > self._now_ms and not self._stop.is_set():
            ahead = time_ms / 1000 - time.time()
            if ahead > 0:
                self._send_packed(sender)
                sender.flush()
                # At high rates the readings of a tick are sent together, to avoid waking up for each.
                self._stop.wait(max(ahead, TICK_SECONDS))
            self._now_ms = int(time.time() * 1000)
        return not self._stop.is_set()

    def _count_outcome(self, outcome: Outcome) -> None:
        """Count the readings of one request, and record them in the manifest if they were published."""
        error = outcome.error
        readings = sum([message.readings for message in outcome.messages])
        published = readings if error is None else 0
        if error is None and self._manifest:
            published, error = self._record(self._manifest, outcome)
        with self._counting:
            self.published += published
            self.failed += readings - published
            if error is not None:
                self.last_error = explain(error, self.topic)
                if self._is_permanent(error):
                    self._ended_by_error = True
                    self._stop.set()

    def _record(self, manifest: Manifest, outcome: Outcome) -> tuple[int, Exception | None]:
        """Return the number of readings written to the manifest, and the error that prevented the others."""
        recorded = 0
        try:
            for message, message_id in zip(outcome.messages, outcome.ids, strict=True):
                manifest.record(message, message_id, outcome.sent)
                recorded += message.readings
        except OSError as error:
            return recorded, OSError(f"a message was accepted, but not written to the manifest: {error.strerror}")
        return recorded, None

    def _is_permanent(self, error: Exception) -> bool:
        """Return whether other messages would fail in the same way."""
        if isinstance(error, exceptions.InvalidArgument):
            return not self.published and self.failed >= MAX_SINGLE_REJECTIONS
        return not is_transient(error) and not isinstance(error, exceptions.RetryError | IncompleteResponse)
