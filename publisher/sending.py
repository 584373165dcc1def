"""Sends messages to a topic in few large requests, several at a time, and reports the outcome of each message.

Google's client for single messages creates a future for each, which limits it to 20,000 messages a second. The
generated client used here supports credentials, the emulator and retries too, but takes complete requests. This module
therefore gathers messages into requests and limits how many are outstanding.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from google.api_core import exceptions
from google.api_core.retry import Retry
from google.api_core.timeout import ConstantTimeout
from google.pubsub_v1 import PublisherClient, types

from publisher.errors import PublisherError
from publisher.messages import Message
from publisher.service import are_credentials_refused

REQUEST_MESSAGES = 1000  # the most the service takes
REQUEST_BYTES = 1_000_000  # the service takes ten times as much
REQUESTS = 10  # in flight
OUTSTANDING_MESSAGES = REQUESTS * REQUEST_MESSAGES  # so that full requests are all in flight and time out together
OUTSTANDING_BYTES = 10_000_000
READING_BYTES = 400  # of a reading in addition to its data: attributes, Python objects, protocol
ATTEMPT_SECONDS = 30
MAX_SINGLE_REJECTIONS = 10  # of requests with one message before any was accepted; then the topic accepts none

# Raw protobuf: filling fields through proto-plus costs ten times as much.
PublishRequest = types.PublishRequest.pb()

# The errors that the client retries by default.
TRANSIENT_ERRORS = (
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ResourceExhausted,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
)


class IncompleteResponse(PublisherError):
    """The service accepted a request without returning an id for each of its messages."""


class Outcome(NamedTuple):
    """The outcome of messages that shared a request: their ids in the same order, or the error of all.

    `sent` is when the request was made, in seconds since 1970.
    """

    messages: list[Message]
    ids: list[str]
    error: Exception | None
    sent: float


class _Batch(NamedTuple):
    messages: list[Message]
    weight: int
    sent: float = 0.0


class Sender:
    """Sends messages for the length of a `with` block; call `finish` before its end to wait for outcomes.

    `send`, `flush` and `finish` must be called from one thread. At most OUTSTANDING_MESSAGES and OUTSTANDING_BYTES are
    outstanding, while one more request is gathered.

    After a transient error the complete request is retried, so that its messages are stored twice if only the response
    was lost. A request that is rejected with INVALID_ARGUMENT is divided in halves, and these again, until only the bad
    messages are rejected. Any other error is the outcome of all messages of the request.

    Args:
        client: the generated client.
        topic: projects/P/topics/T.
        on_outcome: called with the outcome of each request, or of each part of a divided one, from several threads and
            not in the order of sending.
        retry_seconds: how long a request is retried.
    """

    def __init__(
        self, client: PublisherClient, topic: str, on_outcome: Callable[[Outcome], None], retry_seconds: float
    ):
        self._client = client
        self._topic = topic
        self._on_outcome = on_outcome
        self._retry = Retry(predicate=is_transient, initial=0.1, maximum=5.0, multiplier=2.0, timeout=retry_seconds)
        # Used only by the thread that sends.
        self._gathered: list[Message] = []
        self._weight = 0
        # Guarded by the lock.
        self._ready: deque[_Batch] = deque()
        self._out = self._out_weight = 0
        self._ended = False
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        # Written by several threads; they need not be exact.
        self._accepted_any = False
        self._single_rejections = 0

    def __enter__(self) -> Self:
        for number in range(REQUESTS):
            threading.Thread(target=self._send_batches, name=f"sender-{number}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Stop sending and waiting; may be called from any thread."""
        with self._work:
            self._ended = True
            self._work.notify_all()
            self._room.notify_all()

    @property
    def outstanding(self) -> int:
        """The number of messages that have been sent and have no outcome yet."""
        return self._out

    def send(self, message: Message) -> None:
        """Gather a message, which is sent when a request is full or with the next `flush`. May wait like `flush`."""
        weight = len(message.data) + READING_BYTES * message.readings
        if self._weight + weight > REQUEST_BYTES:
            self.flush()
        self._gathered.append(message)
        self._weight += weight
        if len(self._gathered) == REQUEST_MESSAGES:
            self.flush()

    def flush(self) -> None:
        """Send the gathered messages; waits while too many are outstanding."""
        if self._gathered:
            with self._room:
                self._room.wait_for(lambda: self._ended or self._has_room())
                self._out += len(self._gathered)
                self._out_weight += self._weight
                self._ready.append(_Batch(self._gathered, self._weight))
                self._work.notify()
            self._gathered, self._weight = [], 0

    def finish(self, seconds: float) -> bool:
        """Send the rest and wait for outcomes, up to `seconds` or until `abandon`; returns whether all have come."""
        self.flush()
        with self._room:
            self._room.wait_for(lambda: self._ended or not self._out, timeout=seconds)
            return not self._out

    def _has_room(self) -> bool:
        # A single message that exceeds the limit is sent when nothing else is outstanding.
        return not self._out or (
            self._out + len(self._gathered) <= OUTSTANDING_MESSAGES
            and self._out_weight + self._weight <= OUTSTANDING_BYTES
        )

    def _send_batches(self) -> None:
        while batch := self._next():
            for outcome in self._publish(batch.messages, batch.sent):
                if not self._ended:
                    self._on_outcome(outcome)
            with self._room:
                self._out -= len(batch.messages)
                self._out_weight -= batch.weight
                self._room.notify_all()

    def _next(self) -> _Batch | None:
        """Return one batch of as many ready batches as fit in a request; None at the end."""
        with self._work:
            self._work.wait_for(lambda: self._ready or self._ended)
            if self._ended:
                return None
            messages, weight, _ = self._ready.popleft()
            while self._ready and _fits(len(messages) + len(self._ready[0].messages), weight + self._ready[0].weight):
                more = self._ready.popleft()
                messages += more.messages
                weight += more.weight
            # Read under the lock, so that times increase in the order of sending.
            return _Batch(messages, weight, time.time())

    def _publish(self, messages: list[Message], sent: float) -> Iterator[Outcome]:
        try:
            yield Outcome(messages, self._request(messages), None, sent)
        except exceptions.InvalidArgument as error:
            if len(messages) > 1 and (self._accepted_any or self._single_rejections < MAX_SINGLE_REJECTIONS):
                half = len(messages) // 2
                yield from self._publish(messages[:half], sent)
                yield from self._publish(messages[half:], sent)
            else:
                self._single_rejections += 1
                yield Outcome(messages, [], error, sent)
        except Exception as error:  # of any kind, because an exception that ends this thread would not be reported
            yield Outcome(messages, [], error, sent)

    def _request(self, messages: list[Message]) -> list[str]:
        """Publish the messages in one request and return their ids.

        Raises:
            IncompleteResponse: an id is missing.
            GoogleAPIError, GoogleAuthError: the request failed.
        """
        request = PublishRequest(topic=self._topic)
        add = request.messages.add
        for message in messages:
            attributes = add(data=message.data).attributes
            for name, value in message.attributes.items():  # faster than update()
                attributes[name] = value
        response = self._client.publish(
            types.PublishRequest.wrap(request), retry=self._retry, timeout=ConstantTimeout(ATTEMPT_SECONDS)
        )
        ids: list[str] = list(types.PublishResponse.pb(response).message_ids)
        if len(ids) != len(messages):
            raise IncompleteResponse(f"the service returned {len(ids)} message ids for {len(messages)} messages")
        self._accepted_any = True
        return ids


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    return isinstance(error, TRANSIENT_ERRORS) and not are_credentials_refused(error)


def _fits(messages: int, weight: int) -> bool:
    return messages <= REQUEST_MESSAGES and weight <= REQUEST_BYTES
