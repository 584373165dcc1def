"""`python -m local pipeline`: the pipeline in this process, with the source of `local.runner.pubsub_source`."""

import logging
import os
import signal
import sys
import threading
import traceback
from typing import NoReturn

from local.runner import beam_patches, pubsub_source
from local.stack.processes import STOP_SIGNALS
from pipeline.main import main as run_pipeline


def main(argv: list[str]) -> NoReturn:
    """Run the pipeline with its flags; ends this process with its exit code, 1 if it fails, 130 if stopped.

    The caller must have blocked STOP_SIGNALS. A thread waits for them, because Beam can swallow a KeyboardInterrupt.
    """
    threading.Thread(target=_await_stop, daemon=True).start()
    beam_patches.install()
    try:
        code = run_pipeline(argv, runner_removes_duplicates=True)
    except Exception:
        traceback.print_exc()
        code = 1
    _end(code)


def _await_stop() -> None:
    signal.sigwait(STOP_SIGNALS)
    print("Stopped.", file=sys.stderr)
    # Threads of the runner may still pull from the subscription that is being deleted, and log errors.
    logging.disable()
    _end(130)


def _end(code: int) -> NoReturn:
    pubsub_source.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # The runner's threads are still working: a normal exit would wait for them, or fail in them.
    os._exit(code)
