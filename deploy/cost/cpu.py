"""CPU of the worker's Python, and what it shuffles, from the measurements in docs/cost.md.

The constants are fitted to that page's second table, which `make bench` makes anew; a test holds them to it within a
tenth.
"""

PER_READING = 1.82  # microseconds
PER_MESSAGE = 2.23
PER_BUNDLE = 858.0
PER_DEVICE = 3.65  # of those in a bundle
SHARDS = 32  # of devices, as in pipeline.aggregate.shards: a bundle shuffles a record of each
RECORD_BYTES = 30
DEVICE_BYTES = 45


def micros(messages: float, packed: int, devices: int) -> float:
    """Return microseconds of CPU per reading, in bundles of so many messages with `packed` readings each."""
    bundle = PER_BUNDLE + PER_DEVICE * present(messages, devices)
    return PER_READING + PER_MESSAGE / packed + bundle / (messages * packed)


def present(messages: float, devices: int) -> float:
    """Return how many devices a bundle is expected to hold, each message being of any of them."""
    return devices * (1 - (1 - 1 / devices) ** messages)


def shuffled(messages: float, devices: int) -> float:
    """Return the bytes that a bundle shuffles."""
    held = present(messages, devices)
    return RECORD_BYTES * min(SHARDS, held) + DEVICE_BYTES * held


def cores(micros: float, rate: float) -> float:
    """Return how many cores are busy, with `rate` readings per second of so many microseconds each."""
    return micros * rate / 1e6


def rows_per_hour(devices: int, interval: float) -> float:
    """Return the rows of an hour, with one per device for each `interval` seconds."""
    return devices * 3600 / interval
