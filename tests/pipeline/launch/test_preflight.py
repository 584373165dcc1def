"""Checks before launch, on the emulators. Faults that these cannot produce come from our Pub/Sub server or a stub."""

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import apache_beam as beam
import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.api_core.exceptions import Forbidden, NotFound, PermissionDenied
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import TransportError
from google.cloud import bigquery, pubsub_v1
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsResponse
from google.rpc.error_details_pb2 import ErrorInfo

from local.stack.pubsub_server import PubsubServer
from pipeline import main
from pipeline.launch import options, preflight, tables
from pipeline.launch.job import Job
from pipeline.launch.preflight import CheckError
from pipeline.sinks.append_stream import EMULATOR


def job(*flags: str) -> Job:
    return options.parse(flags)[0]


class Place:
    """A topic with a subscription."""

    def __init__(self, project: str):
        self.project = project
        name = f"t{uuid.uuid4().hex}"
        self.topic, self.subscription = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
        self.publisher, self.subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        self.publisher.create_topic(name=self.topic)
        self.subscriber.create_subscription(name=self.subscription, topic=self.topic)

    def check(self, *flags: str) -> None:
        preflight.check_pubsub(job(f"--input_subscription={self.subscription}", *flags))

    def refusal(self, *flags: str) -> str:
        with pytest.raises(CheckError) as caught:
            self.check(*flags)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def place(pubsub_emulator, project, monkeypatch) -> Place:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_emulator)
    return Place(project)


class TestCheckPubSub:
    def test_accepts_existing_resources(self, place):
        other = Place(place.project)
        place.check("--timestamp_attribute=timestamp", f"--dead_letter_topic={other.topic}")
        place.check("--silence_after=5m", f"--silence_topic={other.topic}")
        preflight.check_pubsub(job(f"--input_topic={place.topic}"))

    def test_names_the_command_for_a_missing_subscription(self, place, project):
        place.subscription = f"projects/{project}/subscriptions/nothing"
        assert place.refusal() == (
            f"projects/{project}/subscriptions/nothing does not exist; create it with: "
            f"gcloud pubsub subscriptions create nothing --project={project} --topic=TOPIC"
        )

    @pytest.mark.parametrize("flag", ["--input_topic", "--dead_letter_topic", "--silence_topic"])
    def test_names_the_command_for_a_missing_topic(self, place, project, flag):
        missing = f"{flag}=projects/{project}/topics/nothing"
        source = () if flag == "--input_topic" else (f"--input_subscription={place.subscription}", "--silence_after=5m")
        with pytest.raises(CheckError, match=f"gcloud pubsub topics create nothing --project={project}"):
            preflight.check_pubsub(job(missing, *source))

    def test_refuses_a_subscription_of_a_deleted_topic(self, place):
        place.publisher.delete_topic(topic=place.topic)
        assert "topic that was deleted" in place.refusal()

    def test_refuses_a_push_subscription(self, place, project):
        place.subscription += "-push"
        push = pubsub_v1.types.PushConfig(push_endpoint="http://127.0.0.1:1/")
        place.subscriber.create_subscription(
            request={"name": place.subscription, "topic": place.topic, "push_config": push}
        )
        assert '--push-endpoint=""' in place.refusal()

    @pytest.mark.parametrize(
        ("flag", "harm"),
        [
            ("--dead_letter_topic", "the job would read its own dead letters in an endless loop"),
            ("--silence_topic", "the job would read silences as if they were readings"),
        ],
    )
    def test_refuses_to_publish_to_the_topic_of_the_subscription(self, place, flag, harm):
        assert place.refusal(f"{flag}={place.topic}", "--silence_after=5m") == (
            f"{flag}={place.topic} is the topic that --input_subscription={place.subscription} reads: {harm}; name "
            "another topic"
        )

    @pytest.mark.parametrize(
        ("fields", "fault", "advice"),
        [
            ({"bigquery_config": {"table": "p.d.t"}}, "writes to BigQuery itself", "subscriptions create NAME"),
            ({"cloud_storage_config": {"bucket": "b"}}, "writes to Cloud Storage itself", "subscriptions create NAME"),
            ({"bigtable_config": {"table": "t"}}, "writes to Bigtable itself", "subscriptions create NAME"),
            ({"detached": True}, "is detached from its topic", "subscriptions create NAME"),
            ({"enable_exactly_once_delivery": True}, "exactly-once delivery", "--no-enable-exactly-once-delivery"),
            ({"dead_letter_policy": {"max_delivery_attempts": 5}}, "dead-letter policy", "--clear-dead-letter-policy"),
        ],
    )
    def test_refuses_a_subscription_that_delivers_elsewhere(self, place, monkeypatch, fields, fault, advice):
        found = pubsub_v1.types.Subscription(name=place.subscription, topic=place.topic, **fields)
        monkeypatch.setattr(pubsub_v1.SubscriberClient, "get_subscription", lambda *args, **kwargs: found)
        refusal = place.refusal()
        assert refusal.startswith(f"{place.subscription} ")
        assert fault in refusal
        assert advice in refusal

    def test_refuses_a_subscription_with_an_unknown_setting(self, place, monkeypatch):
        monkeypatch.setattr(preflight, "_FIT_SUBSCRIPTIONS", preflight._FIT_SUBSCRIPTIONS - {"ack_deadline_seconds"})
        assert "has ack_deadline_seconds, a setting that this version does not know" in place.refusal()

    def test_accepts_settings_that_do_not_matter_to_the_job(self, place, monkeypatch):
        found = pubsub_v1.types.Subscription(
            name=place.subscription,
            topic=place.topic,
            push_config={"attributes": {"x-goog-version": "v1"}},
            enable_message_ordering=True,
            filter="attributes:site",
            retry_policy={"minimum_backoff": {"seconds": 1}},
            retain_acked_messages=True,
            labels={"team": "a"},
        )
        monkeypatch.setattr(pubsub_v1.SubscriberClient, "get_subscription", lambda *args, **kwargs: found)
        place.check()

    @pytest.mark.parametrize("flag", ["--dead_letter_topic", "--silence_topic"])
    def test_refuses_an_output_topic_with_a_schema(self, place, monkeypatch, flag):
        other = Place(place.project)
        found = pubsub_v1.types.Topic(name=other.topic, schema_settings={"schema": "projects/p-12345/schemas/s"})
        monkeypatch.setattr(pubsub_v1.PublisherClient, "get_topic", lambda *args, **kwargs: found)
        assert "has the schema projects/p-12345/schemas/s" in place.refusal(
            f"{flag}={other.topic}", "--silence_after=5m"
        )


