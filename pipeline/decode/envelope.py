"""The attributes and the event time of a message."""

from collections.abc import Mapping
from typing import NamedTuple


class Envelope(NamedTuple):
    """The attributes and the event time of a message.

    Attributes:
      attributes: its attributes, or those of them that the mapping asks for.
      time: its event time, which is its publish time or the time in `timestamp_attribute`, in microseconds since the
        epoch; None if the mapping does not ask for it.
    """

    attributes: Mapping[str, str] = {}
    time: int | None = None
