"""Sending readings to a topic: paced by their own timestamps, bounded in memory, every outcome counted."""

import secrets
import threading
import time
from collections.abc import Iterable, Iterator

from google.api_core import exceptions
from google.pubsub_v1 import PublisherClient

from publisher.faults import Faults
from publisher.manifest import Manifest
from publisher.messages import Message, pack
from publisher.sending import ATTEMPT_SECONDS, HOPELESS, Sender, Settled, WrongAnswer, may_pass
from publisher.sensors import Reading
from publisher.service import ServiceError, check_reachable, explain, find_credentials

TICK_SECONDS = 0.02
RETRY_SECONDS = 60
STOP_SECONDS = 7.0  # for outcomes after a stop; containers are killed 10 s after SIGTERM


class Publishing:
    """One run of the publisher.

    `accepted` readings were taken for sending, of which `published` were confirmed by the service and `failed` were
    not; `last_error` says why, in one line. Safe to read from other threads while the run is on.
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

        topic: projects/P/topics/T. faults: what goes wrong on purpose, by default nothing. manifest: where to record
        what was published. retry_seconds: how long a request is tried again after errors that may pass. pack: so many
        readings share a message, or as many as there are when a tick ends.
        """
        self.topic = topic
        self._faults = faults or Faults()
        self._manifest = manifest
        self._pack = pack
        self.accepted = 0
        self.published = 0
        self.failed = 0
        self.last_error = ""
        self._refused = False
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
        """Length of the run until now, or until its end."""
        return self._seconds if self._seconds is not None else time.monotonic() - self._started

    @property
    def summary(self) -> str:
        """One line: `Published 1200 readings in 60.1 s (20.0/s), 0 failed.`"""
        rate = self.published / max(self.seconds, 0.001)
        line = f"Published {self.published} readings in {self.seconds:.1f} s ({rate:.1f}/s), {self.failed} failed."
        return f"{line} Last error: {self.last_error}" if self.failed else line

    def stop(self) -> None:
        """Take no new readings; `run` then sends what it holds back, waits for the outcomes and returns.

        It waits for STOP_SECONDS at most, from now on; what is not confirmed then has failed.
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
        """Publish each reading when its timestamp is reached (at once if it is past) and wait for all outcomes.

        What has been taken leaves when a request is full, and before any wait for the clock. An error that trying again
        cannot mend (topic deleted, permission taken away, no room for the manifest) ends the run early; a message that
        the service refuses for its own sake, on a topic that accepts others, does not.

        Raises:
            ServiceError: nothing could be published, and why.
        """
        self._started = time.monotonic()
        client = PublisherClient(credentials=find_credentials(self.topic))
        with client, Sender(client, self.topic, self._note, self._retry_seconds) as sender:
            self._sender = sender
            check_reachable(client.transport.grpc_channel, client.transport.host)
            self._send(sender, readings)
            limit = self._retry_seconds + 2 * ATTEMPT_SECONDS
            answered = sender.finish(limit)
            # Closing the connection takes a fifth of a second more.
            self._seconds = self.seconds
        if not answered:
            with self._counting:
                self.failed = self.accepted - self.published
                waited = f"{STOP_SECONDS:.0f} s after the stop" if self._gave_up else f"within {limit:.0f} s"
                self.last_error = f"{self.topic}: {self.failed} readings were not confirmed {waited}"
        if self._refused and not self.published:
            raise ServiceError(self.last_error)

    def _send(self, sender: Sender, readings: Iterable[Reading]) -> None:
        for message in self._faults.messages(self._as_time_passes(sender, readings), run_id=secrets.token_hex(6)):
            # Only what was held back is not due yet. It has happened, so a stop does not drop it but sends it now.
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

    def _as_time_passes(self, sender: Sender, readings: Iterable[Reading]) -> Iterator[Reading]:
        for reading in readings:
            if not self._wait_until(reading.time_ms, sender):
                return
            yield reading

    def _wait_until(self, time_ms: int, sender: Sender) -> bool:
        """Let everything go and wait for that time, if it is ahead; False, and at once, if the run was told to stop."""
        if time_ms > self._now_ms and not self._stop.is_set():
            ahead = time_ms / 1000 - time.time()
            if ahead > 0:
                self._send_packed(sender)
                sender.flush()
                # At high rates a tick's readings go out together, rather than waking up for each.
                self._stop.wait(max(ahead, TICK_SECONDS))
            self._now_ms = int(time.time() * 1000)
        return not self._stop.is_set()

    def _note(self, settled: Settled) -> None:
        """Record and count what became of the messages of one request."""
        error = settled.error
        readings = sum([message.readings for message in settled.messages])
        published = readings if error is None else 0
        if error is None and self._manifest:
            published, error = self._record(self._manifest, settled)
        with self._counting:
            self.published += published
            self.failed += readings - published
            if error is not None:
                self.last_error = explain(error, self.topic)
                if self._is_for_good(error):
                    self._refused = True
                    self._stop.set()

    def _record(self, manifest: Manifest, settled: Settled) -> tuple[int, Exception | None]:
        """How many readings the manifest has taken, and what keeps it from taking the others."""
        recorded = 0
        try:
            for message, message_id in zip(settled.messages, settled.ids, strict=True):
                manifest.record(message, message_id, settled.sent)
                recorded += message.readings
        except OSError as error:
            return recorded, OSError(f"a message was accepted, but not written to the manifest: {error.strerror}")
        return recorded, None

    def _is_for_good(self, error: Exception) -> bool:
        """Whether other messages would fail in the same way."""
        if isinstance(error, exceptions.InvalidArgument):
            return not self.published and self.failed >= HOPELESS
        return not may_pass(error) and not isinstance(error, exceptions.RetryError | WrongAnswer)
