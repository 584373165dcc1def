"""`python -m local.stack.bigquery_server`: the BigQuery emulator and the Storage Write API, until SIGTERM or Ctrl-C."""

import asyncio
import signal
import sys

import bqemulator.server
from bqemulator.api.app import create_app
from bqemulator.api.dependencies import AppContext
from bqemulator.config import LogLevel, Settings
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from local.stack.bigquery_server.access import LOOPBACK, LocalClients, close_files
from local.stack.bigquery_server.append import StorageWriteServer
from local.stack.bigquery_server.constraints import Constraints
from local.stack.bigquery_server.emulator_tables import EmulatorTables
from pipeline.launch import one_line


def main(argv: list[str]) -> int:
    """Serve; prints the addresses once it listens. Returns the exit code: 1 if a port cannot be used."""
    parser = one_line.Parser(prog="python -m local.stack.bigquery_server", description=__doc__, allow_abbrev=False)
    parser.add_argument("--project", required=True, help="the project of requests that name none")
    parser.add_argument("--rest-port", type=int, default=0, help="default: a free one")
    parser.add_argument("--grpc-port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="also answer requests for this host and from its web pages; may be repeated",
    )
    flags = parser.parse_args(argv)
    # The emulator's own variables, BQEMU_PERSISTENCE_MODE and BQEMU_DATA_DIR, decide where tables are stored. Settings
    # that would open the emulator to other machines are overridden.
    settings = Settings(
        rest_host=LOOPBACK[0],
        rest_port=flags.rest_port,
        grpc_host=LOOPBACK[0],
        grpc_port=0,
        default_project_id=flags.project,
        log_level=LogLevel.WARNING,
        admin_enabled=False,
    )
    try:
        asyncio.run(_serve(settings, flags.grpc_port, [*LOOPBACK, *flags.allow_host]))
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings, grpc_port: int, hosts: list[str]) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    tables: list[EmulatorTables] = []

    def app(context: AppContext) -> FastAPI:
        tables.append(EmulatorTables(context, loop))
        emulator = create_app(context)
        emulator.middleware("http")(Constraints(tables[0]))
        # Middleware added last runs first. A foreign Host is the sign of DNS rebinding.
        emulator.add_middleware(LocalClients, hosts=hosts)
        emulator.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        close_files(context.engine.connection)
        return emulator

    # The emulator offers no other way to add middleware to its REST interface.
    bqemulator.server.create_app = app
    emulator = bqemulator.server.EmulatorServer(settings)
    await emulator.start()
    try:
        with StorageWriteServer(tables[0], grpc_port) as storage:
            print(f"Listening on 127.0.0.1:{emulator.rest_port}, Storage Write API on {storage.host}", flush=True)
            await stopping.wait()
            # In another thread, because requests in progress need the loop to finish.
            await asyncio.to_thread(storage.stop)
    finally:
        await emulator.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
