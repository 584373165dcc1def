"""Access control: only programs on this machine may use the server, and SQL may use only tables.

A web page in a browser can send requests to a server on the same machine. Without these checks it could run SQL, and
DuckDB's SQL can read and write files.
"""

from collections.abc import Collection
from typing import Any, NoReturn
from urllib.parse import urlsplit

import bqemulator.jobs.executor
from bqemulator.api.dependencies import AppContext
from bqemulator.domain.errors import UnsupportedFeatureError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost")

_NO_FILES = "This server reads and writes no files: insert rows with SQL, insertAll or the Storage Write API."


class LocalClients:
    """ASGI middleware that refuses uploads and the requests that a web page can send.

    Browsers add an Origin to every cross-site request that may change something, and send a JSON body across sites only
    after a preflight request, which this server refuses. Google's clients send JSON and no Origin.

    Args:
      app: the application to protect.
      hosts: names of hosts whose pages may send requests.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request: refuse it, or pass it on."""
        refusal = self._refusal(scope["path"], Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).hostname not in self._hosts:
            return _error(403, "forbidden", f"Requests of web pages from {origin} are not allowed.")
        if path.startswith("/upload/"):
            return _error(501, "notImplemented", _NO_FILES)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if has_body and content_type != "application/json":
            return _error(415, "badContent", f"Unsupported content with type: {content_type or 'none'}")
        return None


def _error(status: int, reason: str, message: str) -> JSONResponse:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return JSONResponse({"error": error}, status)


def close_files(connection: Any) -> None:
    """Deny files and network to SQL on a DuckDB connection, and to the emulator's load, extract and export jobs.

    Afterwards settings cannot be changed and extensions cannot be loaded. An open database on disk remains usable. See
    https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
    """
    connection.execute("SET python_enable_replacements = false")  # so that SQL cannot name Python variables as tables
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    # The three kinds of jobs resolve URIs with this function, and open some files in Python.
    bqemulator.jobs.executor._resolve_uri = _refuse_uri


def _refuse_uri(uri: str, ctx: AppContext) -> NoReturn:
    raise UnsupportedFeatureError(f"{_NO_FILES} The request names {uri}")
