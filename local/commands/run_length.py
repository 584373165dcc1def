"""How long the demo or the soak runs, as the environment asks."""

import math
import os

from local.stack.processes import LocalStackError


def run_length(variable: str, default: float, least: float) -> float:
    """Return the seconds that a variable asks for; LocalStackError if it is no number from `least` to a day."""
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= 86400:
        raise LocalStackError(f"{variable}={text} must be a number of seconds from {least:g} to 86400")
    return seconds
