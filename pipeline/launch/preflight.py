"""Checks before launch: whether the resources of the job exist, fit, and may be used by it.

They call only the APIs of Pub/Sub and BigQuery, which a launcher without a public address reaches through Private
Google Access. They change nothing.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import google.auth
from google.api_core.exceptions import Forbidden, GoogleAPIError, MethodNotImplemented, NotFound, PermissionDenied
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud import bigquery, pubsub_v1
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest
from requests.exceptions import RequestException

from pipeline.errors import SensorStreamError
from pipeline.launch import one_line, rules, tables
from pipeline.launch.credentials import credentials_problem
from pipeline.launch.job import Job
from pipeline.sinks.append_stream import EMULATOR, stream_name, write_client
from pipeline.sinks.bigquery import TableId

T = TypeVar("T")

# Seconds for each call.
_TIMEOUT_SECONDS = 10.0

# The scope that Google's own clients request: https://developers.google.com/identity/protocols/oauth2/scopes#bigquery
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

_SKIP = "or launch unchecked with --check_before_launch=false"

# The roles that contain the required permissions: https://cloud.google.com/pubsub/docs/access-control#roles
_ROLES = {
    "pubsub.subscriptions.consume": "roles/pubsub.subscriber",
    "pubsub.topics.attachSubscription": "roles/pubsub.editor",
    "pubsub.topics.publish": "roles/pubsub.publisher",
}


# Fields of a subscription that deliver its messages elsewhere, or keep them from the job, and how to change them.
# https://cloud.google.com/pubsub/docs/subscription-overview,
# https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#unsupported-features
_CREATE_ANOTHER = "create one for the job with: gcloud pubsub subscriptions create NAME --topic=TOPIC"
_UNFIT_SUBSCRIPTIONS = {
    "bigquery_config": ("is an export subscription, which writes to BigQuery itself", _CREATE_ANOTHER),
    "cloud_storage_config": ("is an export subscription, which writes to Cloud Storage itself", _CREATE_ANOTHER),
    "bigtable_config": ("is an export subscription, which writes to Bigtable itself", _CREATE_ANOTHER),
    "detached": ("is detached from its topic, so no message will ever arrive", _CREATE_ANOTHER),
    "enable_exactly_once_delivery": (
        "has exactly-once delivery, which lets Dataflow read fewer messages in parallel; it removes duplicates itself",
        "switch it off with: gcloud pubsub subscriptions update {name} --project={project} "
        "--no-enable-exactly-once-delivery",
    ),
    "dead_letter_policy": (
        "has a dead-letter policy, by which Pub/Sub moves messages away that were delivered too often, even if the "
        "job has read them",
        "remove it with: gcloud pubsub subscriptions update {name} --project={project} --clear-dead-letter-policy",
    ),
}

# The other fields, which do not matter to the job. A subscription with a field in neither list is refused.
_FIT_SUBSCRIPTIONS = frozenset(
    [
        "name",
        "topic",
        "push_config",  # also present without an endpoint
        "ack_deadline_seconds",
        "retain_acked_messages",
        "message_retention_duration",
        "labels",
        "enable_message_ordering",
        "expiration_policy",
        "filter",
        "retry_policy",
        "topic_message_retention_duration",
        "state",
        "analytics_hub_subscription_info",
        "message_transforms",
        "tags",
    ]
)

# Types of datasets that take tables; others are read-only: https://cloud.google.com/bigquery/docs/reference/rest/v2/datasets
_WRITABLE_DATASETS = frozenset(["DEFAULT", "PUBLIC"])


class CheckError(SensorStreamError):
    """The job could not run with these resources; the message is one line that says how to fix it."""


def check_credentials() -> None:
    """Check that Google accepts the credentials.

    This comes first, because the clients of the services retry a rejected refresh until they report a timeout.

    Raises:
      CheckError: there are no credentials, Google rejects them, or Google cannot be reached.
    """
    try:
        credentials, _ = google.auth.default([_SCOPE])
        credentials.refresh(_Request())
    except GoogleAuthError as error:
        raise CheckError(credentials_advice(error)) from None


class _Request(Request):
    """A request with a shorter default timeout than the two minutes of google-auth."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **{"timeout": _TIMEOUT_SECONDS, **kwargs})  # type: ignore[no-untyped-call]


