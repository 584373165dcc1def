"""A backlog that is older than the allowed lateness, read by a pipeline whose steps stop now and then."""

import math
import time

from local.stack.processes import wait_for
from tests.e2e.conftest import TIMEOUT_SECONDS, Stack
from tests.e2e.test_pipeline import SENSORS, backlog, by_timestamp, expected_rows, reading

HOUR = 3600
INTERVAL = 10  # seconds


def test_backlog_older_than_allowed_lateness_is_exact_with_slow_steps_and_live_readings(stack: Stack):
    # Two hours of two devices, the second device's after all of the first one's, eight hours ago.
    start = math.floor(time.time() / INTERVAL) * INTERVAL - 8 * HOUR
    readings = backlog(20_000, start, 0.72, ("north", "south"))
    assert (readings[0][0], math.ceil(readings[-1][0])) == (start, start + 2 * HOUR)
    stack.publish([reading(*each) for each in readings])
    flags = [f"--interval={INTERVAL}s", "--grace_period=3s", "--allowed_lateness=1h", "--timestamp_attribute=timestamp"]
    flags += [f"--input_subscription={stack.subscription}", stack.table_flag]
    with stack.start(*flags, entry=("tests.e2e.slow_pipeline",)) as pipeline:

        def backlog_is_written() -> bool:
            """Return whether all rows of the backlog are written; each call publishes a live reading."""
            now = round(time.time(), 3)
            readings.append((now, SENSORS[len(readings) % 4], float(len(readings)), "north"))
            stack.publish([reading(*readings[-1])])
            return len(stack.rows()) >= 2 * HOUR / INTERVAL

        wait_for(pipeline, backlog_is_written, TIMEOUT_SECONDS)
        expected = expected_rows(readings, INTERVAL)
        rows = stack.wait_for_rows(pipeline, len(expected))
    log = pipeline.log.read_text()
    stops = [log.count(f"{step}.") for step in ("_Fold", "_AssignExpiryWindow", "_SplitExpired")]
    assert (stops, stack.rows("readings_dead_letters")) == ([2, 2, 1], [])
    assert by_timestamp(rows) == expected
