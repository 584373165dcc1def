"""The bill of a month, by part."""

import math
from dataclasses import dataclass

from deploy.cost import cpu, prices

MONTH = 730  # hours
MIB, GIB, TIB = 2**20, 2**30, 2**40

# Bytes of a reading of one sensor as JSON, and of the rest of a message (three attributes, timestamp, message id).
READING_BYTES = 100
ENVELOPE_BYTES = 140
# Timestamp, device, and four sensors, as BigQuery counts them: https://cloud.google.com/bigquery/pricing#data
ROW_BYTES = 8 + 10 + 4 * 8
# The default worker of a streaming job with Streaming Engine: n1-standard-2 with 30 GB of disk.
WORKER_VCPUS, WORKER_MEMORY, WORKER_DISK = 2, 7.5, 30
WORKER_HOUR = (
    WORKER_VCPUS * prices.VCPU.dollars + WORKER_MEMORY * prices.MEMORY.dollars + WORKER_DISK * prices.DISK.dollars
)
# Total cores per core of Python. Dataflow's own work is not measured; docs/cost.md assumes as much again.
AROUND_PYTHON = 2
# Assumed duration of a bundle in seconds, and its maximum size; the service chooses both and documents neither.
BUNDLE_SECONDS, BUNDLE_MESSAGES = 0.1, 1_000
# Months for which rows are stored.
MONTHS_KEPT = 12
WRITE_METHODS = ("streaming_inserts", "storage_write", "upsert")


@dataclass(frozen=True)
class Part:
    """One line of the bill: how much of what, and US dollars a month."""

    name: str
    amount: str
    dollars: float


@dataclass(frozen=True)
class Usage:
    """The load of a job.

    Attributes:
      rate: readings per second, all devices together.
      devices: rows per interval; 1 for rows over all devices.
      interval: length in seconds.
      packed: readings per message.
    """

    rate: float
    devices: int
    interval: float
    packed: int = 1

    @property
    def messages(self) -> float:
        """Messages per second."""
        return self.rate / self.packed

    @property
    def bundle(self) -> float:
        """Messages per bundle."""
        return min(max(self.messages * BUNDLE_SECONDS, 1), BUNDLE_MESSAGES)

    @property
    def rows(self) -> float:
        """Rows per month, if every device sends in every interval; at most one per reading."""
        return min(cpu.rows_per_hour(self.devices, self.interval), self.rate * 3600) * MONTH

    @property
    def message_bytes(self) -> float:
        """Bytes of messages per month."""
        return self.messages * (READING_BYTES * self.packed + ENVELOPE_BYTES) * 3600 * MONTH

    @property
    def cores(self) -> float:
        """Cores that Python uses."""
        return cpu.cores(cpu.micros(self.bundle, self.packed, self.devices), self.rate)

    @property
    def workers(self) -> int:
        """Number of workers, at least one."""
        return max(1, math.ceil(self.cores * AROUND_PYTHON / WORKER_VCPUS))


def bill(usage: Usage, write_method: str = "streaming_inserts") -> list[Part]:
    """Return the bill of a month for a write method."""
    # Each message is counted once, each partial sum twice: into the shuffle and out of it.
    shuffled = cpu.shuffled(usage.bundle, usage.devices) / usage.bundle * usage.messages * 3600 * MONTH
    streamed = (usage.message_bytes + 2 * shuffled) / GIB
    published = 2 * usage.message_bytes / GIB
    kept = usage.rows * MONTHS_KEPT * ROW_BYTES / GIB
    return [
        Part("Pub/Sub", f"{published:,.0f} GiB in and out", max(published - 10, 0) / 1024 * prices.PUBSUB.dollars),
        Part(
            "workers",
            f"{usage.workers:,} x n1-standard-2, {usage.cores:.2g} cores busy",
            usage.workers * WORKER_HOUR * MONTH,
        ),
        Part("Streaming Engine", f"{streamed:,.0f} GiB", streamed * prices.STREAMING_DATA.dollars),
        Part(f"BigQuery {write_method}", f"{usage.rows:,.0f} rows", _writing(usage.rows, write_method)),
        Part("BigQuery storage", f"{kept:,.1f} GiB, the rows of a year", max(kept - 10, 0) * prices.STORAGE.dollars),
    ]


def total(parts: list[Part]) -> float:
    """Return US dollars a month."""
    return sum(part.dollars for part in parts)


def _writing(rows: float, write_method: str) -> float:
    if write_method == "streaming_inserts":
        return rows * max(ROW_BYTES, 1024) / (200 * MIB) * prices.STREAMING_INSERTS.dollars
    # An upsert is written through the same API. The BigQuery compute that applies it is not included.
    return max(rows * ROW_BYTES - 2 * TIB, 0) / GIB * prices.STORAGE_WRITE.dollars
