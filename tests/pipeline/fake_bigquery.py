"""A BigQuery that does one thing, insertAll, and fails on command. The emulator cannot be made to refuse a row."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeBigQuery:
    """What was stored, by table and insertId, and the faults still to come.

    `failures` are HTTP (status, reason) pairs, one used up by each request; status 0 hangs up without an answer.
    `row_failures` are reasons that fail the first row of a request, one used up by each. `refuse` says why a
    row is invalid, or None.
    """

    host: str = ""
    stored: dict[str, dict[str, dict]] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    row_failures: list[str] = field(default_factory=list)
    refuse: Callable[[dict], str | None] = lambda row: None

    def rows(self, table: str) -> list[dict]:
        return list(self.stored.get(table, {}).values())

    def insert_all(self, table: str, request: dict) -> tuple[int, dict]:
        if self.failures:
            status, reason = self.failures.pop(0)
            return status, {"error": {"code": status, "message": reason, "errors": [{"reason": reason}]}}
        errors = []
        for index, row in enumerate(request["rows"]):
            message = self.refuse(row["json"])
            if index == 0 and self.row_failures:
                errors.append({"index": index, "errors": [{"reason": self.row_failures.pop(0), "message": "passing"}]})
            elif message:
                errors.append({"index": index, "errors": [{"reason": "invalid", "message": message}]})
            else:
                self.stored.setdefault(table, {})[row["insertId"]] = row["json"]
        return 200, {"insertErrors": errors} if errors else {}


@contextmanager
def fake_bigquery(port: int = 0) -> Iterator[FakeBigQuery]:
    fake = FakeBigQuery()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = self.path.split("?")[0].split("/")
            assert parts[-1] == "insertAll", self.path
            status, answer = fake.insert_all(
                parts[-2], json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            )
            if not status:
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
