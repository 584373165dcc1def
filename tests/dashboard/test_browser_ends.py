"""A browser that a test started ends when the run of tests is killed."""

import sys
from pathlib import Path

from playwright.sync_api import Browser

from tests.runs import CONFTEST, left_after, starting

TEST_MODULE = """
import time
from pathlib import Path

def test_open_page(browser):
    browser.new_page().goto("data:text/html,hello")
    Path("up").touch()
    time.sleep(600)
"""


def test_browser_and_its_profile_are_removed_when_the_run_is_killed(browser: Browser, tmp_path: Path) -> None:
    command = f"{sys.executable} -m pytest -p no:bqemulator -p no:cacheprovider -p tests.dashboard.conftest -n1 ."
    with starting(tmp_path) as start:
        one = start("SIGKILL of the group", command)
        (one.folder / "conftest.py").write_text(CONFTEST)
        (one.folder / "test_open_page.py").write_text(TEST_MODULE)
        one.wait(lambda run: (run.folder / "up").exists())
        assert any("chrom" in command for command in one.commands())
        assert left_after({"SIGKILL of the group": one}) == {"SIGKILL of the group": []}