class TestPubSubPermissions:
    @pytest.mark.parametrize(
        ("denied", "role"),
        [
            ("pubsub.subscriptions.consume", "roles/pubsub.subscriber"),
            ("pubsub.topics.attachSubscription", "roles/pubsub.editor"),
            ("pubsub.topics.publish", "roles/pubsub.publisher"),
        ],
    )
    def test_name_the_role_if_one_is_missing(self, place, monkeypatch, denied, role):
        def test_iam_permissions(self, request, **kwargs):
            return TestIamPermissionsResponse(permissions=[p for p in request.permissions if p != denied])

        for client in (pubsub_v1.PublisherClient, pubsub_v1.SubscriberClient):
            monkeypatch.setattr(client, "test_iam_permissions", test_iam_permissions)
        other = Place(place.project)
        refusal = place.refusal("--timestamp_attribute=timestamp", f"--dead_letter_topic={other.topic}")
        assert f"lacks {denied}" in refusal
        _, kind, _ = denied.split(".")
        path = other.topic if denied == "pubsub.topics.publish" else getattr(place, kind.rstrip("s"))
        grant = f"gcloud pubsub {kind} add-iam-policy-binding {path.split('/')[3]} --project={place.project}"
        assert f"{grant} --role={role} " in refusal
        assert "--check_before_launch=false" in refusal

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (grpc.StatusCode.PERMISSION_DENIED, "--role=roles/pubsub.viewer"),
            (grpc.StatusCode.UNAVAILABLE, "cannot look up"),
        ],
    )
    def test_name_the_reason_if_a_look_up_fails(self, project, monkeypatch, code, message):
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
        preflight.check_datasets(
            job("--input_topic=projects/p-12345/topics/t-1", f"--output_table={dataset}.t"), region
        )

    @pytest.mark.parametrize("region", [None, "europe-west1", "europe-north1"])
    def test_are_accepted_if_they_cover_the_region(self, dataset, region):
        self.check(dataset, region)

    @pytest.mark.parametrize("region", ["us-central1", "europe-west2", "europe-west6"])
    def test_name_the_alternatives_if_elsewhere(self, dataset, region):
        with pytest.raises(CheckError, match=f"is in EU, but the job would run in {region}"):
            self.check(dataset, region)

    @pytest.mark.parametrize(
        ("location", "region", "covered"),
        [
            ("US", "us-east4", True),
            ("US", "europe-west1", False),
            ("europe-west1", "europe-west1", True),
            ("europe-west1", "europe-west4", False),
            ("europe-west4", "europe-west1", False),
        ],
    )
    def test_cover_regions_as_google_documents(self, location, region, covered):
        assert preflight._covers(location, region) == covered

    def test_name_the_command_for_a_missing_dataset(self, dataset, project):
        with pytest.raises(CheckError, match=f"bq --location=us-east4 mk --dataset {project}:nowhere"):
            self.check(f"{project}:nowhere", "us-east4")


