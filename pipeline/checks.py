"""Checks before launch: whether what the job needs is there, and whether the job may use it.

They call Pub/Sub's and BigQuery's APIs only, which a launcher without a public address reaches through Private Google
Access. They look, and create nothing.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.api_core.exceptions import Forbidden, GoogleAPIError, MethodNotImplemented, NotFound, PermissionDenied
from google.cloud import bigquery, pubsub_v1
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest
from requests.exceptions import RequestException

from pipeline import tables
from pipeline.append_stream import EMULATOR, stream_name, write_client
from pipeline.options import Job

T = TypeVar("T")

# Seconds for each call.
_PATIENCE = 10.0

_SKIP = "or launch unchecked with --check_before_launch=false"

# The roles that hold the permissions we ask for: https://cloud.google.com/pubsub/docs/access-control#roles
_ROLES = {
    "pubsub.subscriptions.consume": "roles/pubsub.subscriber",
    "pubsub.topics.attachSubscription": "roles/pubsub.editor",
    "pubsub.topics.publish": "roles/pubsub.publisher",
}


class CheckError(Exception):
    """The job could not run as it is asked to; the message is one line that says how to mend that."""


def check_pubsub(job: Job) -> None:
    """Check that topics and subscription exist, deliver, and may be used by the caller.

    Raises:
      CheckError: they do not, or Pub/Sub cannot be reached.
    """
    if job.input_subscription:
        subscriber = pubsub_v1.SubscriberClient()
        found = _look_up(subscriber.get_subscription, subscription=job.input_subscription)
        name = job.input_subscription.rpartition("/")[2]
        if found.topic == "_deleted-topic_":
            raise CheckError(
                f"{job.input_subscription} belongs to a topic that was deleted, so nothing will ever arrive; "
                f"create another with: gcloud pubsub subscriptions create NAME --topic=TOPIC"
            )
        if found.push_config.push_endpoint:
            raise CheckError(
                f"{job.input_subscription} pushes to {found.push_config.push_endpoint}, but the job pulls; change that "
                f'with: gcloud pubsub subscriptions update {name} --push-endpoint=""'
            )
        _check_permission(subscriber, job.input_subscription, "pubsub.subscriptions.consume")
    publisher = pubsub_v1.PublisherClient()
    if job.input_topic:
        _look_up(publisher.get_topic, topic=job.input_topic)
        _check_permission(publisher, job.input_topic, "pubsub.topics.attachSubscription")
    elif job.timestamp_attribute:
        # Dataflow follows event time in a backlog through a second subscription that it makes to the same topic:
        # https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#timestamps-ids
        _check_permission(publisher, found.topic, "pubsub.topics.attachSubscription")
    for topic in filter(None, (job.dead_letter_topic, job.silence_topic)):
        _look_up(publisher.get_topic, topic=topic)
        _check_permission(publisher, topic, "pubsub.topics.publish")


def check_locations(job: Job, region: str | None) -> None:
    """Check that the tables' datasets exist, and are where the job runs (`region`, None on this machine).

    Raises:
      CheckError: they are not, or BigQuery cannot be reached.
    """
    for table_id in filter(None, (job.output_table, job.dead_letter_table)):
        dataset = f"{table_id.project}:{table_id.dataset}"
        reference = bigquery.DatasetReference(table_id.project, table_id.dataset)
        try:
            location = tables.client(table_id.project).get_dataset(reference, retry=None, timeout=_PATIENCE).location
        except NotFound:
            flag = f"--location={region} " if region else ""
            raise CheckError(
                f"dataset {dataset} does not exist; create it with: bq {flag}mk --dataset {dataset}"
            ) from None
        except Forbidden as error:
            advice = tables.grant(table_id)
            raise CheckError(
                f"no permission to look up dataset {dataset} ({error.message}); {advice}, {_SKIP}"
            ) from None
        except (GoogleAPIError, RequestException) as error:
            raise CheckError(f"cannot look up dataset {dataset} ({_one_line(error)}); mend that, {_SKIP}") from None
        if region and location and not _covers(location, region):
            raise CheckError(
                f"dataset {dataset} is in {location}, but the job would run in {region} and its rows would leave it; "
                f"launch with --region in {location}, name a dataset in {region}, {_SKIP}"
            )


def check_storage_write(job: Job) -> None:
    """Check that the Storage Write API is switched on and answers, if the job writes through it.

    Raises:
      CheckError: it is not, or cannot be reached.
    """
    if job.write_method == "streaming_inserts" or not job.output_table:
        return
    if os.environ.get("BIGQUERY_EMULATOR_HOST") and not os.environ.get(EMULATOR):
        raise CheckError(
            f"BIGQUERY_EMULATOR_HOST is set, but {EMULATOR} is not, so --write_method={job.write_method} would "
            f"write to BigQuery itself; set it to the emulator's host:port, or use --write_method=streaming_inserts"
        )
    try:
        write_client().get_write_stream(name=stream_name(job.output_table), retry=None, timeout=_PATIENCE)
    except PermissionDenied as error:
        if error.reason == "SERVICE_DISABLED":
            raise CheckError(
                f"the Storage Write API, which --write_method={job.write_method} needs, is switched off "
                f"({_one_line(error)}); switch it on with: gcloud services enable bigquerystorage.googleapis.com, "
                f"{_SKIP}"
            ) from None
    except (NotFound, MethodNotImplemented):
        pass  # it answers: there is no table yet, or it is an emulator
    except GoogleAPIError as error:
        raise CheckError(f"cannot reach the Storage Write API ({_one_line(error)}); mend that, {_SKIP}") from None


def _covers(location: str, region: str) -> bool:
    # https://cloud.google.com/bigquery/docs/locations#multi-regions: London and Zurich are not in the EU.
    if location.upper() == "EU":
        return region.startswith("europe-") and region not in ("europe-west2", "europe-west6")
    if location.upper() == "US":
        return region.startswith("us-")
    return location.lower() == region


def _look_up(get: Callable[..., T], **resource: str) -> T:
    ((kind, path),) = resource.items()
    _, project, _, name = path.split("/")
    try:
        return get(**resource, retry=None, timeout=_PATIENCE)
    except NotFound:
        topic = " --topic=TOPIC" if kind == "subscription" else ""
        raise CheckError(
            f"{path} does not exist; create it with: gcloud pubsub {kind}s create {name} --project={project}{topic}"
        ) from None
    except PermissionDenied:
        raise CheckError(f"no permission to look at {path}; {_grant(kind, path, 'roles/pubsub.viewer')}") from None
    except GoogleAPIError as error:
        raise CheckError(f"cannot look up {path} ({_one_line(error)}); mend that, {_SKIP}") from None


def _check_permission(client: Any, path: str, permission: str) -> None:
    request = TestIamPermissionsRequest(resource=path, permissions=[permission])
    try:
        granted: Sequence[str] = client.test_iam_permissions(request, retry=None, timeout=_PATIENCE).permissions
    except MethodNotImplemented:
        return  # an emulator, which knows no permissions
    except GoogleAPIError as error:
        raise CheckError(f"cannot look up permissions on {path} ({_one_line(error)}); mend that, {_SKIP}") from None
    if permission not in granted:
        kind = path.split("/")[2].rstrip("s")
        raise CheckError(f"the job lacks {permission} on {path}; {_grant(kind, path, _ROLES[permission])}")


def _grant(kind: str, path: str, role: str) -> str:
    _, project, _, name = path.split("/")
    return (
        f"grant it with: gcloud pubsub {kind}s add-iam-policy-binding {name} --project={project} --role={role} "
        f"--member=serviceAccount:THE_JOBS_SERVICE_ACCOUNT, {_SKIP}"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
