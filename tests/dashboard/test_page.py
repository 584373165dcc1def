"""The page in a real browser shows what the tables in the BigQuery emulator hold.

`shared_page` still shows the rows of the previous test, so each of its tests waits for another number of rows.
"""

import json
import re
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from local.stack import emulators
from tests.dashboard.conftest import PHONE, Warehouse, drawn, lines, serving, table

ROW = ".rows tbody tr:has(td)"
COLUMNS = "Timestamp:TIMESTAMP,AtmP:FLOAT,Temp:FLOAT"


def ago(seconds: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=seconds)


def some_rows(count: int, step: float = 15) -> list[dict]:
    """Rows `step` seconds apart, the newest 20 s old."""
    newest = ago(20)
    return [
        {"Timestamp": newest - timedelta(seconds=step * i), "AtmP": 1013 + i / 8, "Temp": 21.5 - i / 4}
        for i in range(count)
    ]


def points(rows: list[dict], sensor: str) -> list[list[float]]:
    """Return the expected points of a line: (milliseconds, value), oldest first."""
    ordered = sorted(rows, key=lambda row: row["Timestamp"])
    return [[row["Timestamp"].timestamp() * 1000, row[sensor]] for row in ordered if row[sensor] is not None]


def test_page_shows_the_rows_of_the_table_and_adds_new_ones(warehouse, shared_page, visit):
    rows = some_rows(8)
    rows[3]["Temp"] = None
    warehouse.create(COLUMNS, rows)
    warehouse.create_dead_letters([("late", "Late", ago(9)), ("late", "Late", ago(8)), ("decode", "NotJson", ago(7))])

    page = visit(shared_page)
    expect(page.locator(ROW)).to_have_count(8)

    assert lines(page) == {sensor: [points(warehouse.rows(), sensor)] for sensor in ("AtmP", "Temp")}
    assert table(page)[0] == [f"{rows[0]['Timestamp']:%Y-%m-%d %H:%M:%S}", "1013", "21.5"]
    assert table(page)[3][2] == ""
    assert [cells[:3] for cells in table(page, "kinds")] == [["late", "Late", "2"], ["decode", "NotJson", "1"]]
    expect(page.get_by_text("15 s apart")).to_be_visible()
    expect(page.locator(".foot")).to_contain_text("dead letters 0 B; the emulator does not count bytes")

    new = {"Timestamp": rows[0]["Timestamp"] + timedelta(seconds=15), "AtmP": 1012.25, "Temp": 22.125}
    warehouse.insert([new])
    expect(page.locator(ROW)).to_have_count(9)
    assert table(page)[0][1:] == ["1012.25", "22.125"]
    assert lines(page)["Temp"][0][-1] == [new["Timestamp"].timestamp() * 1000, 22.125]


def test_chart_has_a_gap_where_rows_are_missing(warehouse, shared_page, visit):
    rows = some_rows(9)
    del rows[3:6]
    warehouse.create(COLUMNS, rows)
    page = visit(shared_page)
    expect(page.locator(ROW)).to_have_count(6)
    [series] = drawn(page)["Temp"]
    # The lines of the row before the gap and of the newest row end with their intervals.
    for row in (rows[3], rows[0]):
        end = (row["Timestamp"].timestamp() + 15) * 1000
        assert {"value": [end, row["Temp"]], "symbol": "none"} in series["data"]
        assert [end, None] in series["data"]
    assert len(series["data"]) == 6 + 2 * 2


def test_page_reports_an_empty_table_and_a_missing_dead_letter_table(warehouse, shared_page, visit):
    warehouse.create(COLUMNS)
    page = visit(shared_page)
    expect(page.get_by_text("no row in the last 1 h")).to_be_visible()
    expect(
        page.get_by_text(f"There is no table {warehouse.project}:{warehouse.dataset}.readings_dead_letters")
    ).to_be_visible()
    assert lines(page) == {"AtmP": [[]], "Temp": [[]]}


