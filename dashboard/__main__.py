"""A live page on the pipeline's tables: `python -m dashboard --table=project:dataset.table`."""

from pathlib import Path

from fastapi import Response
from nicegui import Client, app, background_tasks, ui

from dashboard.feed import Feed
from dashboard.flags import parse
from dashboard.page import Page
from dashboard.queries import Source
from dashboard.server import AllowedHosts, Connection, protect

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#3a86d8" stroke-width="2">'
    '<path d="M1 11h4V5h5v3h5"/></svg>'
)


def main() -> None:
    """Serve the page until SIGINT or SIGTERM."""
    flags = parse()
    source = Source(
        flags.table,
        flags.dead_letters,
        flags.readings,
        flags.span,
        flags.max_bytes,
        flags.billing_project,
        flags.sensors,
        flags.statistics,
        flags.max_future_skew,
    )
    feed = Feed(source, flags.refresh, flags.balance, _watched)
    protect(AllowedHosts(flags.host, flags.allowed_host))

    @ui.page("/")
    def index() -> None:
        Page(feed)

    @app.get("/charts/{refresh}")
    def charts(refresh: int) -> Response:
        """Return the newest charts; the number of the refresh in the URL keeps browsers from using cached ones."""
        return Response(feed.charts, 200 if feed.charts else 404, {"Content-Encoding": "gzip"}, "application/json")

    app.add_static_file(local_file=Path(__file__).with_name("page.js"), url_path="/page.js")
    app.on_connect(feed.wake)
    app.on_startup(lambda: background_tasks.create(feed.run(), name="feed"))
    host = f"[{flags.host}]" if ":" in flags.host else flags.host
    print(f"Serving {flags.table} on http://{host}:{flags.port}", flush=True)
    ui.run(
        host=flags.host,
        port=flags.port,
        title=f"{flags.table.table} - Sensor Stream",
        favicon=_ICON,
        dark=None,  # as the browser's colour scheme
        tailwind=False,
        reload=False,
        show=False,
        show_welcome_message=False,
        reconnect_timeout=10.0,  # seconds; by default a browser that was disconnected for 3 s reloads the page
        http=Connection,
    )


def _watched() -> bool:
    return any(client.has_socket_connection for client in Client.instances.values())


if __name__ == "__main__":
    main()
