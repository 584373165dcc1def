"""The bill against sums worked out by hand from list prices, and the CPU model against the measurements."""

import re

import pytest

from deploy.cost import cpu
from deploy.cost.__main__ import main
from deploy.cost.bill import Usage, bill, total
from pipeline.aggregate.shards import SHARDS
from tests.deploy.template.fake_google import ROOT


def dollars(usage: Usage, write_method: str = "streaming_inserts") -> dict[str, float]:
    return {part.name: round(part.dollars, 2) for part in bill(usage, write_method)}


def test_bill_of_one_reading_per_second_has_one_worker():
    # Workers: 730 h x (2 x 0.069 + 7.5 x 0.003557 + 30 x 0.000054).
    # Pub/Sub: 2,628,000 messages of 240 bytes are 0.587 GiB, twice that is below the free 10.
    # Streaming Engine: each is a bundle, with a sum of 75 bytes in and out: 0.587 + 0.367 GiB, x 0.018.
    # BigQuery: 175,200 rows of 1 KiB are 171.09 MiB of 200; those of a year are 0.1 GiB.
    assert dollars(Usage(1, 1, 15)) == {
        "Pub/Sub": 0,
        "workers": 121.4,
        "Streaming Engine": 0.02,
        "BigQuery streaming_inserts": 0.01,
        "BigQuery storage": 0,
    }


def test_bill_of_many_devices():
    usage = Usage(rate=10_000, devices=1_000, interval=15, packed=1)
    found = dollars(usage)
    # 26.28e9 messages x 240 bytes = 5,873.99 GiB, twice, less 10: 11,737.98 GiB / 1,024 x 40.
    assert found["Pub/Sub"] == pytest.approx(458.51, abs=0.02)
    # 1,000 x 240 an hour x 730 = 175.2 million rows: x 1,024 / 200 MiB x 0.01.
    assert found["BigQuery streaming_inserts"] == pytest.approx(8.55, abs=0.01)
    # 175.2e6 x 12 x 50 bytes = 97.90 GiB, less 10: x 0.023.
    assert found["BigQuery storage"] == pytest.approx(2.02, abs=0.01)
    # The same rows are 8.2 GiB a month, of 2 TiB that are free.
    assert dollars(usage, "storage_write")["BigQuery storage_write"] == 0
    assert dollars(usage, "upsert")["BigQuery upsert"] == 0


def test_bill_is_lower_with_packed_messages():
    one, hundred = Usage(1_000_000, 1, 15), Usage(1_000_000, 1, 15, packed=100)
    # (100 + 140) bytes a reading, or 100 + 1.4.
    assert one.message_bytes / hundred.message_bytes == pytest.approx(240 / 101.4)
    # 4.05 + 824 / 1,000 us x 10^6/s = 4.9 cores, taken twice, on two a worker; or 1.45 + 0.026 + 0.008 us: 1.5.
    assert (one.workers, hundred.workers) == (5, 2)
    assert total(bill(one)) > 2 * total(bill(hundred))


def test_usage_has_no_more_rows_than_readings():
    assert Usage(rate=1, devices=1_000, interval=1).rows == 3600 * 730


def test_cpu_model_matches_the_measurements():
    page = (ROOT / "docs/cost.md").read_text()
    measured = re.findall(r"^\| ([\d,]+) . (\d+)(?:, ([\d,]+) devices)? \| ([\d.]+) \| ([\d.]+) ", page, re.MULTILINE)
    assert len(measured) == 8
    for row in measured:
        bundle, packed, devices, micros, megabytes = (float(text.replace(",", "") or 1) for text in row)
        assert cpu.micros(bundle, packed, devices) == pytest.approx(micros, rel=0.1)
        shuffled = cpu.shuffled(bundle, devices) / bundle / packed
        # A large bundle of that load spans several intervals, and shuffles for each.
        assert shuffled == pytest.approx(megabytes, rel=0.25, abs=0.008)


def test_cpu_model_counts_one_shuffled_record_per_shard():
    assert cpu.SHARDS == SHARDS
    assert cpu.shuffled(1, 1) == 30 + 45
    # Nearly all of the devices are in such a bundle, so all of the shards.
    assert cpu.shuffled(100_000, 1_000) == pytest.approx(32 * 30 + 1_000 * 45)


def test_main_prints_parts_totals_and_sources(capsys, tmp_path):
    main(["--rate=10000", "--devices=1000", "--interval=15s", f"--chart={tmp_path / 'bill.png'}"])
    printed = capsys.readouterr().out
    for expected in ("Pub/Sub", "total with storage_write", "458.5", "https://cloud.google.com/dataflow/pricing"):
        assert expected in printed
    assert (tmp_path / "bill.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--rate=0"], "--rate: expected a whole number above 0"),
        (["--rate=1", "--interval=15"], "--interval: expected a whole number above 0 with s, m or h"),
        (["--rate=1", "--unknown=" + "\x1b[2J\n" * 2_000], "unrecognized arguments: --unknown="),
        ([], "the following arguments are required: --rate"),
    ],
)
def test_main_reports_a_wrong_flag_on_one_short_line(flags, fault, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {fault}")
    assert line.isprintable()
    assert len(line) < 600
