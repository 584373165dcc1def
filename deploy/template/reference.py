"""Writes the reference in docs/parameters.md from the parameters in pipeline/launch/parameters.py."""

import itertools
import textwrap
from pathlib import Path

from pipeline.launch.parameters import PARAMETERS, Parameter

PAGE = Path(__file__).parents[2] / "docs/parameters.md"
HEADING = "## Reference\n\n"


def reference() -> str:
    """Return what follows HEADING in docs/parameters.md: a list of the parameters for each group of the form."""
    groups = itertools.groupby(PARAMETERS.items(), key=lambda item: item[1].group)
    return (
        "\n\n".join(f"### {group}\n\n" + "\n".join(_entry(*item) for item in items) for group, items in groups) + "\n"
    )


def _entry(name: str, parameter: Parameter) -> str:
    default = f", default `{parameter.default}`" if parameter.default else ", required" if parameter.required else ""
    entry = f"- `{name}` ({parameter.type}{default}): {parameter.help}"
    return textwrap.fill(entry, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().partition(HEADING)[0] + HEADING + reference())
