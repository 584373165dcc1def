"""The peers' own checks agree with the shipped graph, and so do the forms that need no peer's packages."""

import json
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from benchmarks.contenders import Contender
from benchmarks.load import INTERVAL, SENSORS, Load, messages
from benchmarks.peers import checks, fold, report
from benchmarks.peers.install import NotInstalled, _run
from benchmarks.peers.measure import DifferentRows, Measured, compare, measure
from benchmarks.peers.process import Checked, EngineFailed, Process

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


def by_checks(payloads, by_device):
    """Rows and how many are refused, the plain way."""
    values, refused = defaultdict(list), 0
    for payload in payloads:
        outcomes = checks.read(payload)
        assert outcomes
        for outcome in outcomes:
            if isinstance(outcome, checks.Refusal):
                assert outcome.reason
                refused += 1
                continue
            start = int(outcome.at.timestamp()) // INTERVAL * INTERVAL
            for name, value in outcome.values.items():
                values[start, outcome.device if by_device else "", name].append(value)
    rows = defaultdict(dict)
    for (start, device, name), found in values.items():
        rows[start, device][name] = sum(found) / len(found)
    return rows, refused


def by_fold(payloads, by_device):
    partials, refused = fold.fold(payloads, by_device)
    assert [partial.latest for partial in partials] == sorted(partial.latest for partial in partials)
    rows = {(partial.start // fold.SECOND, partial.device): fold.means(partial.cells) for partial in partials}
    return rows, len(refused)


@pytest.mark.parametrize("payload", ODD, ids=lambda payload: repr(payload[:60]))
@pytest.mark.parametrize("devices", [1, 2])
def test_checks_and_fold_agree_with_the_shipped_graph(payload, devices, shipped):
    load = Load(devices=devices)
    expected = shipped[devices].result(shipped[devices].prepare([[(START, payload)]]))
    assert by_checks([payload], load.by_device) == (expected.rows, expected.bad)
    for _ in range(2):  # the second time with what it remembers
        assert by_fold([payload], load.by_device) == (expected.rows, expected.bad)


@pytest.fixture(scope="module")
def shipped():
    return {devices: Contender("shipped", Load(devices=devices)) for devices in (1, 2)}


@pytest.mark.parametrize("load", [Load(), Load(packed=100), Load(devices=10)], ids=str)
def test_fold_agrees_with_checks_on_the_load(load):
    payloads = [data for _, data in messages(load, 2000 // load.packed, START)]
    rows, refused = by_checks(payloads, load.by_device)
    assert by_fold(payloads, load.by_device) == (rows, refused)
    assert refused > 0


def test_dead_letters_of_both_are_the_same():
    payloads = [*ODD, *(data for _, data in messages(Load(packed=10), 100, START))]
    plain = [one.payload for payload in payloads for one in checks.read(payload) if isinstance(one, checks.Refusal)]
    assert [one.payload for one in fold.fold(payloads, False)[1]] == plain


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    process = Process("on_beam", sys.executable, tmp_path_factory.mktemp("logs") / "beam.log")
    try:
        yield [
            measure([process], load, 2000, 1, lambda: None)
            for load in (Load(), Load(packed=10), Load(packed=100), Load(devices=10))
        ]
    finally:
        process.close()


def test_forms_of_ours_make_the_same_rows(measured):
    assert {*measured[0].seconds} == {"shipped worker", "shipped local", "shipped demo", "loop"}
    assert all(one.rows > 0 < one.refused for one in measured)


def test_report(measured, tmp_path):
    for one in measured:
        for form in ("bytewax tuned", "quix idiomatic"):
            one.seconds[form], one.start[form], one.turns[form] = [0.5], [0.1], 1000
    assert [table.row_count for table in report.tables(measured)] == [6, 5, 5]
    assert "pathway: NOT COMPARED" in "\n".join(report.sentences(measured, {"pathway": "no wheel"}))
    json.dumps(report.as_json(measured, {}, {}, 1))
    report.chart(measured, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_the_start_of_an_engine_is_not_in_the_cost_of_a_reading():
    one = Measured(Load(), 2001, 1, 1)
    one.turns["a"], one.turns["b"] = 1001, 2001
    one.start["a"], one.seconds["a"] = [0.5, 0.1, 0.2], [0.201, 0.202, 0.203]
    one.start["b"], one.seconds["b"] = [0.0, 0.0, 0.0], [0.001, 0.002, 0.003]
    assert one.micros("a") == pytest.approx([1, 2, 3])
    assert one.ratios("a", "b") == pytest.approx([2, 2, 2])


@pytest.mark.parametrize(
    "other",
    [
        Checked({}, 1, "x", 0),
        Checked({(0, ""): {"Temp": 1.0}}, 2, "x", 0),
        Checked({(0, ""): {"Temp": 1.0}}, 1, "y", 0),
    ],
)
def test_different_results_are_not_timed(other):
    same = Checked({(0, ""): {"Temp": 1.0}}, 1, "x", 0)
    compare(Load(), {"shipped local": same, "peer": same, "worker": same._replace(payloads=None)})
    with pytest.raises(DifferentRows, match="peer"):
        compare(Load(), {"shipped local": same, "peer": other})


def test_an_engine_that_ends_says_why(tmp_path):
    with pytest.raises(EngineFailed, match="No module named"):
        Process("on_nothing", sys.executable, tmp_path / "log")


def test_what_pip_says_is_kept():
    with pytest.raises(NotInstalled, match="ERROR: no wheel"):
        _run(sys.executable, "-c", "import sys; sys.exit('ERROR: no wheel')")


def test_sensors_are_those_of_the_cells():
    assert fold.means([float(i) for i in range(2 * len(SENSORS))]).keys() == set(SENSORS)
