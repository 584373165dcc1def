"""A model of the CPU of the worker's Python and the bytes of its shuffle.

The constants are fitted to the measurements in the second table of docs/cost.md, which come from `make bench`. A test
checks that they agree with it to within 10%.
"""

PER_READING = 1.82  # microseconds
PER_MESSAGE = 2.23
PER_BUNDLE = 858.0
PER_DEVICE = 3.65  # for each device in a bundle
SHARDS = 32  # as in pipeline.aggregate.shards: a bundle shuffles at most one record per shard
RECORD_BYTES = 30
DEVICE_BYTES = 45


def micros(messages: float, packed: int, devices: int) -> float:
    """Return microseconds of CPU per reading, in bundles of `messages` messages with `packed` readings each."""
    bundle = PER_BUNDLE + PER_DEVICE * present(messages, devices)
    return PER_READING + PER_MESSAGE / packed + bundle / (messages * packed)


def present(messages: float, devices: int) -> float:
    """Return the expected number of devices in a bundle, if each message is from a random device."""
    return devices * (1 - (1 - 1 / devices) ** messages)


def shuffled(messages: float, devices: int) -> float:
    """Return the bytes that a bundle shuffles."""
    in_bundle = present(messages, devices)
    return RECORD_BYTES * min(SHARDS, in_bundle) + DEVICE_BYTES * in_bundle


def cores(micros: float, rate: float) -> float:
    """Return the cores that `rate` readings per second need, at `micros` microseconds of CPU each."""
    return micros * rate / 1e6


def rows_per_hour(devices: int, interval: float) -> float:
    """Return rows per hour, with one per device every `interval` seconds."""
    return devices * 3600 / interval
