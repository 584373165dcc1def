"""The tuned peers' fold agrees with the shipped graph, and so do the forms that need no peer's packages."""

import json
import time
from collections import defaultdict
from copy import deepcopy
from datetime import UTC, datetime
from itertools import chain

import pytest

from benchmarks.contenders import Contender, Outcome, compare
from benchmarks.frame import DifferentRows
from benchmarks.load import INTERVAL, SENSORS, Load, messages
from benchmarks.loop import SECOND, add_cells, averages, by_sensor, fold
from benchmarks.peers import __main__ as peers
from benchmarks.peers.engine import Sinks, read
from benchmarks.peers.on_beam import FORMS

START = int(time.time()) // INTERVAL * INTERVAL - 600
STAMP = f"{datetime.fromtimestamp(START + 3.25, UTC):%Y-%m-%dT%H:%M:%S}"


def reading(stamp=None, **fields):
    return json.dumps({"Timestamp": stamp or f"{STAMP}.250Z", "Temp": 1.5, **fields}).encode()


ODD = [
    reading(),
    reading(STAMP + "+00:00"),
    reading(STAMP.lower() + "z"),
    reading(STAMP.replace("T", " ")),
    reading(STAMP.replace("T", " ") + ".1234567"),
    reading(STAMP),
    reading(STAMP[:10]),
    reading(START + 1),
    reading(START + 1.75),
    reading((START + 2) * 1000),
    reading(True),
    reading("yesterday"),
    reading("2026-13-01T00:00:00Z"),
    reading("1999-12-31T23:59:59Z"),
    reading("9999-12-31T23:59:59Z"),
    reading(1),
    reading(1e300),
    reading(START + 7200),
    reading([1]),
    reading({}),
    reading(Temp=3),
    reading(Temp=True),
    reading(Temp=None),
    reading(Temp="1"),
    reading(Temp=float("nan")),
    reading(Temp=10**400),
    reading(Temp=10**30),
    reading(Device=None),
    reading(Device=5),
    reading(Device="x" * 1024),
    reading(Device="x" * 1025),
    reading(Device="d", Airtight=0.25, AtmP=0.5, H2OC=0.75, Other=[1]),
    b'{"Timestamp": 1}',
    b'{"Temp": 1}',
    reading()[:-1] + b', "Temp": "x"}',
    b'{"Temp": "x", ' + reading()[1:],
    b"[" + reading() + b", 1, " + reading(Temp="x") + b", " + reading(Temp=2) + b"]",
    b" [" + reading(Temp=True) + b", " + reading(Temp=2) + b"]",
    b"[" + reading("yesterday") + b", " + reading("yesterday").replace(b"1.5", b"1.50") + b"]",
    b"[[" + reading() + b"]]",
    b"[]",
    b" [ ] ",
    b"[null]",
    b"",
    b"null",
    b"1e999",
    b'{"Timestamp": "\xff"}',
    b"\xef\xbb\xbf" + reading(),
    b"{" * 5000,
    b"[" * 5000,
]


def by_reading(payloads, by_device):
    """Rows and the dead letters' payloads, the plain way."""
    values, rejected = defaultdict(list), []
    for payload in payloads:
        readings, of_payload = read(payload)
        assert readings or of_payload
        rejected += of_payload
        for at, device, found in readings:
            start = at // SECOND // INTERVAL * INTERVAL
            for name, value in found.items():
                values[start, device if by_device else "", name].append(value)
    rows = defaultdict(dict)
    for (start, device, name), found in values.items():
        rows[start, device][name] = sum(found) / len(found)
    return rows, rejected


def by_fold(payloads, by_device):
    partials, rejected = fold(payloads, by_device)
    assert all(start * SECOND <= latest < (start + INTERVAL) * SECOND for start, latest, _ in partials)
    assert [latest for _, latest, _ in partials] == sorted(latest for _, latest, _ in partials)
    rows = {(start, device): averages(by_sensor(of)) for start, _, cells in partials for device, of in cells.items()}
    return rows, rejected


