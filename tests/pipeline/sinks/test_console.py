"""Rows and dead letters on the terminal."""

import json

from pipeline.sinks.console import PrintDeadLetters, PrintRows
from tests.pipeline.conftest import Stream, message, run_through


def test_console_prints_rows_to_stdout_and_dead_letters_to_stderr(capfd):
    run_through(Stream().add(message(0, Temp=1), b"unreadable").end(), PrintRows(), PrintDeadLetters())
    out, err = capfd.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"Timestamp": "2024-11-22T13:00:00.000000Z", "Airtight": None, "AtmP": None, "H2OC": None, "Temp": 1.0}
    ]
    (found,) = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert (found["part"], found["parts"], found["error"]) == (1, 1, "NotJson")
