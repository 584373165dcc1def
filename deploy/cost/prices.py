"""List prices in us-central1, in US dollars, copied by hand. Other regions differ.

Each was read in a public copy of Google's page. Check the page itself before you rely on a price.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """One list price.

    Attributes:
      dollars: for one unit.
      unit: the unit.
      source: Google's page.
      read: the date of the copy, if it has one.
    """

    dollars: float
    unit: str
    source: str
    read: str


DATAFLOW = "https://cloud.google.com/dataflow/pricing"
PUBSUB_PAGE = "https://cloud.google.com/pubsub/pricing"
BIGQUERY = "https://cloud.google.com/bigquery/pricing"
CLOUD_BUILD = "https://cloud.google.com/build/pricing"

VCPU = Price(0.069, "vCPU hour, streaming worker", DATAFLOW, "2026-09-08")
MEMORY = Price(0.003557, "GiB hour, streaming worker", DATAFLOW, "2026-09-08")
DISK = Price(0.000054, "GiB hour, standard disk", DATAFLOW, "2026-09-08")
STREAMING_DATA = Price(0.018, "GiB processed by Streaming Engine", DATAFLOW, "2026-09-08")
PUBSUB = Price(40.0, "TiB published or delivered, after 10 GiB", PUBSUB_PAGE, "no date")
STREAMING_INSERTS = Price(0.01, "200 MiB of rows, each of 1 KiB at least", BIGQUERY, "no date")
STORAGE_WRITE = Price(0.025, "GiB written, after 2 TiB", BIGQUERY, "no date")
STORAGE = Price(0.023, "GiB month, active logical, after 10 GiB", BIGQUERY, "2026-09-20")
# Not part of a job's bill.
BUILD = Price(0.006, "minute of e2-standard-2, after 2,500 a month", CLOUD_BUILD, "2025-08-25")

ALL = (VCPU, MEMORY, DISK, STREAMING_DATA, PUBSUB, STREAMING_INSERTS, STORAGE_WRITE, STORAGE)
