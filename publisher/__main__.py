"""Entry point of `python -m publisher`; the command line itself is publisher.cli."""

import gc
import importlib
import signal
import sys

if __name__ == "__main__":
    # Importing takes half a second, in which Ctrl-C shall end the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    cli = importlib.import_module("publisher.cli")
    # What was imported stays. Going through it for garbage again and again costs a fifth of a fast run.
    gc.freeze()
    sys.exit(cli.main())
