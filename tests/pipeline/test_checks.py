"""Checks before launch, on the emulators; what these cannot refuse is refused by our own Pub/Sub server, or a stub."""

import uuid

import grpc
import pytest
from google.api_core.exceptions import Forbidden, NotFound, PermissionDenied
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, pubsub_v1
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsResponse
from google.rpc.error_details_pb2 import ErrorInfo

from local.pubsub_server import PubsubServer
from pipeline import checks, options, tables
from pipeline.append_stream import EMULATOR
from pipeline.checks import CheckError


def job(*flags: str) -> options.Job:
    return options.parse(flags)[0]


class Place:
    """A topic with a subscription."""

    def __init__(self, project: str):
        name = f"t{uuid.uuid4().hex}"
        self.topic, self.subscription = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
        self.publisher, self.subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        self.publisher.create_topic(name=self.topic)
        self.subscriber.create_subscription(name=self.subscription, topic=self.topic)

    def check(self, *flags: str) -> None:
        checks.check_pubsub(job(f"--input_subscription={self.subscription}", *flags))

    def refusal(self, *flags: str) -> str:
        with pytest.raises(CheckError) as caught:
            self.check(*flags)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def place(pubsub_emulator, project, monkeypatch) -> Place:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_emulator)
    return Place(project)


class TestPubSub:
    def test_what_is_there_passes(self, place):
        place.check("--timestamp_attribute=timestamp", f"--dead_letter_topic={place.topic}")
        place.check("--silence_after=5m", f"--silence_topic={place.topic}")
        checks.check_pubsub(job(f"--input_topic={place.topic}"))

    def test_a_missing_subscription_names_the_command_that_creates_it(self, place, project):
        place.subscription = f"projects/{project}/subscriptions/nothing"
        assert place.refusal() == (
            f"projects/{project}/subscriptions/nothing does not exist; create it with: "
            f"gcloud pubsub subscriptions create nothing --project={project} --topic=TOPIC"
        )

    @pytest.mark.parametrize("flag", ["--input_topic", "--dead_letter_topic", "--silence_topic"])
    def test_a_missing_topic_names_the_command_that_creates_it(self, place, project, flag):
        missing = f"{flag}=projects/{project}/topics/nothing"
        source = () if flag == "--input_topic" else (f"--input_subscription={place.subscription}", "--silence_after=5m")
        with pytest.raises(CheckError, match=f"gcloud pubsub topics create nothing --project={project}"):
            checks.check_pubsub(job(missing, *source))

    def test_a_subscription_of_a_deleted_topic(self, place):
        place.publisher.delete_topic(topic=place.topic)
        assert "topic that was deleted" in place.refusal()

    def test_a_push_subscription(self, place, project):
        place.subscription += "-push"
        push = pubsub_v1.types.PushConfig(push_endpoint="http://127.0.0.1:1/")
        place.subscriber.create_subscription(
            request={"name": place.subscription, "topic": place.topic, "push_config": push}
        )
        assert '--push-endpoint=""' in place.refusal()


class TestPermissions:
    @pytest.mark.parametrize(
        ("denied", "role"),
        [
            ("pubsub.subscriptions.consume", "roles/pubsub.subscriber"),
            ("pubsub.topics.attachSubscription", "roles/pubsub.editor"),
            ("pubsub.topics.publish", "roles/pubsub.publisher"),
        ],
    )
    def test_a_missing_one_names_the_role_that_grants_it(self, place, monkeypatch, denied, role):
        def test_iam_permissions(self, request, **kwargs):
            return TestIamPermissionsResponse(permissions=[p for p in request.permissions if p != denied])

        for client in (pubsub_v1.PublisherClient, pubsub_v1.SubscriberClient):
            monkeypatch.setattr(client, "test_iam_permissions", test_iam_permissions)
        refusal = place.refusal("--timestamp_attribute=timestamp", f"--dead_letter_topic={place.topic}")
        assert f"lacks {denied}" in refusal
        assert f"--role={role}" in refusal
        assert "--check_before_launch=false" in refusal

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (grpc.StatusCode.PERMISSION_DENIED, "--role=roles/pubsub.viewer"),
            (grpc.StatusCode.UNAVAILABLE, "cannot look up"),
        ],
    )
    def test_no_permission_or_no_way_to_look(self, project, monkeypatch, code, message):
        with PubsubServer() as server:
            monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.host)
            place = Place(project)
            server.refuse("GetSubscription", code, times=1)
            assert message in place.refusal()


class TestLocations:
    @pytest.fixture
    def dataset(self, bigquery_emulator, project, monkeypatch) -> str:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator)
        name = f"d{uuid.uuid4().hex}"
        dataset = bigquery.Dataset(f"{project}.{name}")
        dataset.location = "EU"
        tables.client(project).create_dataset(dataset)
        return f"{project}:{name}"

    def check(self, dataset: str, region: str | None) -> None:
        checks.check_locations(job("--input_topic=projects/p-12345/topics/t-1", f"--output_table={dataset}.t"), region)

    @pytest.mark.parametrize("region", [None, "europe-west1", "europe-north1"])
    def test_a_dataset_where_the_job_runs_passes(self, dataset, region):
        self.check(dataset, region)

    @pytest.mark.parametrize("region", ["us-central1", "europe-west2", "europe-west6"])
    def test_a_dataset_elsewhere_names_the_ways_out(self, dataset, region):
        with pytest.raises(CheckError, match=f"is in EU, but the job would run in {region}"):
            self.check(dataset, region)

    @pytest.mark.parametrize(
        ("location", "region", "covered"),
        [("US", "us-east4", True), ("US", "europe-west1", False), ("europe-west1", "europe-west1", True)],
    )
    def test_other_locations(self, location, region, covered):
        assert checks._covers(location, region) == covered

    def test_a_missing_dataset_names_the_command_that_creates_it_there(self, dataset, project):
        with pytest.raises(CheckError, match=f"bq --location=us-east4 mk --dataset {project}:nowhere"):
            self.check(f"{project}:nowhere", "us-east4")


