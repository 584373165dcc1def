"""Faults that tests inject: calls that hang, and calls that are refused."""

import threading
from collections import deque

import grpc  # type: ignore[import-untyped]

from local.stack.pubsub_server.requests import RequestRejected


class Faults:
    """The faults of all calls; each call checks them first."""

    def __init__(self) -> None:
        self._refusals: dict[str, deque[grpc.StatusCode]] = {}
        self._released = threading.Event()
        self._released.set()

    def add(self, method: str) -> None:
        """Register a method that can be refused."""
        self._refusals[method] = deque()

    def stall(self, seconds: float | None = None) -> threading.Event:
        """Let Publish, Pull and StreamingPull hang for that many seconds, or until the returned event is set.

        Then they go on. A publish succeeds even if its client has given up, so that the client counts a stored message
        as lost.
        """
        released = self._released = threading.Event()
        if seconds is not None:
            timer = threading.Timer(seconds, released.set)
            timer.daemon = True
            timer.start()
        return released

    def release(self) -> None:
        """End a stall."""
        self._released.set()

    def wait(self) -> bool:
        """Wait until there is no stall; returns True."""
        return self._released.wait()

    def refuse(self, method: str, code: grpc.StatusCode, times: int = 1) -> None:
        """Refuse the next calls of a method ("Publish", "StreamingPull", ...); they change nothing."""
        if method not in self._refusals:
            raise ValueError(f"no method {method}; there are {', '.join(self._refusals)}")
        self._refusals[method].extend([code] * times)

    def apply(self, method: str) -> None:
        """Hang or raise, if a fault of this method is set."""
        if method in ("Publish", "Pull"):
            self.wait()
        try:
            code = self._refusals[method].popleft()
        except IndexError:
            return
        raise RequestRejected(code, f"{method} is refused by an injected fault")
