"""The runbook: a section for each alert, and queries that find what they should."""

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


def test_it_has_a_section_for_each_alert_and_no_other():
    assert list(SECTIONS) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("section", SECTIONS)
def test_each_names_three_causes_how_to_tell_them_and_the_cure(section):
    rows = SECTIONS[section].partition("| cause | how to tell | cure |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    causes = [line.strip("| ").split(" | ") for line in rows.splitlines()]
    assert [len(cause) for cause in causes] == [3, 3, 3]


@pytest.fixture(scope="module")
def ask(bigquery_emulator, project):
    """Returns ask(text), which runs a section's query on three dead letters and two silences, one of them over."""
    bq = bigquery_client(bigquery_emulator.removeprefix("http://"), project)
    create_dataset(bigquery_emulator.removeprefix("http://"), project, "runbook")
    table = f"{project}.runbook.readings_dead_letters"
    bq.create_table(bigquery.Table(table, schema=DEAD_LETTER_COLUMNS))
    letters = [
        dead_letter("decode", "NotJson", "not JSON", b"{'a': 1}", device="pump-1"),
        dead_letter("late", "Late", "too late", b"{}", event_time=EARLIER, device="pump-2"),
        dead_letter("average", "Overflow", "too large", b'{"readings": 2}', event_time=EARLIER, device="pump-3"),
    ]
    assert bq.insert_rows_json(table, letters) == []

    silences = f"{project}.runbook.readings_silences"
    bq.create_table(bigquery.Table(silences, schema=SILENCE_COLUMNS))
    noticed = [{"Device": device, "SilentSince": EARLIER, "NoticedAt": EARLIER} for device in ("pump-1", "pump-2")]
    assert bq.insert_rows_json(silences, [*noticed, noticed[0] | {"BackAt": EARLIER}]) == []
    places = {"\\`$LETTERS\\`": table, "\\`${BQ_TABLE/:/.}_silences\\`": silences}

    def run(text: str) -> list[tuple]:
        [query] = re.findall(r'bq query --use_legacy_sql=false "(.*?)"\n', text, re.DOTALL)
        for place, name in places.items():
            query = query.replace(place, f"`{name}`")
        return [tuple(row.values()) for row in bq.query_and_wait(query)]

    return run


def test_the_first_query_tells_errors_and_devices(ask):
    found = ask(PAGE.partition("\n## ")[0])
    assert sorted(found) == [
        ("average", "Overflow", "pump-3", 1, "too large"),
        ("decode", "NotJson", "pump-1", 1, "not JSON"),
        ("late", "Late", "pump-2", 1, "too late"),
    ]


def test_refused_bytes_are_shown_as_text(ask):
    assert ask(SECTIONS["readings-refused"]) == [("{'a': 1}", "NotJson", "not JSON")]


def test_how_late_is_told_by_device(ask):
    [(device, letters, seconds)] = ask(SECTIONS["readings-late"])
    assert (device, letters) == ("pump-2", 1)
    assert 90 <= seconds <= 1 + (datetime.now(UTC) - datetime.fromisoformat(EARLIER)).total_seconds()


def test_sums_that_overflow_are_shown(ask):
    [(_, device, sums)] = ask(SECTIONS["sums-overflow"])
    assert (device, sums) == ("pump-3", '{"readings": 2}')


def test_only_silences_that_last_are_shown(ask):
    [(device, since, noticed)] = ask(SECTIONS["devices-silent"])
    assert device == "pump-2"
    assert since == noticed == datetime.fromisoformat(EARLIER)
