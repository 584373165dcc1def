"""`python -m tests.e2e.slow_pipeline FLAGS`: the shipped pipeline on this machine, with steps that stop now and then.

The local runner takes a bundle through all steps before it reads the next one. So a slow step holds up nothing between
steps: it holds up reading. Each stop is longer than the reader looks back to know whether it is at the present (2 s),
and one is longer than what was pulled ahead may wait before it is given back to Pub/Sub (8 s). In each case messages of
the backlog are still to come, and the watermark must not pass their times.
"""

import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from local.__main__ import main
from local.runner.pubsub_source import HELD
from local.runner.watermark import CATCH_UP, SECOND
from pipeline.aggregate import fold
from pipeline.windows import fixed

SHORT, LONG = CATCH_UP / SECOND + 0.5, HELD / SECOND + 1


def stop_at(step: Any, method: str, stops: Mapping[int, float]) -> None:
    """Have the calls of a step's method with these numbers stop for so many seconds before they do anything."""
    calls = itertools.count(1)
    shipped: Callable[..., Any] = getattr(step, method)

    @functools.wraps(shipped)  # Beam reads what it takes
    def stopping(self: Any, *arguments: Any, **named: Any) -> Any:
        if seconds := stops.get(next(calls)):
            print(f"{step.__name__}.{method} stops for {seconds:g} s", flush=True)
            time.sleep(seconds)
        return shipped(self, *arguments, **named)

    setattr(step, method, stopping)


if __name__ == "__main__":
    stop_at(fold._Fold, "finish_bundle", {3: LONG, 12: SHORT})
    stop_at(fixed._AssignExpiryWindow, "process", {100: SHORT, 1000: SHORT})
    stop_at(fixed._SplitExpired, "process", {500: SHORT})
    sys.exit(main(["pipeline", *sys.argv[1:]]))
