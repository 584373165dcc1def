"""The resources that a run creates before its build, as in docs/deploy.md: APIs, storage, accounts, grants, dataset."""

from collections.abc import Sequence

from google.cloud import bigquery

from deploy.acceptance.project import Change, Project, Undo
from pipeline.sinks.bigquery import client

SERVICES = (
    "artifactregistry bigquery bigquerystorage cloudbuild compute containeranalysis dataflow iam logging pubsub storage"
)


def storage(project: Project) -> str:
    """Enable the APIs; create buckets, repository, topic and subscription."""
    run = project.run
    project.gcloud("services", "enable", *(f"{name}.googleapis.com" for name in SERVICES.split()))
    place = f"--location={run.region}"
    closed = ["--uniform-bucket-level-access", "--public-access-prevention"]
    # In a bucket with versioning, --recursive also deletes earlier versions.
    builds, jobs = (
        Change(["storage", "buckets", "create", bucket, place, *closed], ["storage", "rm", "--recursive", bucket])
        for bucket in (run.bucket, run.jobs_bucket)
    )
    versioned = Change(["storage", "buckets", "update", run.bucket, "--versioning"])
    repository = Change(
        ["artifacts", "repositories", "create", run.name, "--repository-format=docker", place, "--immutable-tags"],
        ["artifacts", "repositories", "delete", run.name, place],
    )
    topic = Change(["pubsub", "topics", "create", run.name], ["pubsub", "topics", "delete", run.name])
    subscription = Change(
        ["pubsub", "subscriptions", "create", run.name, f"--topic={run.name}"],
        ["pubsub", "subscriptions", "delete", run.name],
    )
    project.create([builds, versioned], [jobs], [repository], [topic, subscription])
    return f"names end in {run.suffix}"


def accounts(project: Project) -> str:
    """Create two accounts with the grants of deploy/accounts.sh, and the dataset."""
    run = project.run
    build, worker = (run.account(role) for role in ("build", "worker"))
    project.create(*([_account(address)] for address in (build, worker)))
    _create_dataset(project, worker)
    project.create(
        [
            _grant_on_project(project, build, "logging.logWriter"),
            _grant_on_project(project, worker, "dataflow.worker"),
            _grant_on_project(project, worker, "pubsub.editor"),
        ],
        [
            _grant(["storage", "buckets"], bucket, account, f"storage.{role}")
            for bucket, account, role in (
                (run.bucket, build, "objectUser"),
                (run.bucket, worker, "objectViewer"),
                (run.jobs_bucket, worker, "objectUser"),
            )
        ],
        [_grant(["pubsub", "subscriptions"], run.name, worker, f"pubsub.{role}") for role in ("subscriber", "viewer")],
        [
            _grant(["artifacts", "repositories"], run.name, account, f"artifactregistry.{role}", run.region)
            for account, role in ((build, "writer"), (worker, "reader"))
        ],
    )
    return "2 accounts, 11 grants"


def _grant_on_project(project: Project, account: str, role: str) -> Change:
    # Removed explicitly, because the project is not deleted.
    binding = [project.run.project, *_to(account, role), "--condition=None"]
    return Change(["projects", "add-iam-policy-binding", *binding], ["projects", "remove-iam-policy-binding", *binding])


def _create_dataset(project: Project, worker: str) -> None:
    # gcloud has no command for datasets, and bq needs another login.
    run = project.run
    delete = f"bq rm -r -f --dataset {run.project}:{run.dataset}"
    project.show(f"# the dataset {run.project}:{run.dataset} in {run.region}, dataEditor on it to {worker}")
    bq = None if project.dry else client(run.project)

    def delete_dataset() -> None:
        if bq:
            bq.delete_dataset(run.dataset, delete_contents=True, not_found_ok=True)

    project.register(Undo(delete, delete_dataset))
    if bq:
        dataset = bigquery.Dataset(f"{run.project}.{run.dataset}")
        dataset.location = run.region
        dataset = bq.create_dataset(dataset)
        entry = bigquery.AccessEntry("WRITER", "userByEmail", worker)
        dataset.access_entries = [*dataset.access_entries, entry]
        bq.update_dataset(dataset, ["access_entries"])


def _account(address: str) -> Change:
    name = address.partition("@")[0]
    return Change(["iam", "service-accounts", "create", name], ["iam", "service-accounts", "delete", address])


def _grant(kind: Sequence[str], on: str, account: str, role: str, region: str | None = None) -> Change:
    place = [f"--location={region}"] if region else []
    return Change([*kind, "add-iam-policy-binding", on, *_to(account, role), *place])


def _to(account: str, role: str) -> list[str]:
    return [f"--member=serviceAccount:{account}", f"--role=roles/{role}"]