def credentials_advice(error: GoogleAuthError) -> str:
    """Return one line that says what is wrong with the credentials and how to fix it."""
    return credentials_problem(error) or (
        f"cannot reach Google to check the credentials ({one_line.reason(error)}); check the network and the proxy"
    )


def check_pubsub(job: Job) -> None:
    """Check that topics and subscription exist, suit the job, and may be used by the caller.

    Raises:
      CheckError: one of them does not exist, does not suit or may not be used, or Pub/Sub cannot be reached.
    """
    publisher = pubsub_v1.PublisherClient()
    if job.input_subscription:
        source = _check_subscription(job, job.input_subscription)
        if job.timestamp_attribute:
            # Dataflow follows event time in a backlog through a second subscription that it creates on the same topic:
            # https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#timestamps-ids
            _check_permission(publisher, source, "pubsub.topics.attachSubscription")
    elif job.input_topic:
        _look_up(publisher.get_topic, topic=job.input_topic)
        _check_permission(publisher, job.input_topic, "pubsub.topics.attachSubscription")
    for flag, topic in (("dead_letter_topic", job.dead_letter_topic), ("silence_topic", job.silence_topic)):
        if topic:
            found = _look_up(publisher.get_topic, topic=topic)
            if found.schema_settings.schema:
                raise CheckError(
                    f"--{flag}={topic} has the schema {found.schema_settings.schema}, so Pub/Sub would reject what "
                    "the job publishes; name a topic without a schema"
                )
            _check_permission(publisher, topic, "pubsub.topics.publish")


def _check_subscription(job: Job, path: str) -> str:
    """Check the subscription to read; return its topic."""
    subscriber = pubsub_v1.SubscriberClient()
    found = _look_up(subscriber.get_subscription, subscription=path)
    _, project, _, name = path.split("/")
    topic: str = found.topic
    if topic == "_deleted-topic_":
        raise CheckError(
            f"{path} belongs to a topic that was deleted, so no message will ever arrive; {_CREATE_ANOTHER}"
        )
    if found.push_config.push_endpoint:
        raise CheckError(
            f"{path} pushes to {one_line.value(found.push_config.push_endpoint)}, but the job pulls; change that "
            f'with: gcloud pubsub subscriptions update {name} --project={project} --push-endpoint=""'
        )
    for field, _ in type(found).pb(found).ListFields():
        if field.name not in _FIT_SUBSCRIPTIONS:
            fault, advice = _UNFIT_SUBSCRIPTIONS.get(
                field.name, (f"has {field.name}, a setting that this version does not know", _CREATE_ANOTHER)
            )
            raise CheckError(f"{path} {fault}; {advice.format(name=name, project=project)}")
    if error := rules.feedback(job, topic, f"--input_subscription={path}"):
        raise CheckError(error)
    _check_permission(subscriber, path, "pubsub.subscriptions.consume")
    return topic


def check_datasets(job: Job, region: str | None) -> None:
    """Check that the datasets exist, take rows, and are located in `region` (None: a local run, which may be anywhere).

    Raises:
      CheckError: a dataset does not exist, is read-only or in another location, would take two tables for the same one,
        or BigQuery cannot be reached.
    """
    named = job.named_tables
    datasets = {(table_id.project, table_id.dataset): table_id for table_id in named.values()}
    found = {key: _check_dataset(table_id, region) for key, table_id in datasets.items()}
    for (name, one), (other_name, other) in itertools.combinations(named.items(), 2):
        dataset = found[one.project, one.dataset]
        same = dataset.reference == found[other.project, other.dataset].reference
        if same and dataset.is_case_insensitive and one.table.lower() == other.table.lower():
            raise CheckError(
                f"{name} and {other_name} are both {one} in a dataset that ignores the case of table names; name "
                "another table"
            )