class TestDatasetTypes:
    JOB = "--input_topic=projects/p-12345/topics/t-1", "--output_table=p-12345:d.readings"

    def answer(self, monkeypatch, **resource):
        described = {"datasetReference": {"projectId": "p-12345", "datasetId": "d"}, **resource}
        monkeypatch.setattr(tables, "client", lambda project: bigquery.Client(project, AnonymousCredentials()))
        monkeypatch.setattr(
            bigquery.Client, "get_dataset", lambda *args, **kwargs: bigquery.Dataset.from_api_repr(described)
        )

    @pytest.mark.parametrize("kind", ["LINKED", "EXTERNAL"])
    def test_are_refused_if_they_take_no_rows(self, monkeypatch, kind):
        self.answer(monkeypatch, type=kind)
        with pytest.raises(CheckError, match=f"dataset p-12345:d is {kind}, which takes no rows"):
            preflight.check_datasets(job(*self.JOB), None)

    @pytest.mark.parametrize("resource", [{}, {"type": "DEFAULT"}, {"type": "PUBLIC"}])
    def test_are_accepted_if_they_take_rows(self, monkeypatch, resource):
        self.answer(monkeypatch, **resource)
        preflight.check_datasets(job(*self.JOB), None)

    @pytest.mark.parametrize("insensitive", [True, False])
    def test_decide_whether_names_that_differ_by_case_are_equal(self, monkeypatch, insensitive):
        self.answer(monkeypatch, isCaseInsensitive=insensitive)
        both = job(*self.JOB, "--dead_letter_table=p-12345.d.READINGS")
        if insensitive:
            with pytest.raises(
                CheckError, match=r"--output_table and --dead_letter_table are both p-12345:d\.readings"
            ):
                preflight.check_datasets(both, None)
        else:
            preflight.check_datasets(both, None)


