"""The demo's live page: its port, the balance it shows, and how long it is served."""

import json
import os
import pty
import socket
import sys

from local.commands import live_page
from local.commands.live_page import LivePage
from local.stack.processes import running
from local.verify.balance import Balance

KEEP_SERVING = """
from pathlib import Path
from local.commands.live_page import LivePage, keep_serving
keep_serving(LivePage("http://here", Path("balance.json")), lambda: None)
print("left")
"""


def test_choose_port_returns_another_when_the_default_is_in_use(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(live_page, "PORT", taken.getsockname()[1])
        assert live_page._choose_port() not in (0, live_page.PORT)


def test_balance_file_is_replaced_atomically_and_computed_at_most_once_a_second(tmp_path):
    page = LivePage("http://here", tmp_path / "balance.json")
    counted = []

    def count() -> Balance:
        counted.append(1)
        return Balance(published=10, averaged=7, late=1, refused=1, duplicates=1)

    for _ in range(3):
        page.show_now_and_then(count)
    assert len(counted) == 1
    assert json.loads(page.balance.read_text()) == {
        "published": 10,
        "averaged": 7,
        "dead_lettered": 2,
        "duplicates": 1,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["balance.json"]


def test_keep_serving_returns_at_once_without_a_terminal(tmp_path):
    with running("Stay", [sys.executable, "-c", KEEP_SERVING], tmp_path / "log") as child:
        assert child.process.wait(20) == 0
    assert child.log.read_text() == "left\n"


def test_keep_serving_lasts_until_ctrl_c_at_a_terminal():
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", KEEP_SERVING])
    output = os.read(terminal, 1000)
    assert b"The page is served at http://here until Ctrl-C." in output
    os.write(terminal, b"\x03")
    while b"left" not in output:
        output += os.read(terminal, 1000)
    assert os.waitpid(pid, 0)[1] == 0
