"""The messages of a subscription: undelivered, leased or acknowledged."""

import itertools
import math
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from local.stack.pubsub_server.requests import Code, RequestRejected

RESPONSE_BYTES = 1_000_000  # a response ends with the message that exceeds this; gRPC clients accept 4 MB by default


@dataclass
class Flow:
    """The outstanding messages of one streaming pull, and the client's limits; a limit of 0 or less is none."""

    max_messages: int
    max_bytes: int
    deadline: int  # seconds each delivery has
    messages: int = 0
    bytes: int = 0
    ended: bool = False  # the client has closed its side, or was refused
    refusal: RequestRejected | None = None

    def room(self) -> int:
        """Return the number of messages that may be sent now."""
        if 0 < self.max_bytes <= self.bytes:
            return 0
        return max(0, self.max_messages - self.messages) if self.max_messages > 0 else sys.maxsize


@dataclass(slots=True)
class Lease:
    """A delivery that is neither acknowledged nor expired; `deadline` is in time.monotonic() seconds."""

    message: Any
    deadline: float
    size: int  # bytes
    flow: Flow | None


class Subscription:
    """The messages of a subscription: in the queue, leased to a subscriber, or acknowledged.

    Guarded by the service's lock. Calls that wait for messages wait for `changed`, a condition of that lock.
    """

    def __init__(self, settings: Any, lock: threading.RLock) -> None:
        self.settings = settings
        self.changed = threading.Condition(lock)
        self.retention = settings.message_retention_duration.ToTimedelta().total_seconds()
        self.queue: deque[Any] = deque()
        self.leases: dict[str, Lease] = {}  # by ack id
        self.acknowledged: deque[tuple[float, Any]] = deque()  # when, in time.monotonic() seconds; message
        self.expiry = math.inf  # no lease ends before this time.monotonic()
        self.deleted = False
        self._deliveries = itertools.count(1)

    def take(self, into: Any, deadline: int, at_most: int = sys.maxsize, flow: Flow | None = None) -> int:
        """Lease up to `at_most` messages, or as many as `flow` allows, and add them to the response `into`.

        A lease lasts `deadline` seconds. Returns the number of messages, which RESPONSE_BYTES limits too.
        """
        now = time.monotonic()
        self._expire(now)
        if flow:
            at_most = flow.room()  # after expired leases are released
        count = size = 0
        while self.queue and count < at_most and size < RESPONSE_BYTES:
            message = self.queue.popleft()
            lease = Lease(message, now + deadline, message.ByteSize(), flow)
            received = into.received_messages.add(ack_id=f"{self.settings.name}:{next(self._deliveries)}")
            received.message.CopyFrom(message)
            self.leases[received.ack_id] = lease
            if flow:
                flow.messages += 1
                flow.bytes += lease.size
            count += 1
            size += lease.size
        if count:
            self.expiry = min(self.expiry, now + deadline)
        return count

    def until_expiry(self) -> float:
        """Return the seconds until the next lease may expire; a long time if there is none."""
        return min(max(0.0, self.expiry - time.monotonic()), threading.TIMEOUT_MAX)

    def acknowledge(self, ack_ids: Iterable[str]) -> None:
        """Acknowledge deliveries. As on the service, an expired one is redelivered nevertheless."""
        now = time.monotonic()
        self._expire(now)
        self._forget(now)
        for ack_id in self._known(ack_ids):
            self.acknowledged.append((now, self._release(ack_id)))
        self.changed.notify_all()  # a streaming pull may have room again

    def modify_deadline(self, ack_ids: Iterable[str], seconds: int) -> None:
        """Let deliveries expire `seconds` from now; 0 returns them to the queue immediately."""
        now = time.monotonic()
        self._expire(now)
        self.expiry = min(self.expiry, now + seconds)
        for ack_id in self._known(ack_ids):
            self.leases[ack_id].deadline = now + seconds
        self._expire(now)
        self.changed.notify_all()

    def seek(self, nanoseconds: int) -> None:
        """Make the messages published since that Unix time unacknowledged, if they are kept, and acknowledge others."""
        now = time.monotonic()
        self._forget(now)
        messages = [*self.queue, *(self._release(ack_id) for ack_id in list(self.leases))]
        if self.settings.retain_acked_messages:
            messages += [message for _, message in self.acknowledged]
            self.acknowledged.clear()
        self.queue.clear()
        for message in sorted(messages, key=lambda message: int(message.message_id)):
            if message.publish_time.ToNanoseconds() >= nanoseconds:
                self.queue.append(message)
            else:
                self.acknowledged.append((now, message))
        self.changed.notify_all()

    def publish(self, messages: Iterable[Any]) -> None:
        """Queue messages for delivery."""
        self.queue.extend(messages)
        self.changed.notify_all()

    def redeliver(self, fraction: float, seed: int) -> int:
        """Queue that fraction of the acknowledged messages again, chosen by `seed`; returns their number."""
        self._forget(time.monotonic())
        count = round(len(self.acknowledged) * fraction)
        chosen = set(random.Random(seed).sample(range(len(self.acknowledged)), count))
        self.queue.extend(message for n, (_, message) in enumerate(self.acknowledged) if n in chosen)
        self.acknowledged = deque(one for n, one in enumerate(self.acknowledged) if n not in chosen)
        self.changed.notify_all()
        return count

    def reorder(self, seed: int) -> None:
        """Shuffle the undelivered messages by `seed`."""
        random.Random(seed).shuffle(self.queue)

    def _known(self, ack_ids: Iterable[str]) -> list[str]:
        """Return the ack ids of current leases; refuses the call if one was never an ack id of this subscription."""
        known = []
        for ack_id in dict.fromkeys(ack_ids):
            if ack_id in self.leases:
                known.append(ack_id)
            elif not ack_id.removeprefix(f"{self.settings.name}:").isdecimal():
                raise RequestRejected(Code.INVALID_ARGUMENT, f"Invalid ack id (ack_id={ack_id})")
        return known

    def _expire(self, now: float) -> None:
        if now < self.expiry:
            return
        for ack_id in [ack_id for ack_id, lease in self.leases.items() if lease.deadline <= now]:
            self.queue.append(self._release(ack_id))
        self.expiry = min((lease.deadline for lease in self.leases.values()), default=math.inf)

    def _forget(self, now: float) -> None:
        while self.acknowledged and self.acknowledged[0][0] <= now - self.retention:
            self.acknowledged.popleft()

    def _release(self, ack_id: str) -> Any:
        lease = self.leases.pop(ack_id)
        if lease.flow:
            lease.flow.messages -= 1
            lease.flow.bytes -= lease.size
        return lease.message
