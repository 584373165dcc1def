"""Access to the page: which hosts, origins and paths are allowed, and how many viewers and connections."""

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from nicegui import Client, app, core
from nicegui.logging import log
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from pipeline.launch import one_line

# Each viewer has a WebSocket, which Cloud Run counts as one of the 80 requests that an instance takes by default.
MOST_VIEWERS = 50
# Browsers that have loaded the page and not opened their WebSocket yet. NiceGUI keeps them for a minute.
MOST_WAITING = 50
# By default a process may open 256 files on macOS.
MOST_CONNECTIONS = 200

# The paths that browsers and NiceGUI use; for any other path NiceGUI would build a page and write to the log.
_PATHS = ("/", "/page.js", "/favicon.ico")
_PREFIXES = ("/charts/", "/_nicegui")

_LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1"])


class AllowedHosts:
    """The host names at which the page may be opened.

    A foreign web page can have its own host name resolve to this server (DNS rebinding), and then read what its
    visitors may read. Their browsers still send that name as Host and as Origin.

    Args:
      listening: the address on which the server listens. The address of all interfaces, such as 0.0.0.0, admits
        every IP address as Host, because DNS rebinding needs a name.
      names: further host names, without a port.
    """

    def __init__(self, listening: str, names: Iterable[str]):
        self._named = frozenset(name.lower() for name in names)
        self._names = self._named | _LOOPBACK | {listening.lower()}
        self._any_address = _is_address(listening) and ipaddress.ip_address(listening).is_unspecified

    def admits(self, headers: Headers) -> bool:
        """Return whether Host is one of the names, and Origin, if any, the same server or one of `names`."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _hostname(f"//{host}")
        if name not in self._names and not (self._any_address and _is_address(name)):
            return False
        return origin is None or urlsplit(origin).netloc.lower() == host.lower() or _hostname(origin) in self._named


class Gate:
    """ASGI middleware that refuses foreign hosts and origins, unknown paths, and more viewers than MOST_VIEWERS."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts):
        self._app = app
        self._hosts = hosts
        self._sockets = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request: refuse it, or pass it on."""
        if scope["type"] == "http":
            await (self._refusal(scope) or self._app)(scope, receive, send)
        elif scope["type"] == "websocket":
            if self._sockets >= MOST_VIEWERS or not self._hosts.admits(Headers(scope=scope)):
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
                return
            self._sockets += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._sockets -= 1
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers, path = Headers(scope=scope), scope["path"]
        if not self._hosts.admits(headers):
            host = one_line.value(headers.get("host", ""))
            return _refuse(403, f"Host '{host}' or the Origin is not allowed; allow a name with --allowed-host.")
        if path not in _PATHS and not path.startswith(_PREFIXES):
            return _refuse(404, "Not found.")
        _forget_waiting()
        if path == "/" and sum(client.has_socket_connection for client in Client.instances.values()) >= MOST_VIEWERS:
            return _refuse(503, f"The page has {MOST_VIEWERS} viewers, the most it allows. Try again later.")
        return None


class Connection(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """uvicorn's HTTP connection; above MOST_CONNECTIONS the one that has been idle longest is closed."""

    def connection_made(self, transport: Any) -> None:
        """Register the connection."""
        super().connection_made(transport)
        self._opened = self.loop.time()
        if len(self.connections) > MOST_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, Connection) and one._is_idle()]
            min(idle, key=lambda one: one._opened).transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


def protect(hosts: AllowedHosts) -> None:
    """Configure NiceGUI's app: add the gate, and ignore events from browsers that the page does not need."""
    app.add_middleware(Gate, hosts=hosts)
    # These loggers write a line for each path that is not found, and a traceback for each malformed packet.
    log.setLevel(logging.ERROR)
    core.sio.logger.setLevel(logging.CRITICAL)
    core.sio.eio.logger.setLevel(logging.CRITICAL)
    handlers = core.sio.handlers["/"]
    # The page has no controls, so that browsers have no events to send; `log` would write their text to the log.
    for event in ("event", "javascript_response", "log"):
        handlers[event] = _ignore
    for event in ("connect", "handshake", "ack", "disconnect"):
        handlers[event] = _tolerant(handlers[event])


def _ignore(*_: Any) -> None:
    pass


def _tolerant(handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return a handler that returns False for a malformed event, where NiceGUI's writes a traceback to the log."""

    async def tolerant(*arguments: Any) -> Any:
        try:
            answer = handler(*arguments)
            return await answer if isinstance(answer, Awaitable) else answer
        except (AttributeError, LookupError, TypeError, ValueError):
            return False

    return tolerant


def _forget_waiting() -> None:
    """Delete the oldest clients that loaded the page, or an error page, and never connected."""
    waiting = [client for client in Client.instances.values() if not client.has_socket_connection]
    for client in sorted(waiting, key=lambda one: one.created)[: max(0, len(waiting) + 1 - MOST_WAITING)]:
        client.delete()


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, {"X-Content-Type-Options": "nosniff"})
