"""The README's picture: `make picture` writes it."""

import json
import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean

from playwright.sync_api import expect

from publisher.sensors import CURVES, readings

MESSAGES = "data:BYTES,message_id:STRING,publish_time:TIMESTAMP"


def test_the_picture(warehouse, serve, visit, tmp_path):
    interval = timedelta(seconds=5)
    start = datetime.fromtimestamp((datetime.now(UTC).timestamp() - 127) // 5 * 5, UTC)
    published = list(
        readings(list(CURVES), devices=2, rate=30, start_ms=int(start.timestamp() * 1000), total=30 * 125, seed=7)
    )
    cells = defaultdict(list)
    messages = []
    for one in published:
        time = datetime.fromtimestamp(one.time_ms / 1000, UTC)
        cells[start + (time - start) // interval * interval, one.device, one.sensor].append(one.value)
        data = json.dumps({"Timestamp": one.timestamp, "Device": one.device, one.sensor: one.value}).encode()
        messages.append({"data": data, "message_id": str(one.number), "publish_time": time})
    rows = defaultdict(dict)
    for (time, device, sensor), values in cells.items():
        rows[time, device][sensor] = fmean(values)
    warehouse.create(
        f"Timestamp:TIMESTAMP,Device:STRING,{','.join(f'{name}:FLOAT' for name in CURVES)}",
        [{"Timestamp": time, "Device": device, **means} for (time, device), means in rows.items()],
    )
    warehouse.create(MESSAGES, messages, "messages")
    warehouse.create_dead_letters(
        [("decode", "NotJson", start), ("validate", "NoKnownSensor", start), *[("late", "Late", start)] * 4]
    )
    balance = tmp_path / "balance.json"
    balance.write_text(json.dumps({"published": 3756, "averaged": 3744, "dead_lettered": 6, "duplicates": 0}))
    url = serve(
        warehouse.flag(),
        f"--readings={warehouse.project}:{warehouse.dataset}.messages",
        f"--balance={balance}",
    )
    where = Path(os.environ.get("PICTURE") or tmp_path / "dashboard.png")
    for name, how in {
        where.name: {},
        "dark.png": {"color_scheme": "dark"},
        "phone.png": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
    }.items():
        page = visit(url, device_scale_factor=1, **how)
        expect(page.locator(".nicegui-echart svg").last).to_be_visible()
        page.screenshot(path=where.with_name(name), full_page=True)
