"""`python -m tests.e2e.slow_pipeline FLAGS`: the pipeline on this machine, with steps that stop now and then.

The local runner takes a bundle through all steps before it reads the next one, so that a slow step delays the reader.
Some stops are longer than the reader looks back to know whether it has caught up (2 s), and one is longer than messages
that were pulled ahead may wait before they are returned to Pub/Sub (8 s). In each case messages of the backlog have not
been read yet, and the watermark must not pass their times.
"""

import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from local.__main__ import main
from local.runner.pubsub_source import MAX_HOLD
from local.runner.watermark import CATCH_UP, SECOND
from pipeline.aggregate import fold
from pipeline.windows import fixed

SHORT, LONG = CATCH_UP / SECOND + 0.5, MAX_HOLD / SECOND + 1


def stop_at(step: Any, method: str, stops: Mapping[int, float]) -> None:
    """Delay calls of a step's method; `stops` has the seconds by the number of the call."""
    calls = itertools.count(1)
    original: Callable[..., Any] = getattr(step, method)

    @functools.wraps(original)  # Beam inspects its arguments
    def stopping(self: Any, *arguments: Any, **options: Any) -> Any:
        if seconds := stops.get(next(calls)):
            print(f"{step.__name__}.{method} stops for {seconds:g} s", flush=True)
            time.sleep(seconds)
        return original(self, *arguments, **options)

    setattr(step, method, stopping)


if __name__ == "__main__":
    stop_at(fold._Fold, "finish_bundle", {3: LONG, 12: SHORT})
    stop_at(fixed._AssignExpiryWindow, "process", {100: SHORT, 1000: SHORT})
    stop_at(fixed._SplitExpired, "process", {500: SHORT})
    sys.exit(main(["pipeline", *sys.argv[1:]]))
