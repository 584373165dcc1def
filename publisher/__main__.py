"""Entry point of `python -m publisher`; the command line itself is publisher.cli."""

import importlib
import signal
import sys

if __name__ == "__main__":
    # Importing takes half a second, in which Ctrl-C shall end the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(importlib.import_module("publisher.cli").main())