class TestBigQueryPermissions:
    GRANT = r"GRANT \`roles/bigquery.dataEditor\` ON SCHEMA \`p-12345.d\` TO"
    COLUMNS = tables.row_columns(("Temp",), by_device=False, revise=False)

    @pytest.mark.parametrize("call", ["get_table", "create_table"])
    def test_none_to_look_or_create_names_the_grant(self, monkeypatch, call):
        def denied(*args, **kwargs):
            raise Forbidden("Access Denied: bigquery.tables.get")

        monkeypatch.setattr(tables, "client", lambda project: bigquery.Client(project, AnonymousCredentials()))
        for name, answer in [("get_table", missing), ("get_dataset", None), (call, denied)]:
            monkeypatch.setattr(bigquery.Client, name, answer or (lambda *args, **kwargs: None))
        with pytest.raises(tables.TableError) as caught:
            tables.prepare(tables.TableId("p-12345", "d", "t"), self.COLUMNS, "Timestamp", None)
        assert self.GRANT in str(caught.value)
        assert "Access Denied" in str(caught.value)

    @pytest.mark.parametrize("granted", [[], ["bigquery.tables.updateData"]])
    def test_that_to_insert_is_asked_for(self, monkeypatch, granted):
        monkeypatch.setattr(tables, "client", lambda project: bigquery.Client(project, AnonymousCredentials()))
        table = bigquery.Table("p-12345.d.t", self.COLUMNS)
        monkeypatch.setattr(bigquery.Client, "get_table", lambda *args, **kwargs: table)
        monkeypatch.setattr(bigquery.Client, "test_iam_permissions", lambda *args, **kwargs: {"permissions": granted})
        if granted:
            tables.prepare(tables.TableId("p-12345", "d", "t"), self.COLUMNS, "Timestamp", None)
        else:
            with pytest.raises(tables.TableError, match=r"may not insert into table p-12345:d\.t; grant it with"):
                tables.prepare(tables.TableId("p-12345", "d", "t"), self.COLUMNS, "Timestamp", None)

    def test_none_to_look_up_the_dataset_names_the_grant(self, monkeypatch):
        def denied(*args, **kwargs):
            raise Forbidden("Access Denied: bigquery.datasets.get")

        monkeypatch.setattr(tables, "client", lambda project: bigquery.Client(project, AnonymousCredentials()))
        monkeypatch.setattr(bigquery.Client, "get_dataset", denied)
        with pytest.raises(CheckError) as caught:
            checks.check_locations(job("--input_topic=projects/p-12345/topics/t-1", "--output_table=p-12345:d.t"), None)
        assert self.GRANT in str(caught.value)


class TestStorageWrite:
    def check(self, *flags: str) -> None:
        topic = "--input_topic=projects/p-12345/topics/t-1"
        checks.check_storage_write(job(topic, "--output_table=p-12345:d.t", *flags))

    def answer(self, monkeypatch, error: Exception | None) -> None:
        def get_write_stream(client, **kwargs):
            if error:
                raise error

        monkeypatch.setenv(EMULATOR, "127.0.0.1:1")
        monkeypatch.setattr(BigQueryWriteClient, "get_write_stream", get_write_stream)

    @pytest.mark.parametrize("method", ["storage_write", "upsert"])
    def test_an_api_that_is_switched_off_names_the_command_that_switches_it_on(self, monkeypatch, method):
        error = PermissionDenied("API has not been used", error_info=ErrorInfo(reason="SERVICE_DISABLED"))
        self.answer(monkeypatch, error)
        with pytest.raises(CheckError, match=r"gcloud services enable bigquerystorage\.googleapis\.com, or launch"):
            self.check(f"--write_method={method}")

    @pytest.mark.parametrize("error", [None, NotFound("no table"), PermissionDenied("no look, or no table")])
    def test_one_that_answers_passes(self, monkeypatch, error):
        self.answer(monkeypatch, error)
        self.check("--write_method=upsert")

    def test_one_that_does_not_answer_is_said_so(self, monkeypatch):
        monkeypatch.setenv(EMULATOR, "127.0.0.1:1")
        with pytest.raises(CheckError, match="cannot reach the Storage Write API"):
            self.check("--write_method=upsert")

    def test_streaming_inserts_do_not_need_it(self, monkeypatch):
        self.answer(monkeypatch, AssertionError("asked"))
        self.check()

    def test_one_emulator_without_the_other_would_write_to_bigquery_itself(self, monkeypatch):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
        monkeypatch.delenv(EMULATOR, raising=False)
        with pytest.raises(CheckError, match=f"{EMULATOR} is not"):
            self.check("--write_method=upsert")


def missing(*args, **kwargs):
    raise NotFound("Not found: Table p-12345:d.t")
