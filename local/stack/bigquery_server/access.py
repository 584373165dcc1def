"""Who may use the server, and what SQL may touch: programs on this machine, and nothing but tables.

A web page that is open in a browser can send requests to a server on the same machine. Without these checks it could
run SQL here, and DuckDB's SQL reads and writes files.
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
    """ASGI middleware that refuses what a web page can send, and uploads.

    Browsers add an Origin to every request that may change something across sites, and send those with a JSON body
    only where the server agrees beforehand, which this one does not. Google's clients send no Origin, and JSON.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """Wrap `app`. hosts: names of hosts, the pages of which may send requests."""
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
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
    """Keep SQL on a DuckDB connection, and the emulator's load, extract and export, away from files and network.

    From here on no setting can be changed and no extension be loaded. What an open database on disk needs stays
    allowed. See https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
    """
    connection.execute("SET python_enable_replacements = false")  # a table's name never means a Python variable
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    # All three resolve URIs by this, and open some files in Python.
    bqemulator.jobs.executor._resolve_uri = _refuse_uri


def _refuse_uri(uri: str, ctx: AppContext) -> NoReturn:
    raise UnsupportedFeatureError(f"{_NO_FILES} Given was {uri}")
