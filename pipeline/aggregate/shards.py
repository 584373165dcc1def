"""Shards: devices whose sums are shuffled in one record.

A record costs the worker and the service some microseconds, whatever its size. A bundle of a thousand readings of a
thousand devices would shuffle hundreds of records; with shards, it shuffles at most SHARDS for each interval.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable

from pipeline.aggregate.sums import Sums, SumsOf, WireSums
from pipeline.coders import MessagePackCoder

# Enough to spread the devices of an interval over workers. The number is part of the label of the step that holds open
# intervals, because with another one a device would have two rows in an interval that is open during an update.
SHARDS = 32

_KEYS = tuple(f"shard {number}" for number in range(SHARDS))


class Shard(dict[str, Sums]):
    """The sums of a shard, by device."""


class ShardCoder(MessagePackCoder, urn="sensor_stream:coder:shard:v1", value_type=Shard, wire_type=dict[str, WireSums]):
    """Encodes a `Shard`, in a fifth of the time that Beam's coder for arbitrary values takes."""

    def decode(self, encoded: bytes) -> Shard:
        """Return a shard equal to the encoded one and of the same types; raises msgspec.DecodeError."""
        return Shard(super().decode(encoded))


def by_shard(sums_of: SumsOf) -> Iterable[tuple[str, Shard]]:
    """Return (key, `Shard`) for each shard with devices. The shard of a device depends on its name only."""
    shards: dict[str, Shard] = defaultdict(Shard)
    for device, sums in sums_of.items():
        shards[_KEYS[zlib.crc32(device.encode()) % SHARDS]][device] = sums
    return shards.items()


def merge_devices(merge: Callable[[Sums, Sums], None], into: SumsOf, other: SumsOf) -> None:
    """Add `other` to `into` in place, device by device.

    Args:
      merge: adds `Sums` to others in place.
      into: sums by device, which are changed.
      other: sums by device, which are not.
    """
    for device, sums in other.items():
        merge(into.setdefault(device, {}), sums)
