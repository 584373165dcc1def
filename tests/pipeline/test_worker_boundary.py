"""The graph on Beam's own worker: every step pickled, every element encoded, state and timers through the Fn API."""

import pytest

from tests.pipeline.conftest import message


@pytest.mark.parametrize("flags", [(), ("--on_late=revise",), ("--allowed_lateness=8000h",)])
def test_graph_yields_rows_of_fixed_windows_on_worker(run_on_worker, flags):
    rows, dead_letters = run_on_worker([message(1, Temp=1), message(2, Temp=3), b"bad", message(15, AtmP=5)], *flags)
    assert [(row["Timestamp"][14:19], row["Temp"], row["AtmP"]) for row in rows] == [
        ("00:00", 2.0, None),
        ("00:15", None, 5.0),
    ]
    assert [(dead_letter["error"], dead_letter["payload"]) for dead_letter in dead_letters] == [("NotJson", b"bad")]


def test_graph_keeps_microseconds_of_sessions_on_worker(run_on_worker):
    messages = [message(0.123456, Temp=1, Device="a"), message(8.000001, Temp=3, Device="a")]
    messages += [message(18.000001, Temp=9, Device="a"), message(3, Temp=7, Device="b")]
    rows, _ = run_on_worker(messages, "--window=session", "--session_gap=10s", "--group_by_device=true")
    assert [(row["Timestamp"][14:], row["Device"], row["Temp"]) for row in rows] == [
        ("00:13.000000Z", "b", 7.0),
        ("00:18.000001Z", "a", 2.0),
        ("00:28.000001Z", "a", 9.0),
    ]
