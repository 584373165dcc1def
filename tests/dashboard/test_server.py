"""The page's server as a process: whose requests it serves, and the cost of many viewers."""

import http.client
import http.server
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import socketio
from playwright.sync_api import expect

from dashboard.server import MOST_CONNECTIONS, MOST_VIEWERS, MOST_WAITING
from tests.dashboard.conftest import Server, Warehouse, running_page

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
POLLING = SOCKET.replace("websocket", "polling")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def server(warehouse: Warehouse, tmp_path) -> Iterator[Server]:
    with running_page(warehouse.host, warehouse.flag(), log=tmp_path / "page.log") as server:
        yield server


def status(server: Server, path: str = "/", **headers: str) -> int:
    """Return the status of a response; in the names of headers _ stands for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=given | (UPGRADE if path == SOCKET else {}))
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/page.js", "/charts/1", "/favicon.ico", SOCKET])
def test_server_refuses_a_foreign_host_or_origin_on_every_path(server, path):
    own = f"127.0.0.1:{server.port}"
    assert status(server, path, Host=own, Origin=f"http://{own}") in (101, 200, 404)
    assert status(server, path, Host=f"evil.example:{server.port}") == 403
    assert status(server, path, Host=own, Origin="http://evil.example") == 403


def test_server_serves_an_allowed_host(warehouse, tmp_path):
    flags = warehouse.flag(), "--allowed-host=page.example"
    with running_page(warehouse.host, *flags, log=tmp_path / "page.log", address="0.0.0.0") as server:
        for path, expected in (("/", 200), (SOCKET, 101)):
            assert status(server, path, Host="page.example", Origin="https://page.example") == expected
            assert status(server, path, Host="other.example") == 403


def test_server_listens_on_an_ipv6_address(warehouse, visit, tmp_path):
    warehouse.create("Timestamp:TIMESTAMP,Temp:FLOAT")
    with running_page(warehouse.host, warehouse.flag(), log=tmp_path / "page.log", address="::1") as server:
        expect(visit(server.url).get_by_text("no row in the last 1 h")).to_be_visible()
        assert f"Serving {warehouse.flag().removeprefix('--table=')} on {server.url[:-1]}\n" in server.log.read_text()


def test_server_does_not_log_what_a_browser_sends(server):
    html = urllib.request.urlopen(server.url).read().decode()
    client_id = re.search("client_id[^0-9a-f]+([0-9a-f-]{36})", html)[1]
    before = server.log.read_text()
    for path in ("/wp-login.php", "/charts/x", "/_nicegui/none", "/%1b[31m"):
        assert status(server, path) in (404, 422)
    client = socketio.Client()
    client.connect(server.url, transports=["polling"], socketio_path="/_nicegui_ws/socket.io")
    for event in ("log", "event", "javascript_response", "ack", "handshake", "unknown"):
        for message in (
            {"client_id": client_id, "level": "error", "message": "\x1b[31mforged line"},
            {"client_id": client_id, "level": "none", "next_message_id": "x", "tab_id": [], "document_id": {}},
            {"client_id": []},
            {},
            None,
            "text",
        ):
            client.emit(event, message)
            client.call("ack", {}, timeout=20)  # answered in order, so the event has been handled
    # More packets than a request may contain.
    many = urllib.request.Request(f"{server.url[:-1]}{POLLING}&sid={client.eio.sid}", b"\x1e".join([b"6"] * 20))
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(many, timeout=20)
    client.disconnect()
    assert server.log.read_text() == before


def test_server_responds_despite_idle_connections(server):
    with ExitStack() as stack:
        idle = []
        for _ in range(2 * MOST_CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            connection.send(b"GET / HTTP/1.1\r\n")  # an incomplete request
            idle.append(connection)
        assert status(server) == 200
        assert idle[0].recv(1) == b""  # closed, because it was idle longest


def test_server_limits_websockets_to_the_number_of_viewers(server):
    with ExitStack() as stack:
        answers = []
        for _ in range(MOST_VIEWERS + 1):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            stack.callback(connection.close)
            connection.request("GET", SOCKET, headers=UPGRADE)
            answers.append(connection.getresponse().status)
    assert answers == [101] * MOST_VIEWERS + [403]


@contextmanager
def counting(emulator: str) -> Iterator[tuple[str, list[str]]]:
    """Run a proxy of the BigQuery emulator; yields its URL, and the paths of all queries."""
    queries: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "POST":
                queries.append(self.path)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
            request = urllib.request.Request(emulator + self.path, body or None, headers, method=self.command)
            try:
                answer = urllib.request.urlopen(request, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"] or "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}", queries
        proxy.shutdown()


def test_server_runs_as_many_queries_for_many_viewers_as_for_one(warehouse, browser, tmp_path):
    """A viewer connects, and 19 more connect and leave, before the next refresh in an hour."""
    warehouse.create("Timestamp:TIMESTAMP,Temp:FLOAT", [{"Timestamp": datetime.now(UTC), "Temp": 20.0}])
    warehouse.create_dead_letters()
    with counting(warehouse.host) as (emulator, queries):
        flags = warehouse.flag(), "--refresh=1h"
        with running_page(emulator, *flags, log=tmp_path / "page.log") as server:
            for number in count(1):
                page = browser.new_page()
                page.goto(server.url)
                expect(page.locator("[data-figure=rows]")).to_have_text("1")
                page.close()
                if number == 1:
                    queries_of_one = len(queries)
                if number == 20:
                    break
    assert queries_of_one >= 2
    assert len(queries) == queries_of_one


def test_server_memory_does_not_grow_with_requests_for_the_page(warehouse, browser, tmp_path):
    """A day of rows of eight devices: 10,000 rows, 120,000 values."""
    names = ("AtmP", "CO2", "H2OC", "Temp")
    columns = [f"{name}{ending}" for name in names for ending in ("", "_min", "_max")]
    newest = datetime.now(UTC)
    warehouse.create(
        ",".join(["Timestamp:TIMESTAMP", "Device:STRING", *(f"{column}:FLOAT" for column in columns)]),
        [
            {"Timestamp": newest - timedelta(seconds=60 * (i // 8)), "Device": f"d{i % 8}"}
            | dict.fromkeys(columns, 20.0 + i % 7)
            for i in range(10_000)
        ],
    )
    flags = warehouse.flag(), "--span=1d", "--refresh=1h", f"--sensors={','.join(names)}", "--statistics=mean,min,max"
    with running_page(warehouse.host, *flags, log=tmp_path / "page.log") as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("[data-figure=rows]")).to_have_text("10,000+")
        before = server.memory()
        for _ in range(MOST_WAITING):
            assert status(server) == 200
        filled = server.memory()
        for _ in range(60):
            assert status(server) == 200
        page.close()
        # Clients that loaded the page and never connected are deleted, oldest first; they hold no rows.
        assert filled - before < 60
        assert server.memory() - filled < 15
        assert server.memory() < 400
