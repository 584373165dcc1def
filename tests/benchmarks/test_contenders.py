"""Every contender makes the same rows, and what each shuffles is exactly known. No test here looks at a clock."""

import contextlib
import json
import statistics
from collections import defaultdict
from datetime import datetime
from itertools import pairwise

import pytest
from apache_beam.pvalue import TaggedOutput

from benchmarks import __main__ as bench
from benchmarks import variants
from benchmarks.__main__ import measure
from benchmarks.contenders import NAMES, Contender, Outcome, compare
from benchmarks.frame import DifferentRows, Goal, publish
from benchmarks.load import INTERVAL, Load, bundles, messages, past
from pipeline.aggregate.activity import BundleActivity
from pipeline.aggregate.buckets import FixedBuckets
from pipeline.decode.decoder import Decoder

LOADS = [Load(bundle=10), Load(bundle=1000), Load(bundle=200, packed=10), Load(bundle=500, devices=10), Load(size=1000)]


@pytest.fixture(scope="module", params=LOADS, ids=str)
def measured(request):
    return measure(request.param, rounds=1, seconds=0, readings=2000)


def test_contenders_agree_on_rows_and_rejections(measured):
    outcomes = measured.outcomes
    assert set(outcomes) == set(NAMES)
    for name in ("combine", "shipped", "loop"):
        assert outcomes[name].rows == outcomes["seed"].rows
        assert outcomes[name].rejected == outcomes["seed"].rejected > 0


def test_seed_computes_means():
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
    assert loop.outcome([loop.run(loop.prepare(messages(load, 1000, start)))]).rows == expected


def test_contenders_shuffle_expected_records(measured):
    outcomes, load = measured.outcomes, measured.load
    good = measured.readings - outcomes["seed"].rejected
    assert outcomes["seed"].shuffled == outcomes["combine"].shuffled == good
    assert outcomes["floor"].shuffled == outcomes["loop"].shuffled == 0
    # One per bundle, interval and device at most; and at least one per row.
    bundles = measured.readings // load.packed // load.bundle
    intervals = len({start for start, _ in outcomes["shipped"].rows})
    assert len(outcomes["shipped"].rows) <= outcomes["shipped"].shuffled <= bundles * intervals * load.devices


def test_shipped_shuffles_three_hundred_times_fewer_records_than_seed():
    one = measure(bench.UNPACKED, rounds=1, seconds=0, readings=2000)
    assert bench.figures(one)["shuffled records of seed / shipped"][0] >= 300


def test_fold_without_beam_emits_the_elements_of_the_worker():
    load = Load(devices=10)
    [sent] = bundles(load, 1, past())
    shipped, loop = Contender("shipped", load), Contender("loop", load)
    emitted = variants._folded(variants.fold_of(load), loop.prepare(sent))
    on_worker = [element for _, element in shipped.records(shipped.run(shipped.prepare(sent)))]
    values = [one.value for one in emitted if not isinstance(one, TaggedOutput)]
    assert len(emitted) == len(on_worker)
    assert len(values) > 5
    assert all(value in [element.value for element in on_worker] for value in values)
    assert [list(row) for row in variants.alone(rounds=1)] == [["packed by", "parse alone", "shipped", "loop"]] * 3


def test_parts_restore_the_methods_they_replace():
    decode, add = Decoder.decode, FixedBuckets.add
    found, _ = variants.parts(rounds=1)
    assert list(found) == ["", "floor", "steps", "decode", "valid", "everything"]
    assert (Decoder.decode, FixedBuckets.add) == (decode, add)


def test_after_returns_work_behind_the_shuffle():
    [sent] = bundles(Load(), 1, past())
    contenders = [Contender(name, Load()) for name in NAMES]
    found = {one.name for one in contenders if one.after([one.run(one.prepare(sent))])}
    assert found == {"seed", "combine", "shipped"}


@pytest.mark.parametrize(("flag", "keys"), [("--window=session", {""}), ("--silence_after=5m", {"device-0", ""})])
def test_worker_stops_before_steps_with_state(flag, keys):
    shipped = Contender("shipped", Load(flags=(flag,)))
    [sent] = bundles(shipped.load, 1, past())
    came = shipped.records(shipped.run(shipped.prepare(sent)))
    # Beam numbers what goes to a step with state, and names groupings. A session is of all, silences are of each too.
    assert {element.value[0] for step, element in came if "PCollection" in step} == keys


def test_compare_raises_for_different_rows(measured):
    outcomes = dict(measured.outcomes)
    outcomes["combine"] = Outcome({}, outcomes["seed"].rejected)
    with pytest.raises(DifferentRows, match="combine and seed differ: 0 rows"):
        compare(measured.load, outcomes, "seed")


def test_messages_are_those_of_the_load():
    sent = list(messages(Load(), 20_000, start=1_700_000_000))
    stamps = [json.loads(data)["Timestamp"] for _, data in sent]
    assert len({at for at, _ in sent}) == len(sent)
    text = [stamp for stamp in stamps if stamp and stamp != "yesterday"]
    out_of_order = sum(later < earlier for earlier, later in pairwise(text))
    assert 0.015 < out_of_order / len(sent) < 0.025
    assert 0.003 < (len(stamps) - len(text)) / len(sent) < 0.008  # half of what is bad
    assert 85 < statistics.mean(len(data) for _, data in sent) < 105
    assert 950 < statistics.mean(len(data) for _, data in messages(Load(size=1000), 100, start=1_700_000_000)) < 1050


def test_silence_after_adds_one_record_per_device_and_bundle():
    shipped = Contender("shipped", Load(devices=10, flags=("--silence_after=5m",)))
    [sent] = bundles(shipped.load, 1, past())
    records = [element.value for _, element in shipped.records(shipped.run(shipped.prepare(sent)))]
    assert sum(isinstance(value, BundleActivity) for _, value in records) == 11  # of each device, and of the stream


def test_publish_writes_figures_and_chart(measured, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.frame.OUT", tmp_path)
    rows = [bench._costs(measured)]
    publish("bench", {"costs": rows}, bench.goals([measured]), bench.chart([measured]))
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    [found] = json.loads((tmp_path / "bench.json").read_text())["tables"]["costs"]
    assert found["seed"] == measured.micros["seed"]


def test_goal_is_met_by_its_median():
    assert Goal("ratio", [1.0, 9.0, 9.5], at_least=8).met
    assert not Goal("ratio", [1.0, 7.0, 9.5], at_least=8).met
    assert not Goal("ratio", [1.0, 1.4, 9.5], at_most=1.35).met
    assert "NOT met  ratio <= 1.35: 1.40 (1.00-9.50)" in str(Goal("ratio", [1.0, 1.4, 9.5], at_most=1.35))
