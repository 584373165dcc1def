"""The settings of the demo and the soak, which are environment variables because `make` passes those on."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from local.stack.processes import LocalStackError


@dataclass(frozen=True)
class Settings:
    """How long readings are published, and the pipeline's `write_method`."""

    seconds: float
    write_method: str


def read_settings(
    command: str, argv: Sequence[str], default_seconds: float, least_seconds: float, default_write_method: str
) -> Settings:
    """Read DEMO_SECONDS or SOAK_SECONDS, and WRITE_METHOD.

    Args:
      command: `demo` or `soak`.
      argv: the arguments of the command, which takes none.
      default_seconds: the length where the variable is not set.
      least_seconds: the least length allowed.
      default_write_method: the write method where the variable is not set.

    Raises:
      LocalStackError: there are arguments, or the length is not a number from `least_seconds` to a day.
    """
    variable = f"{command.upper()}_SECONDS"
    if argv:
        example = f"{variable}={max(30, least_seconds):g} python -m local {command}"
        raise LocalStackError(f"the {command} takes no flags; {example} runs a shorter one")
    text = os.environ.get(variable) or str(default_seconds)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not least_seconds <= seconds <= 86400:
        raise LocalStackError(f"{variable}={text} must be a number of seconds from {least_seconds:g} to 86400")
    return Settings(seconds, os.environ.get("WRITE_METHOD") or default_write_method)
