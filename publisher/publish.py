"""Sending readings to a topic: paced by their own timestamps, bounded in memory, every outcome counted."""

import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial

from google.api_core import exceptions
from google.api_core.retry import Retry
from google.api_core.timeout import ConstantTimeout
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1

from publisher.faults import Faults
from publisher.manifest import Manifest
from publisher.messages import Message
from publisher.sensors import Reading
from publisher.service import ServiceError, check_reachable, explain, is_expired_login

TICK_SECONDS = 0.02
ATTEMPT_SECONDS = 30
RETRY_SECONDS = 60

BATCHES = pubsub_v1.types.BatchSettings(max_messages=1000, max_bytes=1_000_000, max_latency=0.05)
FLOW_CONTROL = pubsub_v1.types.PublishFlowControl(
    message_limit=10_000,
    byte_limit=10_000_000,
    limit_exceeded_behavior=pubsub_v1.types.LimitExceededBehavior.BLOCK,
)

# What the client itself tries again by default.
PASSING = (
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ResourceExhausted,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
)


class Publishing:
    """One run of the publisher.

    `accepted` messages were handed to the client, of which `published` were confirmed by the service and `failed` were
    not; `last_error` says why, in one line. Safe to read from other threads while the run is on.
    """

    def __init__(
        self,
        topic: str,
        faults: Faults | None = None,
        manifest: Manifest | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ):
        """Prepare a run.

        topic: projects/P/topics/T. faults: what goes wrong on purpose, by default nothing. manifest: where to record
        what was published. retry_seconds: how long the client tries again after errors that may pass.
        """
        self.topic = topic
        self._faults = faults or Faults()
        self._manifest = manifest
        self.accepted = 0
        self.published = 0
        self.failed = 0
        self.last_error = ""
        self._refused = False
        self._retry_seconds = retry_seconds
        self._stop = threading.Event()
        self._answered = threading.Condition()
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
        """Take no new readings; `run` then sends what it holds back, waits for the outcomes and returns."""
        self._stop.set()

    def run(self, readings: Iterable[Reading]) -> None:
        """Publish each reading when its timestamp is reached (at once if it is past) and wait for all outcomes.

        An error that trying again cannot mend (topic deleted, permission taken away, no room for the manifest) ends the
        run early.

        Raises:
            ServiceError: nothing could be published, and why.
        """
        self._started = time.monotonic()
        options = pubsub_v1.types.PublisherOptions(
            flow_control=FLOW_CONTROL,
            retry=Retry(predicate=_may_pass, initial=0.1, maximum=5.0, multiplier=2.0, timeout=self._retry_seconds),
            timeout=ConstantTimeout(ATTEMPT_SECONDS),
        )
        try:
            client = pubsub_v1.PublisherClient(batch_settings=BATCHES, publisher_options=options)
        except GoogleAuthError as error:
            raise ServiceError(explain(error, self.topic)) from error
        with client:
            check_reachable(client.transport.grpc_channel, client.target)
            self._send(client, readings)
            client.stop()
            self._await_outcomes()
        self._seconds = self.seconds
        if self._refused and not self.published:
            raise ServiceError(self.last_error)

    def _send(self, client: pubsub_v1.PublisherClient, readings: Iterable[Reading]) -> None:
        for message in self._faults.messages(self._as_time_passes(readings), run_id=secrets.token_hex(6)):
            # Only what was held back is not due yet. It has happened, so a stop does not drop it but sends it now.
            self._wait_until(message.due_ms)
            self.accepted += 1
            future = client.publish(self.topic, message.data, **message.attributes)
            future.add_done_callback(partial(self._note, message, time.time()))

    def _as_time_passes(self, readings: Iterable[Reading]) -> Iterator[Reading]:
        for reading in readings:
            if not self._wait_until(reading.time_ms):
                return
            yield reading

    def _wait_until(self, time_ms: int) -> bool:
        """Wait for that time; False, and at once, if the run was told to stop."""
        ahead = time_ms / 1000 - time.time()
        # At high rates a tick's readings go out together, rather than waking up for each.
        return not (self._stop.wait(max(ahead, TICK_SECONDS)) if ahead > 0 else self._stop.is_set())

    def _note(self, message: Message, sent: float, future: pubsub_v1.publisher.futures.Future) -> None:
        error = future.exception()
        if error is None and self._manifest:
            try:
                self._manifest.record(message, future.result(), sent)
            except OSError as unwritten:
                error = OSError(f"a message was accepted, but not written to the manifest: {unwritten.strerror}")
        with self._answered:
            if error is None:
                self.published += 1
            else:
                self.failed += 1
                self.last_error = explain(error, self.topic)
                if not _may_pass(error) and not isinstance(error, exceptions.RetryError):
                    self._refused = True
                    self._stop.set()
            self._answered.notify_all()

    def _await_outcomes(self) -> None:
        with self._answered:
            limit = self._retry_seconds + 2 * ATTEMPT_SECONDS
            if not self._answered.wait_for(lambda: self.published + self.failed == self.accepted, timeout=limit):
                self.failed = self.accepted - self.published
                self.last_error = f"{self.topic}: no answer within {limit:.0f} s"


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, PASSING) and not is_expired_login(error)
