"""`python -m local.stack.pubsub_server`: the server alone, until SIGTERM or Ctrl-C."""

import signal
import sys

from local.stack.processes import interrupt_once
from local.stack.pubsub_server import PubsubServer
from pipeline.launch import one_line


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; prints the address once it listens. Returns 1 if the port cannot be used."""
    parser = one_line.Parser(prog="python -m local.stack.pubsub_server", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    port = parser.parse_args(argv).port
    interrupt_once()
    try:
        with PubsubServer(port) as server:
            print(f"Listening on {server.host}", flush=True)
            while True:
                signal.pause()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
