"""The module, planned and applied by the real terraform, which compares every argument and block with schema.json."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.deploy.terraform.conftest import ROOT, Terraform
from tests.grants import granted_by_script

PROJECT = {"project": "my-project"}
BUILT = {**PROJECT, "template_version": "v1"}
JOB = "google_dataflow_flex_template_job.sensors[0]"

# The Terraform resource for a grant on each type of resource; see tests/grants.py.
KINDS = {
    "projects": "google_project_iam_member",
    "storage buckets": "google_storage_bucket_iam_member",
    "artifacts repositories": "google_artifact_registry_repository_iam_member",
    "pubsub subscriptions": "google_pubsub_subscription_iam_member",
    "dataset": "google_bigquery_dataset_iam_member",
}


def test_files_are_formatted(provider):
    checked = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", "-diff", ROOT / "deploy/terraform"],
        env=provider,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + "run: terraform fmt -recursive terraform"


class TestMinimal:
    @pytest.fixture
    def minimal(self, example) -> Terraform:
        return example("minimal")

    def test_applies_from_empty_project_to_monitored_job_and_destroys(self, minimal):
        minimal.apply(**PROJECT)
        before = minimal.outputs()
        assert before["table"] == "my-project:sensors.readings"
        assert "job" not in before
        assert JOB not in minimal.resources()

        minimal.apply(**BUILT)
        assert minimal.outputs()["job"] == (
            "https://console.cloud.google.com/dataflow/jobs/europe-west1/2026-11-24_a-job?project=my-project"
        )
        job = minimal.resources()[JOB]
        assert job["container_spec_gcs_path"] == "gs://my-project-sensor-stream/templates/v1.json"
        assert job["parameters"] == {
            "input_subscription": "projects/my-project/subscriptions/sensor-stream",
            "output_table": "my-project:sensors.readings",
            "timestamp_attribute": "timestamp",
            "id_attribute": "reading_id",
        }
        assert job["on_delete"] == "drain"
        assert job["ip_configuration"] is None
        assert job["service_account_email"] == "sensor-stream-worker@my-project.iam.gserviceaccount.com"

        assert minimal.changes(**BUILT) == {}
        assert minimal.changes(**PROJECT, template_version="v2") == {
            f"module.sensor_stream.{JOB}": ["update"],
            "module.sensor_stream.google_cloud_run_v2_job.publisher[0]": ["update"],
        }
        gone = minimal.run("destroy", "-auto-approve", "-var=project=my-project")
        assert gone.returncode == 0, gone.stderr
        # Nothing that the job needs is deleted before the job has been drained.
        order = re.findall(r"^module\.sensor_stream\.(\w+\.\w+)\S*: Destroying", gone.stdout, re.MULTILINE)
        needed = {
            "google_project_iam_member.worker",
            "google_storage_bucket_iam_member.jobs",
            "google_pubsub_subscription.job",
        }
        assert order.index("google_dataflow_flex_template_job.sensors") < min(map(order.index, needed))

    def test_grants_are_no_more_than_needed(self, minimal, tmp_path):
        minimal.apply(**PROJECT)
        resources = minimal.resources()
        grants = sorted(
            (values["role"].removeprefix("roles/"), values["member"].partition(":")[2].partition("@")[0], kind)
            for address, values in resources.items()
            if (kind := address.partition(".")[0]).endswith("_iam_member")
        )
        assert grants == [
            ("artifactregistry.reader", "sensor-stream-worker", "google_artifact_registry_repository_iam_member"),
            ("artifactregistry.writer", "sensor-stream-build", "google_artifact_registry_repository_iam_member"),
            ("bigquery.dataEditor", "sensor-stream-worker", "google_bigquery_dataset_iam_member"),
            ("dataflow.worker", "sensor-stream-worker", "google_project_iam_member"),
            ("logging.logWriter", "sensor-stream-build", "google_project_iam_member"),
            ("pubsub.editor", "sensor-stream-worker", "google_project_iam_member"),
            ("pubsub.subscriber", "sensor-stream-worker", "google_pubsub_subscription_iam_member"),
            ("pubsub.viewer", "sensor-stream-worker", "google_pubsub_subscription_iam_member"),
            ("storage.objectUser", "sensor-stream-build", "google_storage_bucket_iam_member"),
            ("storage.objectUser", "sensor-stream-worker", "google_storage_bucket_iam_member"),
            ("storage.objectViewer", "sensor-stream-worker", "google_storage_bucket_iam_member"),
        ]
        assert grants == sorted((grant.role, grant.account, KINDS[grant.kind]) for grant in granted_by_script(tmp_path))
        subscription = resources["google_pubsub_subscription.job"]
        assert subscription["expiration_policy"] == [{"ttl": ""}]
        assert subscription["dead_letter_policy"] == []

    def test_workers_cannot_change_specs_and_sources(self, minimal):
        minimal.apply(**BUILT)
        resources = minimal.resources()
        roles = {
            values["bucket"]: values["role"]
            for address, values in resources.items()
            if address.startswith("google_storage_bucket_iam_member") and "worker" in values["member"]
        }
        assert roles == {
            "my-project-sensor-stream": "roles/storage.objectViewer",
            "my-project-sensor-stream-jobs": "roles/storage.objectUser",
        }
        job = resources[JOB]
        assert job["container_spec_gcs_path"].startswith("gs://my-project-sensor-stream/")
        assert job["staging_location"].startswith("gs://my-project-sensor-stream-jobs/")
        assert job["temp_location"].startswith("gs://my-project-sensor-stream-jobs/")

    def test_destroy_keeps_specs_without_force_destroy(self, minimal):
        minimal.apply(**PROJECT)
        builds, jobs = (minimal.resources()[f"google_storage_bucket.{name}"] for name in ("builds", "jobs"))
        assert (builds["force_destroy"], jobs["force_destroy"]) == (False, False)
        assert builds["versioning"] == [{"enabled": True}]

    def test_kms_key_encrypts_everything_that_stores_data(self, minimal):
        key = "projects/keys/locations/europe-west1/keyRings/ring/cryptoKeys/key"
        main = minimal.folder / "main.tf"
        main.write_text(re.sub(r'(source = "../.."\n)', rf'\1  kms_key = "{key}"\n', main.read_text()))
        minimal.apply(**BUILT)
        resources = minimal.resources()
        assert resources[JOB]["kms_key_name"] == key
        assert resources["google_pubsub_topic.readings"]["kms_key_name"] == key
        assert resources["google_artifact_registry_repository.images"]["kms_key_name"] == key
        dataset = resources["google_bigquery_dataset.sensors"]
        assert dataset["default_encryption_configuration"] == [{"kms_key_name": key}]
        for name in ("builds", "jobs"):
            (encryption,) = resources[f"google_storage_bucket.{name}"]["encryption"]
            assert encryption["default_kms_key_name"] == key
        allowed = {
            values["member"]
            for address, values in resources.items()
            if address.startswith("google_kms_crypto_key_iam_member")
            and (values["crypto_key_id"], values["role"]) == (key, "roles/cloudkms.cryptoKeyEncrypterDecrypter")
        }
        agents = ["bq-1234@bigquery-encryption"] + [
            f"service-1234@{domain}"
            for domain in (
                "compute-system",
                "dataflow-service-producer-prod",
                "gcp-sa-artifactregistry",
                "gcp-sa-pubsub",
                "gs-project-accounts",
            )
        ]
        assert allowed == {f"serviceAccount:{agent}.iam.gserviceaccount.com" for agent in agents}
        assert minimal.changes(**BUILT) == {}

    def test_agents_have_no_grants_without_kms_key(self, minimal):
        minimal.apply(**PROJECT)
        assert not [address for address in minimal.resources() if "agents" in address]

    def test_worker_may_not_create_subscriptions_without_timestamp_attribute(self, minimal):
        main = minimal.folder / "main.tf"
        main.write_text(main.read_text().replace('  timestamp_attribute = "timestamp"\n', ""))
        minimal.apply(**PROJECT)
        roles = {values.get("role") for values in minimal.resources().values()}
        assert "roles/pubsub.subscriber" in roles
        assert "roles/pubsub.editor" not in roles

    def test_worker_may_publish_to_the_topics_of_the_job(self, minimal):
        main = minimal.folder / "main.tf"
        topics = """
  dead_letter_topic = "projects/my-project/topics/refused"
  silence_after     = "5m"
  silence_topic     = "projects/another/topics/pages"
