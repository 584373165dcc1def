"""What breaks on command: calls that hang, and calls that are refused."""

import threading
from collections import deque

import grpc  # type: ignore[import-untyped]

from local.stack.pubsub_server.requests import RequestRejected


class Faults:
    """The faults of all calls, which obey them before they do anything."""

    def __init__(self) -> None:
        self._refusals: dict[str, deque[grpc.StatusCode]] = {}
        self._released = threading.Event()
        self._released.set()

    def add(self, method: str) -> None:
        """Make known that there is such a method."""
        self._refusals[method] = deque()

    def stall(self, seconds: float | None = None) -> threading.Event:
        """Publish and pulls of both kinds hang, for so many seconds or until the event that is returned is set.

        Then they go on, a publish also if its client has given up: what the publisher thinks lost is there after all.
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
        """Hang as long as there is a stall; returns True."""
        return self._released.wait()

    def refuse(self, method: str, code: grpc.StatusCode, times: int = 1) -> None:
        """Refuse the next calls of a method ("Publish", "StreamingPull", ...); they change nothing."""
        if method not in self._refusals:
            raise ValueError(f"no method {method}; there are {', '.join(self._refusals)}")
        self._refusals[method].extend([code] * times)

    def obey(self, method: str) -> None:
        """Hang or refuse, if a call of this method shall."""
        if method in ("Publish", "Pull"):
            self.wait()
        try:
            code = self._refusals[method].popleft()
        except IndexError:
            return
        raise RequestRejected(code, f"{method} is refused on command")
