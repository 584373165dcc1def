"""Messages to a topic in few large requests: several at a time, bounded in what is outstanding, every outcome told.

Google's client for single messages makes a future for each, which holds it at 20,000 a second. Here its generated layer
is used, which brings credentials, the emulator's address and retries, but takes whole requests; so how messages are
gathered into requests, and how many may be outstanding, is decided here.
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
OUTSTANDING_MESSAGES = REQUESTS * REQUEST_MESSAGES  # full requests are all in flight, and fail in time together
OUTSTANDING_BYTES = 10_000_000
READING_BYTES = 400  # what a reading weighs beside its data: attributes, objects, protocol
ATTEMPT_SECONDS = 30
HOPELESS = 10  # messages refused one by one before any was accepted

# Raw protobuf: filling fields through proto-plus costs ten times as much.
PublishRequest = types.PublishRequest.pb()

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


class WrongAnswer(PublisherError):
    """The service has accepted a request, but not told the ids of its messages."""


class Settled(NamedTuple):
    """What became of messages that shared a request: their ids in the same order, or the error that stopped them all.

    sent: when the request was made, in seconds since 1970.
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
    """Sends what one thread gives it, for the length of a `with` block; the end of the block waits for nothing.

    Up to OUTSTANDING_MESSAGES and OUTSTANDING_BYTES are on their way, and one request more is gathered.

    An error that may pass is tried again with the whole request, so after a lost answer its messages are there twice.
    If the service takes offence at something in a request (INVALID_ARGUMENT), its halves are sent, and theirs, until
    what is refused is a single message: nothing good is lost for a bad neighbour. Any other error is that of all
    messages of the request.
    """

    def __init__(self, client: PublisherClient, topic: str, note: Callable[[Settled], None], retry_seconds: float):
        """Prepare for messages to `topic`.

        note: called once for each message with what became of it, from several threads, and not in the order of
        sending. retry_seconds: how long to try again.
        """
        self._client = client
        self._topic = topic
        self._note = note
        self._retry = Retry(predicate=may_pass, initial=0.1, maximum=5.0, multiplier=2.0, timeout=retry_seconds)
        # Only the sending thread touches these two.
        self._gathered: list[Message] = []
        self._weight = 0
        # The lock guards these four.
        self._ready: deque[_Batch] = deque()
        self._out = self._out_weight = 0
        self._ended = False
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        # These two only ever grow, and need not be exact.
        self._accepted_any = False
        self._refused_alone = 0

    def __enter__(self) -> Self:
        for number in range(REQUESTS):
            threading.Thread(target=self._send_batches, name=f"sender-{number}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Take nothing more and wait for nothing more; may be called by any thread."""
        with self._work:
            self._ended = True
            self._work.notify_all()
            self._room.notify_all()

    @property
    def outstanding(self) -> int:
        """Messages on their way: neither accepted nor given up by now."""
        return self._out

    def send(self, message: Message) -> None:
        """Take a message; it leaves when a request is full, or with the next `flush`. Waits as that does."""
        weight = len(message.data) + READING_BYTES * message.readings
        if self._weight + weight > REQUEST_BYTES:
            self.flush()
        self._gathered.append(message)
        self._weight += weight
        if len(self._gathered) == REQUEST_MESSAGES:
            self.flush()

    def flush(self) -> None:
        """Let go what was taken, once there is room for it."""
        if self._gathered:
            with self._room:
                self._room.wait_for(lambda: self._ended or self._has_room())
                self._out += len(self._gathered)
                self._out_weight += self._weight
                self._ready.append(_Batch(self._gathered, self._weight))
                self._work.notify()
            self._gathered, self._weight = [], 0

    def finish(self, seconds: float) -> bool:
        """Send the rest and wait for all outcomes, at most so long or until `abandon`; whether they are all there."""
        self.flush()
        with self._room:
            self._room.wait_for(lambda: self._ended or not self._out, timeout=seconds)
            return not self._out

    def _has_room(self) -> bool:
        # A message heavier than the limit must get through too.
        return not self._out or (
            self._out + len(self._gathered) <= OUTSTANDING_MESSAGES
            and self._out_weight + self._weight <= OUTSTANDING_BYTES
        )

    def _send_batches(self) -> None:
        while batch := self._next():
            for settled in self._publish(batch.messages, batch.sent):
                if not self._ended:
                    self._note(settled)
            with self._room:
                self._out -= len(batch.messages)
                self._out_weight -= batch.weight
                self._room.notify_all()

    def _next(self) -> _Batch | None:
        """All that is ready and fits in one request; None at the end."""
        with self._work:
            self._work.wait_for(lambda: self._ready or self._ended)
            if self._ended:
                return None
            messages, weight, _ = self._ready.popleft()
            while self._ready and _fits(len(messages) + len(self._ready[0].messages), weight + self._ready[0].weight):
                more = self._ready.popleft()
                messages += more.messages
                weight += more.weight
            # Under the lock, so that it is never before that of messages that were taken earlier.
            return _Batch(messages, weight, time.time())

    def _publish(self, messages: list[Message], sent: float) -> Iterator[Settled]:
        try:
            yield Settled(messages, self._request(messages), None, sent)
        except exceptions.InvalidArgument as error:
            if len(messages) > 1 and (self._accepted_any or self._refused_alone < HOPELESS):
                half = len(messages) // 2
                yield from self._publish(messages[:half], sent)
                yield from self._publish(messages[half:], sent)
            else:
                self._refused_alone += 1
                yield Settled(messages, [], error, sent)
        except Exception as error:  # whatever it is, it must be told: nobody else sees it in this thread
            yield Settled(messages, [], error, sent)

    def _request(self, messages: list[Message]) -> list[str]:
        """The message ids.

        Raises:
            WrongAnswer, google.api_core.exceptions.GoogleAPIError, google.auth.exceptions.GoogleAuthError.
        """
        request = PublishRequest(topic=self._topic)
        add = request.messages.add
        for message in messages:
            attributes = add(data=message.data).attributes
            for name, value in message.attributes.items():  # faster than update()
                attributes[name] = value
        answer = self._client.publish(
            types.PublishRequest.wrap(request), retry=self._retry, timeout=ConstantTimeout(ATTEMPT_SECONDS)
        )
        ids: list[str] = list(types.PublishResponse.pb(answer).message_ids)
        if len(ids) != len(messages):
            raise WrongAnswer(f"the service has told {len(ids)} message ids for {len(messages)} messages")
        self._accepted_any = True
        return ids


def may_pass(error: BaseException) -> bool:
    """Whether the same request may be accepted a little later."""
    return isinstance(error, PASSING) and not are_credentials_refused(error)


def _fits(messages: int, weight: int) -> bool:
    return messages <= REQUEST_MESSAGES and weight <= REQUEST_BYTES
