"""Every contender makes the same rows, and what each shuffles is exactly known. No test here looks at a clock."""

import contextlib
import json
import statistics
from collections import defaultdict
from datetime import datetime
from itertools import pairwise

import pytest

from benchmarks import folding, parts, report
from benchmarks.contenders import NAMES, Contender, Result
from benchmarks.folding import fold_in_every_way
from benchmarks.load import INTERVAL, Load, messages
from benchmarks.measure import DifferentRows, _compare, measure
from pipeline.fold import _Fold

LOADS = [Load(bundle=10), Load(bundle=1000), Load(bundle=200, packed=10), Load(bundle=500, devices=10), Load(size=1000)]


@pytest.fixture(scope="module", params=LOADS, ids=str)
def measured(request):
    return measure(request.param, rounds=1, seconds=0, readings=2000)


def test_rows_and_refusals_agree(measured):
    results = measured.results
    assert set(results) == set(NAMES)
    for name in ("combine", "shipped", "loop"):
        assert results[name].rows == results["seed"].rows
        assert results[name].bad == results["seed"].bad > 0


def test_means_are_right():
    load = Load(bundle=1000)
    sums = defaultdict(list)
    start = 1_700_000_010
    for _, data in messages(load, 1000, start):
        reading = json.loads(data)
        with contextlib.suppress(ValueError, TypeError):
            moment = datetime.fromisoformat(reading["Timestamp"]).timestamp() // INTERVAL * INTERVAL
            sums[moment].append((float(reading["Temp"]), float(reading["AtmP"])))
    expected = {
        (moment, ""): {
            name: statistics.mean(column)
            for name, column in zip(("Temp", "AtmP"), zip(*rows, strict=True), strict=True)
        }
        for moment, rows in sums.items()
    }
    loop = Contender("loop", load)
    assert loop.result(loop.prepare([list(messages(load, 1000, start))])).rows == expected


def test_shuffled_records(measured):
    results, load = measured.results, measured.load
    good = measured.readings - results["seed"].bad
    assert results["seed"].shuffled == results["combine"].shuffled == good
    assert results["floor"].shuffled == results["loop"].shuffled == 0
    # One per bundle, interval and device at most; and at least one per row.
    bundles = measured.readings // load.packed // load.bundle
    intervals = len({start for start, _ in results["shipped"].rows})
    assert len(results["shipped"].rows) <= results["shipped"].shuffled <= bundles * intervals * load.devices


def test_shuffles_three_hundred_times_fewer_records_than_the_seed():
    assert measure(report.UNPACKED, rounds=1, seconds=0, readings=2000).records_ratio() >= 300


@pytest.mark.parametrize("load", [Load(), Load(packed=100)], ids=str)
def test_every_way_to_fold_makes_the_same_sums(load):
    assert set(fold_in_every_way(load, rounds=1)) == {"parse", "shipped", "typed", "columns", "loop"}


def test_a_way_that_folds_otherwise_is_not_timed(monkeypatch):
    monkeypatch.setitem(folding.WAYS, "typed", lambda _chunks: ({}, 0))
    with pytest.raises(DifferentRows, match="typed and loop differ: 0 and"):
        fold_in_every_way(Load(), rounds=1)


def test_parts_left_out_come_back():
    fold = _Fold._fold
    assert list(parts.measure(rounds=1)) == ["floor", "steps", "decode", "good", "everything"]
    assert _Fold._fold is fold


def test_what_comes_after_the_shuffle_is_counted_too():
    one = measure(Load(), rounds=1, seconds=0, readings=2000)
    assert {name for name, (micros,) in one.after.items() if micros} == {"seed", "combine", "shipped"}
    assert all(one.after[name][0] < one.micros[name][0] for name in NAMES)


def test_different_rows_are_not_timed(measured):
    results = dict(measured.results)
    results["combine"] = Result({}, results["seed"].bad, 0, 0)
    with pytest.raises(DifferentRows, match="combine and seed differ"):
        _compare(measured.load, results)


def test_messages_are_as_described():
    sent = list(messages(Load(), 20_000, start=1_700_000_000))
    stamps = [json.loads(data)["Timestamp"] for _, data in sent]
    assert len({at for at, _ in sent}) == len(sent)
    text = [stamp for stamp in stamps if stamp and stamp != "yesterday"]
    out_of_order = sum(later < earlier for earlier, later in pairwise(text))
    assert 0.015 < out_of_order / len(sent) < 0.025
    assert 0.003 < (len(stamps) - len(text)) / len(sent) < 0.008  # half of what is bad
    assert 85 < statistics.mean(len(data) for _, data in sent) < 105
    assert 950 < statistics.mean(len(data) for _, data in messages(Load(size=1000), 100, start=1_700_000_000)) < 1050


def test_report(measured, tmp_path):
    report.chart([measured], tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(json.dumps(report.as_json([measured], 1, 0)))
    assert found["loads"][0]["contenders"]["seed"]["shuffled_records"] == measured.results["seed"].shuffled
    assert report.table([measured]).row_count == 1


def test_a_goal_is_judged_by_its_median():
    assert report.Goal("ratio", [1.0, 9.0, 9.5], at_least=8).met
    assert not report.Goal("ratio", [1.0, 7.0, 9.5], at_least=8).met
    assert not report.Goal("ratio", [1.0, 1.4, 9.5], at_most=1.35).met
    assert "NOT met  ratio <= 1.35: 1.40 (1.00 to 9.50)" in str(report.Goal("ratio", [1.0, 1.4, 9.5], at_most=1.35))