def test_page_shows_other_sensors_devices_and_statistics(warehouse, serve, visit):
    rows = [
        {
            "Timestamp": ago(30 + 15 * i),
            "Device": device,
            "CO2": 400.0 + i + extra,
            "CO2_min": 390.0 + i,
            "CO2_max": 415.0 + i,
            "CO2_count": 6,
            "Wind_out": 3.5,
            "Wind_out_min": 3.0,
            "Wind_out_max": 4.0,
            "Wind_out_count": 6,
        }
        for i in range(5)
        for device, extra in (("north", 0), ("south", 5))
    ]
    sensors = (f"{name}:FLOAT,{name}_min:FLOAT,{name}_max:FLOAT,{name}_count:INTEGER" for name in ("CO2", "Wind_out"))
    warehouse.create(f"{','.join(sensors)},Device:STRING,Timestamp:TIMESTAMP", rows)
    warehouse.create_dead_letters([("late", "Late", ago(9))])
    page = visit(serve("--sensors=CO2,Wind_out", "--statistics=mean,min,max,count"))
    expect(page.locator(ROW)).to_have_count(10)

    of = {device: [row for row in warehouse.rows() if row["Device"] == device] for device in ("north", "south")}
    assert lines(page) == {s: [points(of[device], s) for device in of] for s in ("CO2", "Wind_out")}
    bands = [series["data"] for series in drawn(page)["CO2"] if series["name"] == "span"]
    *low, end, hole = bands[0]
    assert low == points(of["north"], "CO2_min")
    assert (end["value"], hole) == ([low[-1][0] + 15_000, 390.0], [low[-1][0] + 15_000, None])
    assert [height for _, height in bands[1][:5]] == [25.0] * 5
    statistics = ["CO2_min", "CO2_max", "CO2_count", "Wind_out_min", "Wind_out_max", "Wind_out_count"]
    headings = page.locator(".rows th").all_inner_texts()
    assert headings == ["Timestamp", "Device", "CO2", "Wind_out", *statistics]
    # The counts are of values: 60 readings with both sensors, or 120 with one each.
    expect(page.get_by_text("Balance of readings")).to_have_count(0)


def test_page_shows_sensors_that_are_named_like_statistics(warehouse, shared_page, visit):
    names = ("Rain", "Rain_sum", "Pulse", "Pulse_count", "Pulse_min", "Pulse_max", "Newest", "readings")
    rows = [{"Timestamp": ago(20 + 15 * i), **dict.fromkeys(names, 1.5 + i)} for i in range(7)]
    warehouse.create(",".join(["Timestamp:TIMESTAMP", *(f"{name}:FLOAT" for name in names)]), rows)
    page = visit(shared_page)
    expect(page.locator(ROW)).to_have_count(7)
    assert lines(page) == {name: [points(rows, name)] for name in names}
    assert [one["name"] for every in drawn(page).values() for one in every] == [*names]


def test_page_shows_newest_revisions_without_retracted_rows(warehouse, shared_page, visit):
    first, second = some_rows(2)
    warehouse.create(
        f"{COLUMNS},Revision:INTEGER,WrittenAt:TIMESTAMP",
        [
            {**first, "Revision": 0, "WrittenAt": ago(3)},
            {**second, "Revision": 0, "WrittenAt": ago(3)},
            {**first, "Temp": 30.5, "Revision": 1, "WrittenAt": ago(2)},
            {"Timestamp": second["Timestamp"], "AtmP": None, "Temp": None, "Revision": 1, "WrittenAt": ago(2)},
        ],
    )
    page = visit(shared_page)
    expect(page.locator(ROW)).to_have_count(1)
    assert lines(page)["Temp"] == [points([{**first, "Temp": 30.5}], "Temp")]


def test_page_shows_at_most_ten_thousand_rows(warehouse, shared_page, visit):
    rows = some_rows(10_050, step=0.25)
    warehouse.create(COLUMNS, rows)
    page = visit(shared_page)
    expect(page.locator("[data-figure=rows]")).to_have_text("10,000+")
    assert lines(page) == {sensor: [points(rows[:10_000], sensor)] for sensor in ("AtmP", "Temp")}
    assert len(table(page)) == 50


