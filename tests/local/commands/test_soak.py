"""A short soak, as `make soak` runs it."""

import re
from pathlib import Path

import pytest

from local.__main__ import main
from tests.local.commands.test_commands import running

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("seconds", ["soon", "19", "nan", "1e9"])
def test_soak_refuses_a_wrong_length_in_one_line(seconds, capsys, monkeypatch) -> None:
    monkeypatch.setattr("local.__main__.interrupt_once", lambda: None)
    monkeypatch.setenv("SOAK_SECONDS", seconds)
    assert main(["soak"]) == 1
    assert capsys.readouterr().err.startswith(f"error: SOAK_SECONDS={seconds} must be")


def test_soak_refuses_to_kill_a_bigquery_emulator_that_it_did_not_start(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("local.__main__.interrupt_once", lambda: None)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    assert main(["soak"]) == 1
    assert "unset BIGQUERY_EMULATOR_HOST" in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_soak_accounts_for_every_message_after_bigquery_and_pipeline_were_killed(
    pubsub_server: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("BIGQUERY_EMULATOR_HOST", "WRITE_METHOD"):
        monkeypatch.delenv(variable, raising=False)
    env = {"PUBSUB_EMULATOR_HOST": pubsub_server, "PYTHONPATH": str(ROOT), "SOAK_SECONDS": "25"}
    with running(tmp_path, "soak", **env) as child:
        child.process.wait(280)
    log = child.log.read_text()
    assert child.process.returncode == 0, log
    assert "Everything balances." in log
    assert re.search(r"Killed the pipeline; .*rows_since=", log)
    counts = {name.strip(): int(count) for name, count in re.findall(r"^ ([a-z ]+?) +(\d+) *$", log, re.MULTILINE)}
    assert counts["published"] >= 900
    assert min(counts[name] for name in ("averaged", "refused", "duplicates")) > 0, log
    assert counts["silences"] >= 1
    assert counts["rows found"] == counts["rows expected"] >= 10
