"""Writes docs/messages.md, the parameters for messages of each platform, from docs/messages.jsonl."""

import base64
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).parents[2] / "docs"
SOURCE, PAGE = _DOCS / "messages.jsonl", _DOCS / "messages.md"

_HEAD = """\
# Messages of platforms

Parameters that read messages of these platforms. Sensors, and their columns, are those of the example; take your own.
The page is generated from [messages.jsonl](messages.jsonl), which also says where each form is documented, and the
tests read every message with its parameters. [Mapping](mapping.md) explains the parameters, and how to
[preview](mapping.md#preview) messages of a platform that is not on this page.
"""


def page() -> str:
    """Return the text of docs/messages.md."""
    recipes = [json.loads(line) for line in SOURCE.read_text().splitlines()]
    return "\n".join([_HEAD, *("\n".join(_section(recipe)) for recipe in recipes)])


def _section(recipe: dict[str, Any]) -> Iterator[str]:
    yield f"## {recipe['platform']}\n"
    message = recipe["message"]
    if recipe.get("unreadable"):
        yield _filled(f"Not read: {recipe['unreadable']}.") + "\n"
        return
    yield "| parameter | value |"
    yield "| --- | --- |"
    for name, value in recipe["parameters"].items():
        yield f"| `{name}` | `{value.replace('|', chr(92) + '|')}` |"
    yield "\n```text"
    yield from _data(message)
    yield "```\n"
    attributes = ", ".join(f"`{name}: {value}`" for name, value in message["attributes"].items())
    if attributes:
        yield _filled(f"Attributes: {attributes}.") + "\n"
    for reading in recipe["readings"]:
        values = ", ".join(f"{column} {value:.10g}" for column, value in reading["values"].items())
        device = f" of `{reading['device']}`" if reading["device"] else ""
        yield _filled(f"- Reading{device} at {reading['timestamp']}: {values}")
    if not recipe["readings"]:
        yield "No reading: the message is only counted."
    yield ""


def _data(message: dict[str, Any]) -> Iterator[str]:
    """Yield the data in lines; if it is not text, its base64."""
    text = message["data"]
    if message.get("encoding"):
        try:
            text = base64.b64decode(text).decode()
        except UnicodeDecodeError:
            text = f"base64 of {len(base64.b64decode(text))} bytes: {text}"
    for line in text.splitlines():
        yield from textwrap.wrap(line, 120, break_on_hyphens=False)


def _filled(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page())