def test_page_shows_readings_and_balance_when_given(warehouse, serve, visit, tmp_path):
    newest = ago(20)
    warehouse.create(COLUMNS, some_rows(3))
    stamp = newest.isoformat()
    messages = [
        json.dumps({"Timestamp": stamp, "Temp": 21.25}),
        json.dumps([{"Timestamp": newest.timestamp(), "Temp": 21.75}, {"Timestamp": stamp, "AtmP": 1013}]),
        "no JSON",
        json.dumps({"Timestamp": "noon", "Temp": 1}),
    ]
    warehouse.create(
        "data:BYTES,message_id:STRING,publish_time:TIMESTAMP",
        [{"data": m.encode(), "message_id": str(i), "publish_time": newest} for i, m in enumerate(messages)],
        "messages",
    )
    balance = tmp_path / "balance.json"
    balance.write_text('{"published": 1100, "averaged": 1000, "dead_lettered": 30, "duplicates": 20}')
    extra = f"--readings={warehouse.project}:{warehouse.dataset}.messages"
    page = visit(serve(extra, f"--balance={balance}"))
    expect(page.get_by_text("3 readings of 4 messages")).to_be_visible()
    at = newest.timestamp() * 1000
    dots = {s: [sorted(one["data"]) for one in every if one["name"] == "readings"] for s, every in drawn(page).items()}
    assert dots == {"AtmP": [[[at, 1013]]], "Temp": [[[at, 21.25], [at, 21.75]]]}
    expect(page.locator(".terms")).to_have_text(
        re.compile(r"^1,100published=1,000averaged\+30dead-lettered\+20duplicates\+50in transit$")
    )
    balance.write_text("{")
    expect(page.locator("[role=alert]")).to_contain_text(f"The balance in {balance} cannot be read")


def test_page_shows_one_sentence_until_the_table_exists(warehouse, serve, visit):
    page = visit(serve())
    expect(page.locator("[role=alert]")).to_contain_text("There is no such table")
    expect(page.locator(".figures")).to_be_hidden()
    warehouse.create(COLUMNS, some_rows(2))
    expect(page.locator(ROW)).to_have_count(2)
    expect(page.locator("[role=alert]")).to_be_hidden()


def test_page_keeps_the_last_snapshot_while_bigquery_is_unreachable(project, visit, tmp_path, monkeypatch):
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("BQEMU_PERSISTENCE_MODE", "persistent")
    monkeypatch.setenv("BQEMU_DATA_DIR", str(tmp_path / "data"))
    with ExitStack() as stack:
        with emulators.bigquery_emulator(project, log_dir=tmp_path) as emulator:
            emulators.create_dataset(emulator.host, project, "sensors")
            here = Warehouse(
                emulator.env["BIGQUERY_EMULATOR_HOST"],
                project,
                "sensors",
                emulators.bigquery_client(emulator.host, project),
            )
            here.create(COLUMNS, some_rows(3))
            page = visit(stack.enter_context(serving(here.host, here.flag(), log=tmp_path / "page.log")))
            expect(page.locator(ROW)).to_have_count(3)
        expect(page.locator("[role=alert]")).to_contain_text("BigQuery cannot be reached or failed")
        expect(page.locator(ROW)).to_have_count(3)
        with emulators.bigquery_emulator(project, int(emulator.host.rpartition(":")[2]), tmp_path):
            here.insert([{"Timestamp": ago(1), "AtmP": 1000, "Temp": 20}])
            expect(page.locator(ROW)).to_have_count(4)
            expect(page.locator("[role=alert]")).to_be_hidden()


def test_page_fits_a_phone_in_the_browsers_colours(warehouse, shared_page, visit):
    warehouse.create(f"{COLUMNS},{','.join(f'S{i}:FLOAT' for i in range(12))}", some_rows(20))
    warehouse.create_dead_letters([("insert", "a long reason " * 20, ago(5))])
    for scheme in ("light", "dark"):
        page = visit(shared_page, viewport=PHONE, color_scheme=scheme)
        expect(page.locator(ROW)).to_have_count(20)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        for selector, style, dark in [
            ("body", "backgroundColor", "below 60"),
            (".card", "backgroundColor", "below 60"),
            (".nicegui-echart text", "fill", "above 120"),
            (".rows td", "color", "above 200"),
        ]:
            # Charts are redrawn once they know the browser's colours.
            page.wait_for_function(HAS_BRIGHTNESS, arg=[selector, style, dark, scheme == "dark"])


# Whether the brightness of a colour, 0 for black and 255 for white, is that of dark mode, or is not.
HAS_BRIGHTNESS = """([selector, style, dark, expected]) => {
    const element = document.querySelector(selector);
    if (!element) return false;
    const [red, green, blue] = getComputedStyle(element)[style].match(/\\d+/g).map(Number);
    const brightness = (red + green + blue) / 3, [side, limit] = dark.split(" ");
    return (side === "below" ? brightness < limit : brightness > limit) === expected;
}"""
