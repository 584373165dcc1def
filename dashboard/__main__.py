"""A live page on the pipeline's tables: `python -m dashboard --table=project:dataset.table`."""

from nicegui import Client, app, ui

from dashboard.feed import Feed
from dashboard.flags import parse
from dashboard.page import Page
from dashboard.queries import Source

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#3a86d8" stroke-width="2">'
    '<path d="M1 11h4V5h5v3h5"/></svg>'
)


def main() -> None:
    """Serve the page until SIGINT or SIGTERM."""
    flags = parse()
    source = Source(flags.table, flags.dead_letters, flags.readings, flags.span, flags.max_bytes)
    feed = Feed(source, flags.balance, _watched)

    @ui.page("/")
    def index() -> None:
        Page(feed)

    app.on_connect(feed.look)
    app.timer(flags.refresh.total_seconds(), feed.look)
    print(f"Serving {flags.table} on http://{flags.host}:{flags.port}", flush=True)
    ui.run(
        host=flags.host,
        port=flags.port,
        title=f"{flags.table.table} - Sensor Stream",
        favicon=_ICON,
        dark=None,  # as the browser is
        tailwind=False,
        reload=False,
        show=False,
        show_welcome_message=False,
    )


def _watched() -> bool:
    return any(client.has_socket_connection for client in Client.instances.values())


if __name__ == "__main__":
    main()