# Not named after the payloads: the hour is in them, and differs between the processes that run the tests.
@pytest.mark.parametrize("payload", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("devices", [1, 2])
def test_read_and_fold_agree_with_shipped_graph(payload, devices, shipped):
    load = Load(devices=devices)
    expected = shipped[devices].outcome([shipped[devices].run(shipped[devices].prepare([(START, payload)]))])
    for _ in range(2):  # the second time with what it remembers
        for rows, rejected in (by_reading([payload], load.by_device), by_fold([payload], load.by_device)):
            assert (rows, len(rejected)) == (expected.rows, expected.rejected)


@pytest.fixture(scope="module")
def shipped():
    return {devices: Contender("shipped", Load(devices=devices)) for devices in (1, 2)}


@pytest.mark.parametrize("load", [Load(), Load(packed=10), Load(packed=100), Load(devices=10)], ids=str)
def test_fold_yields_rows_and_dead_letters_of_the_load(load):
    payloads = [*ODD, *(data for _, data in messages(load, 2000 // load.packed, START))]
    rows, rejected = by_reading(payloads, load.by_device)
    folded, dead_letters = by_fold(payloads, load.by_device)
    assert folded.keys() == rows.keys()
    assert all(folded[key] == pytest.approx(row) for key, row in rows.items())  # of odd values sums are not exact
    assert sorted(dead_letters) == sorted(rejected)


def test_add_cells_does_not_change_added_cells():
    load = Load(devices=10)
    payloads = [data for _, data in messages(load, 2000, START)]
    of_all, halves = fold(payloads, True)[0], [fold(half, True)[0] for half in (payloads[:900], payloads[900:])]
    before = deepcopy(halves)
    total = defaultdict(dict)
    for start, _, cells in chain(*halves):
        add_cells(total[start], cells)
    assert halves == before
    assert total == {start: cells for start, _, cells in of_all}


@pytest.fixture(scope="module")
def measured():
    loads = (Load(), Load(packed=10), Load(packed=100), Load(devices=10))
    return [peers.measure(FORMS, load, readings=2000, rounds=1) for load in loads]


def test_shipped_forms_yield_the_same_rows(measured):
    # Or they had not been timed.
    assert {*measured[0].micros} == {"shipped worker", "shipped local", "shipped demo", "loop"}
    outcome = FORMS["loop"].run(Load(), FORMS["loop"].prepare(Load(), list(messages(Load(), 2000, START))))()
    assert len(outcome.rows) > 0 < outcome.rejected


def test_publish_writes_figures_and_chart(measured, tmp_path):
    tables = peers.tables(measured)
    assert [len(rows) for rows in tables.values()] == [4, 4]
    json.dumps(tables)
    peers.chart(measured).savefig(tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_per_reading_leaves_out_the_start_of_the_engine():
    assert peers.per_reading([(0.5, 0.201), (0.1, 0.202), (0.2, 0.203)], 1000) == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    "other",
    [
        Outcome({}, 1, [b"x"]),
        Outcome({(0, ""): {"Temp": 1.0}}, 2, [b"x"]),
        Outcome({(0, ""): {"Temp": 1.0}}, 1, [b"y"]),
    ],
)
def test_measure_raises_for_different_results(other):
    same = Outcome({(0, ""): {"Temp": 1.0}}, 1, [b"x"])
    compare(Load(), {"shipped local": same, "peer": same, "worker": same._replace(payloads=None)}, "shipped local")
    with pytest.raises(DifferentRows, match="peer"):
        compare(Load(), {"shipped local": same, "peer": other}, "shipped local")


def test_outcome_raises_for_two_rows_of_an_interval():
    sinks = Sinks()
    sinks.rows += [(0, "", {}), (0, "", {})]
    with pytest.raises(AssertionError, match="an interval has two rows"):
        sinks.outcome()


def test_loop_reads_the_sensors_of_the_load():
    assert by_sensor([float(i) for i in range(1, 2 * len(SENSORS) + 1)]).keys() == set(SENSORS)
