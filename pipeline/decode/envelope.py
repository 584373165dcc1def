"""What a message carries beside its data."""

from collections.abc import Mapping
from typing import NamedTuple


class Envelope(NamedTuple):
    """What a message carries beside its data.

    Attributes:
      attributes: its attributes, or those of them that the mapping asks for.
      time: its event time, which is its publish time or what `timestamp_attribute` says, in microseconds since the
        epoch; None if the mapping does not ask for it.
    """

    attributes: Mapping[str, str] = {}
    time: int | None = None
