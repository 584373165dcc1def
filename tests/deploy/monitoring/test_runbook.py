"""The runbook: its sections, and what its queries return."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud import bigquery

from deploy.monitoring.alerts import ALERTS
from local.stack.emulators import bigquery_client, create_dataset
from pipeline.dead_letters import dead_letter
from pipeline.launch.tables import DEAD_LETTER_COLUMNS, SILENCE_COLUMNS
from tests.deploy.template.fake_google import ROOT

PAGE = (ROOT / "docs/runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
EARLIER = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()


def test_runbook_has_exactly_the_sections_of_the_alerts():
    assert list(SECTIONS) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("section", SECTIONS)
def test_runbook_section_names_three_causes_with_sign_and_fix(section):
    text = " ".join(SECTIONS[section].split())
    causes = re.findall(r"- \*\*[^*]+\.\*\* Sign: (?:(?!- \*\*).)+ Fix: (?:(?!- \*\*).)+", text)
    assert len(causes) == SECTIONS[section].count("\n- **") == 3


@pytest.fixture(scope="module")
def ask(bigquery_emulator, project):
    """A function that runs the query of a section on three dead letters and two silences, of which one is over."""
    bq = bigquery_client(bigquery_emulator.removeprefix("http://"), project)
    create_dataset(bigquery_emulator.removeprefix("http://"), project, "runbook")
    table = f"{project}.runbook.readings_dead_letters"
    bq.create_table(bigquery.Table(table, schema=DEAD_LETTER_COLUMNS))
    dead_letters = [
        dead_letter("decode", "NotJson", "not JSON", b"{'a': 1}", device="pump-1"),
        dead_letter("late", "Late", "too late", b"{}", event_time=EARLIER, device="pump-2"),
        dead_letter("average", "Overflow", "too large", b'{"readings": 2}', event_time=EARLIER, device="pump-3"),
    ]
    assert bq.insert_rows_json(table, dead_letters) == []

    silences = f"{project}.runbook.readings_silences"
    bq.create_table(bigquery.Table(silences, schema=SILENCE_COLUMNS))
    noticed = [{"Device": device, "SilentSince": EARLIER, "NoticedAt": EARLIER} for device in ("pump-1", "pump-2")]
    assert bq.insert_rows_json(silences, [*noticed, noticed[0] | {"BackAt": EARLIER}]) == []
    places = {"\\`$DEAD_LETTERS\\`": table, "\\`${BQ_TABLE/:/.}_silences\\`": silences}

    def run(text: str) -> list[tuple]:
        [query] = re.findall(r'bq query --use_legacy_sql=false "(.*?)"\n', text, re.DOTALL)
        for place, name in places.items():
            query = query.replace(place, f"`{name}`")
        return [tuple(row.values()) for row in bq.query_and_wait(query)]

    return run


def test_first_query_counts_dead_letters_by_error_and_device(ask):
    found = ask(PAGE.partition("\n## ")[0])
    assert sorted(found) == [
        ("average", "Overflow", "pump-3", 1, "too large"),
        ("decode", "NotJson", "pump-1", 1, "not JSON"),
        ("late", "Late", "pump-2", 1, "too late"),
    ]


def test_payload_query_returns_refused_bytes_as_text(ask):
    assert ask(SECTIONS["readings-refused"]) == [("{'a': 1}", "NotJson", "not JSON")]


def test_lateness_query_returns_the_percentile_of_each_device(ask):
    [(device, dead_letters, seconds)] = ask(SECTIONS["readings-late"])
    assert (device, dead_letters) == ("pump-2", 1)
    assert 90 <= seconds <= 1 + (datetime.now(UTC) - datetime.fromisoformat(EARLIER)).total_seconds()


def test_overflow_query_returns_the_sums(ask):
    [(_, device, sums)] = ask(SECTIONS["sums-overflow"])
    assert (device, sums) == ("pump-3", '{"readings": 2}')


def test_silence_query_returns_only_silences_that_last(ask):
    [(device, since, noticed)] = ask(SECTIONS["devices-silent"])
    assert device == "pump-2"
    assert since == noticed == datetime.fromisoformat(EARLIER)
