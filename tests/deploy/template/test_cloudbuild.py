"""cloudbuild.yaml as gcloud submits it, and its steps, run as Cloud Build runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.template.fake_google import ROOT
from tests.deploy.template.launched import IMAGES, SPEC, TOPIC

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def submitted(gcloud, google) -> dict:
    """The request that gcloud sends for a manual build."""
    ran = gcloud("builds", "submit", "--no-source", "--async", "--config=cloudbuild.yaml", "--region=europe-west1")
    assert ran.returncode == 0, ran.stderr
    return google.builds[-1]


def test_cloudbuild_yaml_is_valid():
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    for command in (
        ["check-jsonschema", "--builtin-schema", "vendor.cloudbuild"],
        ["yamllint", "--strict", "-d", rules],
    ):
        checked = subprocess.run(
            [BIN / command[0], *command[1:], "cloudbuild.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_build_is_submitted_with_every_field(submitted, cloudbuild):
    assert [step["id"] for step in submitted["steps"]] == [step["id"] for step in cloudbuild["steps"]]
    assert submitted["substitutions"] == cloudbuild["substitutions"]
    assert submitted["timeout"] == "3600s"
    # A service account requires this logging, and nested substitutions require the other option.
    assert submitted["options"] == {
        "logging": "CLOUD_LOGGING_ONLY",
        "dynamicSubstitutions": True,
        "requestedVerifyOption": "VERIFIED",
    }
    assert submitted["images"] == cloudbuild["images"]
    assert submitted["serviceAccount"].startswith("projects/${PROJECT_ID}/serviceAccounts/sensor-stream-build@")


def test_default_tag_exists_in_manual_builds(submitted):
    assert submitted["substitutions"]["_TAG"] == "${BUILD_ID}"


def test_substitutions_are_declared_and_used():
    text = re.sub(r"#.*", "", (ROOT / "cloudbuild.yaml").read_text())
    declared = set(re.findall(r"^  (_\w+):", text, re.MULTILINE))
    built_in = {"PROJECT_ID", "BUILD_ID", "COMMIT_SHA"}
    assert set(re.findall(r"\$\{(\w+)\}", text)) - built_in == declared


def test_push_comes_before_the_spec(cloudbuild):
    steps = [step["id"] for step in cloudbuild["steps"]]
    assert steps == ["test", "bases", "build", "push", "spec", "upload", "smoke"]
    assert not any("waitFor" in step for step in cloudbuild["steps"])


def test_images_field_lists_the_built_images(cloudbuild, built):
    names = [name.replace("${_IMAGES}", IMAGES).replace("${_TAG}", "t1") for name in cloudbuild["images"]]
    assert {f"push {name}" for name in names} == {call for call in calls(built) if call.startswith("push ")}


def test_build_uses_and_records_the_digests_of_base_images(built):
    recorded = (built / "bases").read_text().splitlines()
    assert [line.partition("=")[0] for line in recorded] == ["BEAM", "LAUNCHER", "PYTHON"]
    assert all(line.endswith("@sha256:" + "1" * 64) for line in recorded)
    builds = [call for call in calls(built) if call.startswith("build ")]
    assert len(builds) == 3
    assert all(f"--build-arg={line}" in build for build in builds for line in recorded)


def test_build_passes_the_image_its_name(built):
    [build] = [call for call in calls(built) if call.startswith("build ") and call.endswith(" .") and "IMAGE=" in call]
    name = f"{IMAGES}/pipeline:t1"
    flags = {f"--build-arg=IMAGE={name}", f"--tag={name}", "--build-arg=VERSION=t1", "--build-arg=REVISION=abc"}
    assert flags < set(build.split())


def test_upload_replaces_no_spec(cloudbuild):
    script = next(step["script"] for step in cloudbuild["steps"] if step["id"] == "upload")
    copies = re.findall(r"^gcloud storage cp (\S+)", script, re.MULTILINE)
    assert copies == ["--if-generation-match=0"] * 5


def calls(built: Path) -> list[str]:
    return (built / "docker-calls").read_text().splitlines()


def test_scripts_have_every_variable_they_read(cloudbuild):
    for step in cloudbuild["steps"]:
        script = step.get("script", "")
        env = {pair.partition("=")[0] for pair in step.get("env", [])}
        assert set(re.findall(r"\$\{?([A-Z_]+)", script)) == env, step["id"]


class TestSmokeLaunch:
    @pytest.fixture
    def smoke(self, run_step, spec, google, tmp_path):
        def run(parameters: str) -> tuple[subprocess.CompletedProcess, list]:
            before = len(google.launches)
            ran = run_step(
                "smoke",
                tmp_path,
                PATH=os.environ["PATH"],
                PARAMETERS=parameters,
                SPEC=SPEC,
                STAGING="gs://b/staging",
                REGION="europe-west1",
                WORKER="w@p.iam.gserviceaccount.com",
            )
            return ran, google.launches[before:]

        return run

    def test_is_left_out_by_default(self, smoke, cloudbuild):
        ran, launches = smoke(cloudbuild["substitutions"]["_SMOKE_PARAMETERS"])
        assert (ran.returncode, launches) == (0, [])

    def test_waits_for_the_running_job_and_cancels_it(self, smoke):
        ran, [launch] = smoke(f"input_topic={TOPIC},output_table=sensor-stream-test:sensors.smoke")
        assert ran.returncode == 0, ran.stderr
        assert "JOB_STATE_RUNNING" in ran.stdout
        assert launch.state == "JOB_STATE_CANCELLED"

    def test_fails_the_build_when_the_job_fails(self, smoke):
        ran, _ = smoke("output_table=sensor-stream-test:sensors.smoke")
        assert (ran.returncode, "JOB_STATE_FAILED" in ran.stdout) == (1, True)

    def test_fails_the_build_when_the_launch_is_refused(self, smoke):
        ran, launches = smoke("output_table=readings")
        assert (ran.returncode, launches) == (1, [])
        assert "does not match" in ran.stderr