def _check_dataset(table_id: TableId, region: str | None) -> bigquery.Dataset:
    name = f"{table_id.project}:{table_id.dataset}"
    reference = bigquery.DatasetReference(table_id.project, table_id.dataset)
    try:
        # Google annotates the retry as required; None is for no retry.
        get_dataset: Any = tables.client(table_id.project).get_dataset
        dataset = get_dataset(reference, retry=None, timeout=_TIMEOUT_SECONDS)
    except NotFound:
        flag = f"--location={region} " if region else ""
        raise CheckError(f"dataset {name} does not exist; create it with: bq {flag}mk --dataset {name}") from None
    except Forbidden as error:
        raise CheckError(
            f"no permission to look up dataset {name} ({one_line.reason(error.message)}); {tables.grant(table_id)}, "
            f"{_SKIP}"
        ) from None
    except (GoogleAPIError, RequestException) as error:
        raise CheckError(f"cannot look up dataset {name} ({one_line.reason(error)}); fix that, {_SKIP}") from None
    kind = dataset.to_api_repr().get("type") or "DEFAULT"
    if kind not in _WRITABLE_DATASETS:
        raise CheckError(f"dataset {name} is {kind}, which takes no rows; name another dataset")
    if region and dataset.location and not _covers(dataset.location, region):
        raise CheckError(
            f"dataset {name} is in {dataset.location}, but the job would run in {region}; "
            f"launch with --region in {dataset.location}, name a dataset in {region}, {_SKIP}"
        )
    return dataset


def check_storage_write(job: Job) -> None:
    """Check that the Storage Write API is enabled and answers, if the job writes through it.

    Raises:
      CheckError: the API is disabled or cannot be reached.
    """
    if job.write_method == "streaming_inserts" or not job.output_table:
        return
    if os.environ.get("BIGQUERY_EMULATOR_HOST") and not os.environ.get(EMULATOR):
        raise CheckError(
            f"BIGQUERY_EMULATOR_HOST is set, but {EMULATOR} is not, so --write_method={job.write_method} would "
            f"write to BigQuery itself; set it to the emulator's host:port, or use --write_method=streaming_inserts"
        )
    try:
        write_client().get_write_stream(name=stream_name(job.output_table), retry=None, timeout=_TIMEOUT_SECONDS)
    except PermissionDenied as error:
        if error.reason == "SERVICE_DISABLED":
            raise CheckError(
                f"the Storage Write API, which --write_method={job.write_method} needs, is disabled "
                f"({one_line.reason(error)}); enable it with: gcloud services enable "
                f"bigquerystorage.googleapis.com, {_SKIP}"
            ) from None
    except (NotFound, MethodNotImplemented):
        pass  # the API answers; the table does not exist yet, or this is an emulator
    except GoogleAPIError as error:
        raise CheckError(f"cannot reach the Storage Write API ({one_line.reason(error)}); fix that, {_SKIP}") from None


def _covers(location: str, region: str) -> bool:
    # https://cloud.google.com/bigquery/docs/locations#multi-regions: London and Zurich are not in the EU.
    region = region.lower()
    if location.upper() == "EU":
        return region.startswith("europe-") and region not in ("europe-west2", "europe-west6")
    if location.upper() == "US":
        return region.startswith("us-")
    return location.lower() == region


def _look_up(get: Callable[..., T], **resource: str) -> T:
    ((kind, path),) = resource.items()
    _, project, _, name = path.split("/")
    try:
        return get(**resource, retry=None, timeout=_TIMEOUT_SECONDS)
    except NotFound:
        topic = " --topic=TOPIC" if kind == "subscription" else ""
        raise CheckError(
            f"{path} does not exist; create it with: gcloud pubsub {kind}s create {name} --project={project}{topic}"
        ) from None
    except PermissionDenied:
        raise CheckError(f"no permission to look up {path}; {_grant(kind, path, 'roles/pubsub.viewer')}") from None
    except GoogleAPIError as error:
        raise CheckError(f"cannot look up {path} ({one_line.reason(error)}); fix that, {_SKIP}") from None


def _check_permission(client: Any, path: str, permission: str) -> None:
    request = TestIamPermissionsRequest(resource=path, permissions=[permission])
    try:
        granted: Sequence[str] = client.test_iam_permissions(request, retry=None, timeout=_TIMEOUT_SECONDS).permissions
    except MethodNotImplemented:
        return  # an emulator, which has no permissions
    except GoogleAPIError as error:
        raise CheckError(
            f"cannot look up permissions on {path} ({one_line.reason(error)}); fix that, {_SKIP}"
        ) from None
    if permission not in granted:
        kind = path.split("/")[2].rstrip("s")
        raise CheckError(f"the job lacks {permission} on {path}; {_grant(kind, path, _ROLES[permission])}")


def _grant(kind: str, path: str, role: str) -> str:
    _, project, _, name = path.split("/")
    return (
        f"grant it with: gcloud pubsub {kind}s add-iam-policy-binding {name} --project={project} --role={role} "
        f"--member=serviceAccount:THE_JOBS_SERVICE_ACCOUNT, {_SKIP}"
    )
