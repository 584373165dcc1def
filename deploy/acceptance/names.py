"""The settings of a run, and the names of its resources."""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")


@dataclass(frozen=True)
class Run:
    """One run. Every name has its suffix, so that no name is that of an existing resource.

    Attributes:
      project: id of the project.
      region: region of all resources.
      interval: length of an interval.
      rate: readings per second of event time.
      live: seconds of readings that are published while the updated job runs.
      suffix: suffix of all names.
    """

    project: str
    region: str
    interval: timedelta = timedelta(seconds=15)
    rate: float = 10.0
    live: float = 120.0
    suffix: str = field(default_factory=lambda: secrets.token_hex(3))

    @property
    def name(self) -> str:
        """The name of topic, subscription, repository and job."""
        return f"sensor-acceptance-{self.suffix}"

    @property
    def topic(self) -> str:
        """The topic's full name."""
        return f"projects/{self.project}/topics/{self.name}"

    @property
    def subscription(self) -> str:
        """The subscription's full name."""
        return f"projects/{self.project}/subscriptions/{self.name}"

    @property
    def bucket(self) -> str:
        """The URL of the bucket of specs and sources."""
        return f"gs://{self.project}-{self.name}"

    @property
    def jobs_bucket(self) -> str:
        """The URL of the bucket of staged and temporary files."""
        return f"{self.bucket}-jobs"

    @property
    def spec(self) -> str:
        """The URL of the template's spec."""
        return f"{self.bucket}/templates/{self.suffix}.json"

    @property
    def dataset(self) -> str:
        """The dataset's id."""
        return self.name.replace("-", "_")

    @property
    def table(self) -> str:
        """The table of rows, project.dataset.table."""
        return f"{self.project}.{self.dataset}.readings"

    @property
    def dead_letters(self) -> str:
        """The table of dead letters, project.dataset.table."""
        return f"{self.table}_dead_letters"

    def account(self, role: str) -> str:
        """The address of a service account; `role` is build or worker."""
        return f"sensor-{role}-{self.suffix}@{self.project}.iam.gserviceaccount.com"
