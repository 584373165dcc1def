"""The demo's live page: where it is served, what it is told, and how long it stays."""

import json
import os
import pty
import socket
import sys

from local.commands import live_page
from local.commands.live_page import LivePage
from local.stack.processes import running
from local.verify.balance import Balance

STAY = """
from pathlib import Path
from local.commands.live_page import LivePage, stay
stay(LivePage("http://here", Path("balance.json")), lambda: None)
print("left")
"""


def test_a_port_that_is_taken_is_left_to_others(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(live_page, "PORT", taken.getsockname()[1])
        assert live_page._free_port() not in (0, live_page.PORT)


def test_the_balance_is_replaced_as_a_whole_and_counting_takes_little_of_the_time(tmp_path):
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


def test_it_does_not_stay_where_nobody_is_at_the_terminal(tmp_path):
    with running("Stay", [sys.executable, "-c", STAY], tmp_path / "log") as child:
        assert child.process.wait(20) == 0
    assert child.log.read_text() == "left\n"


def test_it_stays_for_a_person_until_ctrl_c():
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", STAY])
    said = os.read(terminal, 1000)
    assert b"The page stays at http://here until Ctrl-C." in said
    os.write(terminal, b"\x03")
    while b"left" not in said:
        said += os.read(terminal, 1000)
    assert os.waitpid(pid, 0)[1] == 0
