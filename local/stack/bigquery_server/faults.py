"""What goes wrong with the Storage Write API, on command."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc  # type: ignore[import-untyped]

from local.stack.bigquery_server.tables import Row


@dataclass
class Fault:
    """One way in which requests fail.

    Args:
      code: what the call ends with; None ends it as if all were done, though a request has no answer yet.
      table: only requests to the table of this name (its last part); empty for all.
      stored: the rows are stored before that, so that only the answer is lost.
      in_answer: the call goes on, and the request's answer carries the code.
    """

    code: grpc.StatusCode | None
    table: str = ""
    stored: bool = False
    in_answer: bool = False
    times: int = 1

    def message(self, table: str) -> str:
        """Return what the service says, where that is known; else that this was asked for."""
        if self.code is grpc.StatusCode.PERMISSION_DENIED:
            project, dataset, name = table.rsplit(".", 2)
            resource = f"projects/{project}/datasets/{dataset}/tables/{name}"
            return f"Permission 'TABLES_UPDATE_DATA' denied on resource '{resource}' (or it may not exist)."
        return "AppendRows fails on command"


class Faults:
    """The faults still to come. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._refuse: Callable[[str, Row], str | None] = lambda table, row: None
        self._released = threading.Event()
        self._released.set()

    def fail(
        self,
        code: grpc.StatusCode | None,
        times: int = 1,
        table: str = "",
        *,
        stored: bool = False,
        in_answer: bool = False,
    ) -> None:
        """Let the next requests fail, so many times; see Fault. Faults of one table come in the order given."""
        with self._lock:
            self._faults.append(Fault(code, table, stored, in_answer, times))

    def refuse_rows(self, refuse: Callable[[str, Row], str | None]) -> None:
        """Answer with row_errors those rows of which `refuse`, given table and row, says why; from now on."""
        self._refuse = refuse

    def stall(self) -> threading.Event:
        """Let requests hang, not yet stored, until the event that is returned is set."""
        self._released = threading.Event()
        return self._released

    def release(self) -> None:
        """End a stall."""
        self._released.set()

    def take(self, table: str) -> Fault | None:
        """Return the fault of a request to project.dataset.table that has come; None if all goes well."""
        self._released.wait()
        with self._lock:
            for fault in self._faults:
                if fault.table in ("", table.rpartition(".")[2]):
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                    return fault
        return None

    def refusal(self, table: str, row: Row) -> str | None:
        """Return why a row is refused, None if it is not."""
        return self._refuse(table, row)
