"""However a run of the tests ends, no process and no temporary folder of it remains."""

import os
import tempfile
from contextlib import ExitStack

import pytest

from local.stack.processes import end_with_parent, guard, scratch_folder


class GuardedRun:
    """Pytest plugin that every process of a run registers, in pytest_configure."""

    def __init__(self, config: pytest.Config) -> None:
        self._temporary = ExitStack()
        self._is_worker = hasattr(config, "workerinput")
        if self._is_worker:
            end_with_parent()
        else:
            guard()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Put everything temporary in folders that are removed if this run is killed."""
        if self._is_worker:
            return
        guard().add("folders", _base(session))
        # Programs such as browsers leave files in it when they are killed. Workers inherit it.
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._temporary.enter_context(scratch_folder("t")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep pytest's own folder, to find out why a test failed."""
        if not self._is_worker:
            guard().remove("folders", _base(session))

    def pytest_unconfigure(self) -> None:
        """Remove the temporary folder."""
        self._temporary.close()

    def pytest_keyboard_interrupt(self) -> None:
        """Give fixtures of the session time to end before the guard kills what remains."""
        guard().stopping()


def _base(session: pytest.Session) -> str:
    # As pytest-xdist reads it for its workers; no hook provides it.
    return str(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
