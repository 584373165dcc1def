"""Whatever ends a run of the tests, nothing that it started stays behind: neither a process nor a temporary folder."""

import os
import tempfile
from contextlib import ExitStack

import pytest

from local.stack.processes import end_with_parent, guard, scratch_folder


class GuardedRun:
    """A plugin of pytest; every process of a run registers one, in pytest_configure."""

    def __init__(self, config: pytest.Config) -> None:
        self._temporary = ExitStack()
        self._is_worker = hasattr(config, "workerinput")
        if self._is_worker:
            end_with_parent()
        else:
            guard()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Have everything temporary in folders that are removed if this run is killed."""
        if self._is_worker:
            return
        guard().add("folders", _base(session))
        # What tests start may leave something in it when killed, as a browser does. Workers inherit it.
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._temporary.enter_context(scratch_folder("t")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Leave pytest's own folder to whoever wants to know why a test failed."""
        if not self._is_worker:
            guard().remove("folders", _base(session))

    def pytest_unconfigure(self) -> None:
        """Remove what is temporary."""
        self._temporary.close()

    def pytest_keyboard_interrupt(self) -> None:
        """Have the run end soon, though fixtures of the whole session take their time."""
        guard().stopping()


def _base(session: pytest.Session) -> str:
    # As pytest-xdist does, to pass it on to its workers: no hook has it otherwise.
    return str(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
