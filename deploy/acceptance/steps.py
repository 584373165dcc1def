"""The steps of a run. Each returns a few words about what it found, or raises StepError."""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from deploy.acceptance import resources
from deploy.acceptance.names import SENSORS
from deploy.acceptance.project import Project, StepError, Undo
from local.stack.emulators import all_rows
from local.verify.balance import Balance, balance, read_dead_letters, read_manifest
from local.verify.reconcile import Row
from pipeline.sinks.bigquery import client

FAULTS = "late=0.01,duplicate=0.01,malformed=0.005,out_of_order=0.05,skew=0.001"
MINUTE = 60.0
ENDED_BADLY = {
    "JOB_STATE_FAILED",
    "JOB_STATE_CANCELLED",
    "FAILURE",
    "INTERNAL_ERROR",
    "TIMEOUT",
    "CANCELLED",
    "EXPIRED",
}


@dataclass
class Steps:
    """The steps of one run; the manifest is written to `folder`."""

    project: Project
    folder: Path
    jobs: list[str] = field(default_factory=list)

    @property
    def all(self) -> dict[str, Callable[[], str]]:
        """The steps in order, by name."""
        return {
            "services and storage": partial(resources.storage, self.project),
            "accounts and grants": partial(resources.accounts, self.project),
            "build": self.build,
            "publish an hour, with faults": self.publish_an_hour,
            "launch": self.launch,
            "every row compared": self.compare,
            "metrics": self.metrics,
            "redrive": self.redrive,
            "update": self.update,
            "drain": self.drain,
            "every row compared again": self.compare,
        }

    def build(self) -> str:
        """Build images and spec with the unmodified cloudbuild.yaml."""
        run, gcloud = self.project.run, self.project.gcloud
        region = f"--region={run.region}"
        substitutions = {"REGION": run.region, "BUCKET": run.bucket[5:], "REPOSITORY": run.name, "TAG": run.suffix}
        build = gcloud(
            *("beta", "builds", "submit", ".", "--async", region, f"--gcs-source-staging-dir={run.bucket}/source"),
            f"--service-account=projects/{run.project}/serviceAccounts/{run.account('build')}",
            "--substitutions=" + ",".join(f"_{name}={value}" for name, value in substitutions.items()),
            "--format=value(id)",
        )
        build = build or "BUILD"
        cancel = f"gcloud builds cancel {build} {region} --project={run.project}"
        self.project.register(Undo(cancel, lambda: self._cancel_build(build, region)))
        describe = ["builds", "describe", build, region, "--format=value(status)"]
        self._wait_for_state("build", describe, "SUCCESS", 70 * MINUTE)
        self.project.undo.pop()  # the build has ended
        return run.spec

    def _cancel_build(self, build: str, region: str) -> None:
        status = self.project.gcloud("builds", "describe", build, region, "--format=value(status)")
        if status in ("QUEUED", "WORKING", "PENDING"):
            self.project.gcloud("builds", "cancel", build, region)

    def publish_an_hour(self) -> str:
        """Publish the hour before now, with faults, so that the job finds a backlog."""
        start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=61)
        return self._publish(3600, "--seed", "7", "--start", f"{start:%Y-%m-%dT%H:%M:%SZ}", "--faults", FAULTS)

    def _publish(self, seconds: float, *more: str) -> str:
        run = self.project.run
        pace = ["--rate", f"{run.rate:g}", "--devices", "2", "--duration", f"{seconds:g}s"]
        manifest = str(self.folder / "manifest.jsonl")
        said = self.project.python("publisher", "publish", "--topic", run.topic, *pace, "--manifest", manifest, *more)
        return said.splitlines()[-1] if said else ""

    def launch(self) -> str:
        """Launch the job from the spec."""
        # Before the launch: the job may exist although gcloud was stopped before it printed the id.
        self.project.register(self.cancelling)
        return self._launch(max_future_skew="10m")

    @property
    def cancelling(self) -> Undo:
        """The deletion of all jobs of this run that are still active."""
        run = self.project.run
        active = shlex.join(["gcloud", *self._active_jobs(), f"--project={run.project}"])
        cancel = f"gcloud dataflow jobs cancel $({active}) --region={run.region} --project={run.project}"
        return Undo(cancel, self._cancel_jobs)

    def _launch(self, *flags: str, **changed: str) -> str:
        run, region = self.project.run, f"--region={self.project.run.region}"
        parameters = {
            "input_subscription": run.subscription,
            "output_table": run.table.replace(".", ":", 1),
            "timestamp_attribute": "timestamp",
            "id_attribute": "reading_id",
            "interval": f"{run.interval.seconds}s",
            "allowed_lateness": "2h",
            "keep_attributes": "true",
            **changed,
        }
        job = self.project.gcloud(
            *("dataflow", "flex-template", "run", run.name, region, f"--template-file-gcs-location={run.spec}"),
            *("--enable-streaming-engine", "--max-workers=2"),
            *(f"--staging-location={run.jobs_bucket}/staging", f"--temp-location={run.jobs_bucket}/temp"),
            f"--service-account-email={run.account('worker')}",
            "--parameters=" + ",".join(f"{name}={value}" for name, value in parameters.items()),
            *flags,
            "--format=value(job.id)",
        )
        job = job or "JOB"
        self.jobs.append(job)
        self._wait_for_state("job", self._describe(job), "JOB_STATE_RUNNING", 15 * MINUTE)
        return job

    def _describe(self, job: str) -> list[str]:
        region = f"--region={self.project.run.region}"
        return ["dataflow", "jobs", "describe", job, region, "--format=value(currentState)"]

    def _active_jobs(self) -> list[str]:
        run = self.project.run
        named = [f"--region={run.region}", "--status=active", f"--filter=name={run.name}"]
        return ["dataflow", "jobs", "list", *named, "--format=value(id)"]

    def _cancel_jobs(self) -> None:
        # Wait for their end, because their subscription and tables are deleted next.
        if jobs := self.project.gcloud(*self._active_jobs()).split():
            self.project.gcloud("dataflow", "jobs", "cancel", *jobs, f"--region={self.project.run.region}")
            self.project.wait("the end of the job", lambda: not self.project.gcloud(*self._active_jobs()), 15 * MINUTE)

    def _wait_for_state(self, what: str, describe: list[str], wanted: str, timeout_seconds: float) -> None:
        def reached() -> bool:
            state = self.project.gcloud(*describe)
            if state in ENDED_BADLY:
                raise StepError(f"the {what} has ended: {state}")
            return state == wanted

        if self.project.dry:
            self.project.gcloud(*describe)
        self.project.wait(wanted, reached, timeout_seconds)

    def compare(self) -> str:
        """Check that every reading of the manifest is in its row, in a dead letter, or a duplicate."""
        found = Balance()

        def balanced() -> bool:
            nonlocal found
            found = self._balance()
            return not found.problems

        try:
            self.project.wait("every reading to be accounted for", balanced, 20 * MINUTE)
        except StepError as error:
            raise StepError("\n".join([str(error), *found.problems[:20]])) from None
        return (
            f"{found.published} readings: {found.averaged} in {found.rows_found} rows, {found.late} late, "
            f"{found.refused} refused, {found.duplicates} duplicates"
        )

    def _balance(self) -> Balance:
        run = self.project.run
        rows = [Row.from_record(found, SENSORS) for found in self._rows(run.table)]
        dead_letters = read_dead_letters(self._dead_letters(redriven=False))
        return balance(read_manifest(self.folder / "manifest.jsonl"), rows, dead_letters, SENSORS, run.interval)

    def _rows(self, table: str) -> Iterable[Mapping[str, Any]]:
        return all_rows(client(self.project.run.project), table)

    def _dead_letters(self, redriven: bool) -> list[Mapping[str, Any]]:
        """Return the dead letters of redriven messages, or all others."""
        return [
            found
            for found in self._rows(self.project.run.dead_letters)
            if redriven == any(pair["key"] == "redrive_attempt" for pair in found["attributes"])
        ]

    def metrics(self) -> str:
        """Check that the counter `rows` of the job equals the number of rows in the table."""
        run = self.project.run
        command = ["beta", "dataflow", "metrics", "list", self.jobs[-1], f"--region={run.region}", "--source=user"]
        counted = 0

        def equal() -> bool:
            nonlocal counted
            found = json.loads(self.project.gcloud(*command, "--format=json"))
            counted = sum(int(one["scalar"]) for one in found if one["name"]["name"] == "rows" and "scalar" in one)
            return counted == len(list(self._rows(run.table)))

        if self.project.dry:
            self.project.gcloud(*command, "--format=json")
        self.project.wait("the counter rows to equal the rows of the table", equal, 5 * MINUTE)
        return f"rows: {counted}, as in the table"

    def redrive(self) -> str:
        """Redrive the refused messages, and check that each is refused once more."""
        run = self.project.run
        table = run.dead_letters.replace(".", ":", 1)
        flags = [f"--dead_letter_table={table}", f"--topic={run.topic}", "--id_attribute=reading_id", "--execute"]
        self.project.python("redrive", *flags)
        expected = (
            0
            if self.project.dry
            else sum(
                found["stage"] in ("decode", "timestamp", "validate") for found in self._dead_letters(redriven=False)
            )
        )
        self.project.wait(
            "the redriven messages to be refused again",
            lambda: len(self._dead_letters(redriven=True)) == expected,
            10 * MINUTE,
        )
        return f"{expected} sent back"

    def update(self) -> str:
        """Update the running job with another max_future_skew, and publish readings for it."""
        job = self._launch("--update", max_future_skew="11m")
        said = self._publish(self.project.run.live, "--seed", "8")
        return f"{job}; {said}"

    def drain(self) -> str:
        """Drain the job after every published reading is in the table."""
        self.compare()
        job = self.jobs[-1]
        self.project.gcloud("dataflow", "jobs", "drain", job, f"--region={self.project.run.region}")
        self._wait_for_state("job", self._describe(job), "JOB_STATE_DRAINED", 15 * MINUTE)
        return job
