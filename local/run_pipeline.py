"""`python -m local pipeline`: the shipped pipeline in this process, reading Pub/Sub through local.pubsub_source."""

import os
import sys
import traceback
from typing import NoReturn

from local import pubsub_source
from pipeline.main import main as run_pipeline


def main(argv: list[str]) -> NoReturn:
    """Run the pipeline with its own flags `argv`; exits with its exit code, 1 if it fails, 130 on Ctrl-C."""
    pubsub_source.install()
    try:
        code = run_pipeline(argv)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        code = 130
    except Exception:
        traceback.print_exc()
        code = 1
    pubsub_source.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # The runner's threads are in the middle of something: an orderly exit would wait for them, or trip over them.
    os._exit(code)
