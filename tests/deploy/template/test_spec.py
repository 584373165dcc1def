"""The spec that the steps of cloudbuild.yaml write with the real gcloud."""

import json

from deploy.template.metadata import template_metadata
from deploy.template.spec import complete
from tests.deploy.template.launched import DIGEST


def test_spec_holds_all_metadata_with_the_streaming_keys(spec, google):
    made = json.loads(google.path(spec).read_text())
    assert made["metadata"] == template_metadata()
    assert made["sdkInfo"] == {"language": "PYTHON"}


def test_spec_names_the_image_by_digest_for_launcher_and_workers(spec, google):
    made = json.loads(google.path(spec).read_text())
    assert made["image"] == DIGEST
    assert made["defaultEnvironment"]["sdkContainerImage"] == DIGEST


def test_complete_keeps_what_the_spec_has():
    made = {
        "image": "i@sha256:1",
        "defaultEnvironment": {"maxWorkers": 3, "sdkContainerImage": "theirs"},
        "metadata": {"name": "theirs"},
    }
    assert complete(made, {"name": "ours", "streaming": True}) == {
        **made,
        "metadata": {"name": "theirs", "streaming": True},
    }