class TestBigQueryPermissions:
    GRANT = r"GRANT \`roles/bigquery.dataEditor\` ON SCHEMA \`p-12345.d\` TO"
    COLUMNS = tables.row_columns(("Temp",), by_device=False, revise=False)

    @pytest.mark.parametrize("call", ["get_table", "create_table"])
    def test_name_the_grant_if_a_table_may_not_be_looked_up_or_created(self, monkeypatch, call):
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
    def test_include_the_one_to_insert_rows(self, monkeypatch, granted):
        monkeypatch.setattr(tables, "client", lambda project: bigquery.Client(project, AnonymousCredentials()))
        table = bigquery.Table("p-12345.d.t", self.COLUMNS)
        table._properties["type"] = "TABLE"
        monkeypatch.setattr(bigquery.Client, "get_table", lambda *args, **kwargs: table)
        monkeypatch.setattr(bigquery.Client, "test_iam_permissions", lambda *args, **kwargs: {"permissions": granted})
        if granted:
            tables.prepare(tables.TableId("p-12345", "d", "t"), self.COLUMNS, "Timestamp", None)
        else:
            with pytest.raises(
                tables.TableError, match=r"lacks bigquery.tables.updateData on p-12345:d\.t; grant it with"
            ):
                tables.prepare(tables.TableId("p-12345", "d", "t"), self.COLUMNS, "Timestamp", None)

    def test_name_the_grant_if_the_dataset_may_not_be_looked_up(self, monkeypatch):
        def denied(*args, **kwargs):
            raise Forbidden("Access Denied: bigquery.datasets.get")

        monkeypatch.setattr(tables, "client", lambda project: bigquery.Client(project, AnonymousCredentials()))
        monkeypatch.setattr(bigquery.Client, "get_dataset", denied)
        with pytest.raises(CheckError) as caught:
            preflight.check_datasets(
                job("--input_topic=projects/p-12345/topics/t-1", "--output_table=p-12345:d.t"), None
            )
        assert self.GRANT in str(caught.value)


class TestCredentials:
    """Google's token endpoint is a local server that rejects every key."""

    @pytest.fixture
    def refusing(self, tmp_path, monkeypatch) -> Iterator[list[str]]:
        """The requests to the token endpoint."""
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.path)
                body = json.dumps({"error": "invalid_grant", "error_description": "Account has been\nrevoked"}).encode()
                self.send_response(400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.use(tmp_path, monkeypatch, f"http://127.0.0.1:{server.server_port}/token")
            yield asked
            server.shutdown()

    def use(self, folder: Path, monkeypatch: pytest.MonkeyPatch, token_uri: str) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        credentials = {
            "type": "service_account",
            "client_email": "sensors@p-12345.iam.gserviceaccount.com",
            "private_key": pem,
            "token_uri": token_uri,
        }
        (folder / "credentials.json").write_text(json.dumps(credentials))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "credentials.json"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for emulator in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
            monkeypatch.delenv(emulator, raising=False)

    def test_end_the_launch_with_the_reason_if_refused(self, refusing, capfd):
        assert main.main(["--input_topic=projects/p-12345/topics/t-1", "--output_table=p-12345:d.t"]) == 2
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith("error: No usable Google Cloud credentials (")
        assert "Account has been" in line
        assert "gcloud auth application-default login" in line
        assert refusing == ["/token"]

    def test_name_the_command_if_there_are_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        with pytest.raises(CheckError, match=r"^No usable Google Cloud credentials \(.*none.json.*\): run gcloud auth"):
            preflight.check_credentials()

    def test_are_not_blamed_if_google_cannot_be_reached(self):
        advice = preflight.credentials_advice(TransportError("no route to host"))
        assert advice.startswith("cannot reach Google to check the credentials (no route to host)")

    def test_are_not_needed_on_emulators(self, refusing, place, monkeypatch):
        monkeypatch.setattr(options, "LOCAL_RUNNER", "FnApiRunner")
        assert main._check_resources(job(f"--input_topic={place.topic}"), None) == []
        assert refusing == []


class TestFailedLaunch:
    @pytest.fixture
    def launch(self, place, bigquery_server, monkeypatch):
        """A function of flags that launches and returns (exit code, the tables and views of the dataset after it)."""
        for name, value in bigquery_server.env.items():
            monkeypatch.setenv(name, value)
        bq = tables.client(place.project)
        dataset = f"d{uuid.uuid4().hex}"
        bq.create_dataset(dataset)
        self.output_table = tables.TableId(place.project, dataset, "readings")

        def run(*flags: str) -> tuple[int, list[str]]:
            source = f"--input_subscription={place.subscription}"
            code = main.main([source, f"--output_table={self.output_table}", *flags])
            return code, sorted(found.table_id for found in bq.list_tables(dataset))

        return run

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            (["--write_method=upsert", "--sensors=" + ",".join(f"s{n}" for n in range(2_000))], "at most 2,000"),
            (["--dead_letter_table={project}:nowhere.letters"], "dataset {project}:nowhere does not exist"),
            (["--dead_letter_topic=projects/{project}/topics/nothing"], "does not exist; create it with"),
            (["--runner=DataflowRunner"], "Apache Beam rejects the flags: "),
        ],
    )
    def test_creates_nothing(self, launch, project, capfd, flags, expected):
        code, found = launch(*(flag.format(project=project) for flag in flags))
        assert (code, found) == (2, [])
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert expected.format(project=project) in line

    def test_creates_nothing_if_the_dead_letter_table_does_not_fit(self, launch, capfd):
        letters = self.output_table.with_suffix("_dead_letters")
        tables.prepare(letters, tables.SILENCE_COLUMNS, "SilentSince", None)
        code, found = launch("--silence_after=5m", "--on_late=revise", "--fill_gaps=true")
        assert (code, found) == (2, ["readings_dead_letters"])
        assert "lacks columns" in capfd.readouterr().err

    def test_creates_nothing_if_a_table_has_the_name_of_a_view(self, launch, capfd):
        filled = self.output_table.with_suffix("_filled")
        tables.prepare(filled, tables.SILENCE_COLUMNS, "SilentSince", None)
        code, found = launch("--fill_gaps=true")
        assert (code, found) == (2, ["readings_filled"])
        assert "is a TABLE, and the job needs a view" in capfd.readouterr().err

    def test_creates_everything_once_the_fault_is_fixed(self, launch, monkeypatch):
        class Finished:
            def wait_until_finish(self) -> None:
                pass

        monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: Finished())
        flags = "--silence_after=5m", "--on_late=revise", "--fill_gaps=true"
        everything = [f"readings{suffix}" for suffix in ("", "_dead_letters", "_filled", "_latest", "_silences")]
        assert launch(*flags) == (0, everything)
        assert launch(*flags) == (0, everything)


