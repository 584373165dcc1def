"""The README's picture: `make picture` writes it; a test run writes it to a temporary folder."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean

from playwright.sync_api import expect

from publisher.sensors import CURVES, readings
from tests.dashboard.conftest import PHONE

UNITS = {"Airtight": "Pa", "AtmP": "hPa", "H2OC": "%", "Temp": "°C"}
INTERVAL = timedelta(seconds=5)
ROWS = 24


def simulated_readings(end: datetime) -> Iterator[tuple[datetime, str, str, float]]:
    """Yield readings of two devices for the intervals up to `end`, and for the one that is still open."""
    start = end - ROWS * INTERVAL
    for one in readings(list(CURVES), devices=2, rate=20, start_ms=int(start.timestamp() * 1000), total=2460, seed=5):
        yield datetime.fromtimestamp(one.time_ms / 1000, UTC), one.device, one.sensor, one.value


def test_page_draws_the_readmes_picture(warehouse, serve, visit, tmp_path):
    columns = ",".join(f"{name}:FLOAT:{unit}" for name, unit in UNITS.items())
    warehouse.create(f"Timestamp:TIMESTAMP,Device:STRING,{columns}")
    warehouse.create("data:BYTES,message_id:STRING,publish_time:TIMESTAMP", table="messages")
    balance = tmp_path / "balance.json"
    balance.write_text('{"published": 2466, "averaged": 2400, "dead_lettered": 6, "duplicates": 0}')
    url = serve(f"--readings={warehouse.project}:{warehouse.dataset}.messages", f"--balance={balance}")
    size = {"width": 1280, "height": 1060}
    settings = {
        "light": {"viewport": size},
        "dark": {"viewport": size, "color_scheme": "dark"},
        "phone": {"viewport": PHONE, "color_scheme": "dark"},
    }
    pages = {name: visit(url, **options) for name, options in settings.items()}

    # The end of the last interval; readings go on for 3 s.
    end = datetime.fromtimestamp((datetime.now(UTC).timestamp() - 3) // 5 * 5, UTC)
    cells: dict = defaultdict(lambda: defaultdict(list))
    messages = []
    for at, device, sensor, value in simulated_readings(end):
        data = json.dumps({"Timestamp": at.isoformat(), "Device": device, sensor: value}).encode()
        messages.append({"data": data, "message_id": str(len(messages)), "publish_time": at})
        if at < end:
            cells[at - (at - end) % INTERVAL, device][sensor].append(value)
    rows = [
        {"Timestamp": start, "Device": device, **{name: fmean(values) for name, values in means.items()}}
        for (start, device), means in cells.items()
    ]
    late = [("late", "Late", end - k * INTERVAL) for k in range(1, 4)]
    refused = [("decode", "NotJson", end), ("validate", "NoKnownSensor", end), ("timestamp", "BadTimestamp", end)]
    warehouse.create_dead_letters([*late, *refused])
    warehouse.insert(messages, "messages")
    warehouse.insert(rows)

    target = Path(os.environ.get("PICTURE") or tmp_path / "dashboard.png")
    for name, page in pages.items():
        expect(page.locator("[data-figure=rows]")).to_have_text(f"{2 * ROWS}")
        expect(page.get_by_text("2,000 readings of 2,460 messages")).to_be_visible()
        page.screenshot(path=target if name == "light" else tmp_path / f"{name}.png", full_page=name == "phone")
    assert target.read_bytes().startswith(b"\x89PNG")
