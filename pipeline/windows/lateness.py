"""Lateness: whether readings are on time, late, or expired. It is decided here, and nowhere else.

Readings are compared with the watermark, for each interval that they belong to:

    interval=15s, grace=5s, allowed_lateness=1h
    interval     [00:00:00 ---- 00:00:15)
    on time      until the watermark passes 00:00:20 (end + grace)     in the row
    late         until it passes 01:00:20 (+ allowed_lateness)         dead letter `Late`; with `revise` a new revision
    expired      after that                                            dead letter `Expired`

A DoFn cannot read the watermark, so its position is derived from what the runner shows:

- Fixed and hopping windows: each pane of a GroupByKey has a timing, which is LATE once the watermark has passed the end
  of the window. The windows of `CombineSums` end when rows are due, so its late panes are late (`pane_lateness`). But a
  GroupByKey silently drops elements more than the allowed lateness behind the watermark. So sums that may have expired
  first pass a GroupByKey that drops nothing, and whose windows end when intervals expire; its late panes have expired
  (`is_expired`). Sums that have not expired by the worker's clock skip that step (`expiry_cutoff`).
- Sessions: the state of a device has the end of the last session that cannot change any more. A run that would
  change it is late, or with `revise` expired, because a session that can still be revised is not final
  (`run_lateness`).
"""

from typing import Any

from apache_beam.utils.windowed_value import PaneInfoTiming

from pipeline.aggregate.sums import SECOND

# Values of `Interval.late`, which are the errors of dead letters.
LATE, EXPIRED = "Late", "Expired"

# The message of dead letters with these errors.
MEANINGS = {
    LATE: "these readings came after the row of their interval was emitted",
    EXPIRED: "these readings came more than allowed_lateness after their interval was closed",
}


def pane_lateness(pane: Any, revise: bool) -> str | None:
    """Return LATE if the pane of an interval fired after its row was due, None if its sums belong in a row."""
    return LATE if pane.timing == PaneInfoTiming.LATE and not revise else None


def is_expired(pane: Any) -> bool:
    """Return whether a pane of `GroupUntilExpiry` fired after its interval had expired."""
    return pane.timing == PaneInfoTiming.LATE


def expiry_cutoff(now: float, due_after: int, allowed_lateness: int) -> float:
    """Return the start of the oldest interval that has not expired by the clock, in microseconds since the epoch.

    Args:
      now: the clock, seconds since the epoch.
      due_after: seconds from the start of an interval until its row is due.
      allowed_lateness: seconds from then until the interval expires.
    """
    return (now - due_after - allowed_lateness) * SECOND


def run_lateness(last: int, final_until: int, revise: bool) -> str | None:
    """Return why a run of readings cannot be in a session's row, LATE or EXPIRED; None if it can.

    Args:
      last: time of the run's last reading, microseconds since the epoch.
      final_until: end of the device's last final session, microseconds since the epoch.
      revise: whether rows are revised, so that a session is only final when it has expired.
    """
    if last >= final_until:
        return None
    return EXPIRED if revise else LATE