"""
        main.write_text(re.sub(r'(source = "../.."\n)', lambda found: found[1] + topics, main.read_text()))
        minimal.apply(**PROJECT)
        grants = sorted(
            (values["project"], values["topic"], values["role"])
            for address, values in minimal.resources().items()
            if address.startswith("google_pubsub_topic_iam_member.worker")
        )
        assert grants == [
            ("another", "pages", "roles/pubsub.publisher"),
            ("another", "pages", "roles/pubsub.viewer"),
            ("my-project", "refused", "roles/pubsub.publisher"),
            ("my-project", "refused", "roles/pubsub.viewer"),
        ]

    def test_build_command_fits_cloudbuild_yaml(self, minimal):
        minimal.apply(**PROJECT)
        substitutions = re.findall(r"(_[A-Z]+)=", minimal.outputs()["build"].partition("--substitutions=")[2])
        assert substitutions == ["_REGION", "_REPOSITORY", "_BUCKET", "_TAG"]
        declared = (ROOT / "cloudbuild.yaml").read_text()
        assert all(f"  {name}: " in declared for name in substitutions)

    @pytest.mark.parametrize(
        ("argument", "complaint"),
        [
            ('interval = "15"', "Expected a whole number above 0 with s, m or h, such as 15s, 5m or 1h."),
            ('window = "tumbling"', "Expected one of fixed, "),
            ('output_table = "readings"', "Expected project:dataset.table"),
            ('windwo = "session"', 'An argument named "windwo" is not expected here.'),
            ('kms_key = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"', "with the region as L"),
            (
                'dataset_location = "EU"\n  kms_key = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"',
                "With kms_key the dataset must be in the region",
            ),
        ],
    )
    def test_plan_refuses_a_wrong_parameter(self, minimal, argument, complaint):
        main = minimal.folder / "main.tf"
        main.write_text(re.sub(r'(source = "../.."\n)', rf"\1  {argument}\n", main.read_text()))
        ran = minimal.run("plan", "-var=project=my-project")
        assert ran.returncode == 1
        assert complaint in " ".join(ran.stderr.replace("│", " ").split())

    def test_plan_refuses_an_argument_unknown_to_the_provider(self, minimal):
        job = minimal.root / "deploy/terraform/job.tf"
        job.write_text(job.read_text().replace("max_workers  ", "max_wokers  "))
        ran = minimal.run("validate")
        assert (ran.returncode, "max_wokers" in ran.stderr) == (1, True)


class TestPrivateNetwork:
    def test_passes_on_every_chosen_value(self, example):
        private = example("private-network")
        private.apply(**BUILT, email="on-call@example.com")
        job = private.resources()[JOB]
        assert job["ip_configuration"] == "WORKER_IP_PRIVATE"
        assert job["subnetwork"] == "regions/europe-west1/subnetworks/sensors-workers"
        assert (job["machine_type"], job["max_workers"], job["labels"]) == ("n2d-standard-2", 5, {"team": "sensors"})
        assert job["parameters"]["group_by_device"] == "true"
        assert job["parameters"]["sensors"] == "Airtight,AtmP,H2OC,Temp"
        assert private.resources()["google_bigquery_dataset.sensors"]["location"] == "EU"
        assert private.changes(**BUILT, email="on-call@example.com") == {}


class TestMonitoring:
    """Terraform applies every field of deploy/monitoring/*.json; a field unknown to the module would be dropped."""

    @pytest.fixture
    def made(self, example) -> dict[str, dict[str, Any]]:
        minimal = example("minimal")
        minimal.apply(**PROJECT)
        return minimal.resources()

    def test_creates_every_field_of_every_file(self, made):
        places = {"job_name": "sensor-stream", "subscription": "sensor-stream", "runbook": "docs/runbook.md"}

        def filled(path) -> Any:
            text = path.read_text()
            for place, value in places.items():
                text = text.replace(f"${{{place}}}", value)
            return json.loads(text)

        def compared(folder: str, resource: str) -> int:
            files = sorted((ROOT / "deploy/monitoring" / folder).glob("*.json"))
            for path in files:
                values = made[f'{resource}["{path.stem}"]']
                assert _leaves(filled(path)) <= _leaves(_camel(values)), path
            return len(files)

        assert compared("alerts", "google_monitoring_alert_policy.own") > 0
        assert compared("log_metrics", "google_logging_metric.own") > 0
        dashboard = made['google_monitoring_dashboard.sensors["dashboard.json"]']["dashboard_json"]
        assert json.loads(dashboard) == filled(ROOT / "deploy/monitoring/dashboard.json")


def _camel(value: Any) -> Any:
    """Return a value in the notation of the API: camel case, and single blocks without a list."""
    if isinstance(value, dict):
        return {re.sub(r"_(\w)", lambda found: found[1].upper(), key): _camel(inner) for key, inner in value.items()}
    return [_camel(inner) for inner in value] if isinstance(value, list) else value


def _leaves(value: Any, path: tuple[str, ...] = ()) -> set[tuple[tuple[str, ...], Any]]:
    """Yield every value with its path, without indices of lists."""
    if isinstance(value, dict):
        return {leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))}
    if isinstance(value, list):
        return {leaf for inner in value for leaf in _leaves(inner, path)}
    return {(path, value)}
