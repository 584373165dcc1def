"""`python -m local up | demo | soak | pipeline`: see USAGE."""

import importlib
import signal
import sys

from local.stack.processes import STOP_SIGNALS, LocalStackError, guard, interrupt_once

USAGE = """\
usage: python -m local COMMAND ...

  up        run the Pub/Sub and BigQuery emulators until Ctrl-C, and print the environment that points to them
  demo      run publisher and pipeline on emulators, show the rows, check every one
            (DEMO_SECONDS=60, WRITE_METHOD=streaming_inserts)
  soak      run both on emulators with faults and outages, then account for every message
            (SOAK_SECONDS=300, WRITE_METHOD=upsert)
  pipeline  run the pipeline on this machine; takes the pipeline's own flags"""

COMMANDS = {
    "up": "local.commands.up",
    "demo": "local.commands.demo",
    "soak": "local.commands.soak",
    "pipeline": "local.runner.run_pipeline",
}


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code, 1 after an error that is printed on stderr, 130 after Ctrl-C."""
    if not argv or argv[0] not in COMMANDS:
        wants_help = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if wants_help else sys.stderr)
        return 0 if wants_help else 2
    if argv[0] == "pipeline":
        # The pipeline waits for these signals in a thread. They are blocked before an import starts another thread,
        # which would receive them.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    else:
        interrupt_once()
        guard()  # from the start, because the guardian also watches the `make` that runs this
    try:
        # Imported on demand, because Beam takes seconds.
        return int(importlib.import_module(COMMANDS[argv[0]]).main(argv[1:]))
    except LocalStackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; nothing is left running.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
