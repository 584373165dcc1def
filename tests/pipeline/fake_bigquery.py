"""A BigQuery with one method, insertAll, that fails on command. The emulator cannot be made to reject a row."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A status with which the fake closes the connection instead of answering.
NO_ANSWER = 0


@dataclass
class FakeBigQuery:
    """Tables in memory, and faults.

    Attributes:
      stored: rows by table and insert id.
      requests: (table, number of rows) of each request that was not failed as a whole.
      failures: (HTTP status, reason), each of which fails one request before it stores rows.
      lost_answers: how many of the next requests store their rows and then close the connection.
      row_failures: reasons, each of which fails the first row of one request.
      reject: returns why a row is invalid, or None.
    """

    host: str = ""
    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    lost_answers: int = 0
    row_failures: list[str] = field(default_factory=list)
    reject: Callable[[dict[str, Any]], str | None] = lambda row: None

    def rows(self, table: str) -> list[dict[str, Any]]:
        return list(self.stored.get(table, {}).values())

    def insert_all(self, table: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Store the valid rows of a request; return the HTTP status and the answer."""
        if self.failures:
            status, reason = self.failures.pop(0)
            return status, {"error": {"code": status, "message": reason, "errors": [{"reason": reason}]}}
        self.requests.append((table, len(request["rows"])))
        errors = []
        for index, row in enumerate(request["rows"]):
            message = self.reject(row["json"])
            if index == 0 and self.row_failures:
                reason = self.row_failures.pop(0)
                errors.append({"index": index, "errors": [{"reason": reason, "message": "transient"}]})
            elif message:
                errors.append({"index": index, "errors": [{"reason": "invalid", "message": message}]})
            else:
                self.stored.setdefault(table, {})[row["insertId"]] = row["json"]
        if self.lost_answers:
            self.lost_answers -= 1
            return NO_ANSWER, {}
        return 200, {"insertErrors": errors} if errors else {}


@contextmanager
def fake_bigquery(port: int = 0) -> Iterator[FakeBigQuery]:
    """Serve a `FakeBigQuery` at a port of this machine, by default a free one."""
    fake = FakeBigQuery()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = self.path.split("?")[0].split("/")
            assert parts[-1] == "insertAll", self.path
            status, answer = fake.insert_all(
                parts[-2], json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            )
            if status == NO_ANSWER:
                self.close_connection = True
                return
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    fake.host = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