class TestCheckStorageWrite:
    def check(self, *flags: str) -> None:
        topic = "--input_topic=projects/p-12345/topics/t-1"
        preflight.check_storage_write(job(topic, "--output_table=p-12345:d.t", *flags))

    def answer(self, monkeypatch, error: Exception | None) -> None:
        def get_write_stream(client, **kwargs):
            if error:
                raise error

        monkeypatch.setenv(EMULATOR, "127.0.0.1:1")
        monkeypatch.setattr(BigQueryWriteClient, "get_write_stream", get_write_stream)

    @pytest.mark.parametrize("method", ["storage_write", "upsert"])
    def test_names_the_command_if_the_api_is_disabled(self, monkeypatch, method):
        error = PermissionDenied("API has not been used", error_info=ErrorInfo(reason="SERVICE_DISABLED"))
        self.answer(monkeypatch, error)
        with pytest.raises(CheckError, match=r"gcloud services enable bigquerystorage\.googleapis\.com, or launch"):
            self.check(f"--write_method={method}")

    @pytest.mark.parametrize("error", [None, NotFound("no table"), PermissionDenied("no look, or no table")])
    def test_accepts_an_api_that_answers(self, monkeypatch, error):
        self.answer(monkeypatch, error)
        self.check("--write_method=upsert")

    def test_refuses_an_api_that_does_not_answer(self, monkeypatch):
        monkeypatch.setenv(EMULATOR, "127.0.0.1:1")
        with pytest.raises(CheckError, match="cannot reach the Storage Write API"):
            self.check("--write_method=upsert")

    def test_calls_nothing_for_streaming_inserts(self, monkeypatch):
        self.answer(monkeypatch, AssertionError("asked"))
        self.check()

    def test_refuses_the_bigquery_emulator_without_that_of_the_api(self, monkeypatch):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
        monkeypatch.delenv(EMULATOR, raising=False)
        with pytest.raises(CheckError, match=f"{EMULATOR} is not"):
            self.check("--write_method=upsert")


def missing(*args, **kwargs):
    raise NotFound("Not found: Table p-12345:d.t")
