"""Faults of the Storage Write API, which tests inject."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc  # type: ignore[import-untyped]

from local.stack.bigquery_server.tables import Row


@dataclass
class Fault:
    """A failure of requests.

    Args:
      code: the status with which the call ends; None ends it with OK, without a response to the request.
      table: the name of a table (its last part) to whose requests this is limited; empty for all.
      stored: whether the rows are stored, so that only the response is lost.
      in_answer: whether the status is part of the response, and the call goes on.
      times: the number of requests that fail.
    """

    code: grpc.StatusCode | None
    table: str = ""
    stored: bool = False
    in_answer: bool = False
    times: int = 1

    def message(self, table: str) -> str:
        """Return the service's message where that is known, otherwise that the fault was injected."""
        if self.code is grpc.StatusCode.PERMISSION_DENIED:
            project, dataset, name = table.rsplit(".", 2)
            resource = f"projects/{project}/datasets/{dataset}/tables/{name}"
            return f"Permission 'TABLES_UPDATE_DATA' denied on resource '{resource}' (or it may not exist)."
        return "AppendRows fails by an injected fault"


class Faults:
    """The faults of the next requests; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._row_error: Callable[[str, Row], str | None] = lambda table, row: None
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
        """Let the next requests fail; see Fault for the arguments. Faults of one table occur in the order given."""
        with self._lock:
            self._faults.append(Fault(code, table, stored, in_answer, times))

    def refuse_rows(self, row_error: Callable[[str, Row], str | None]) -> None:
        """From now on, reject each row for which `row_error`, called with table and row, returns a message."""
        self._row_error = row_error

    def stall(self) -> threading.Event:
        """Let requests hang, before their rows are stored, until the returned event is set."""
        self._released = threading.Event()
        return self._released

    def release(self) -> None:
        """End a stall."""
        self._released.set()

    def take(self, table: str) -> Fault | None:
        """Return the fault of a request to project.dataset.table, or None; waits during a stall."""
        self._released.wait()
        with self._lock:
            for fault in self._faults:
                if fault.table in ("", table.rpartition(".")[2]):
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                    return fault
        return None

    def row_error(self, table: str, row: Row) -> str | None:
        """Return the message with which a row is rejected, or None."""
        return self._row_error(table, row)
