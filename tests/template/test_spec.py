"""The spec that the steps of cloudbuild.yaml write, by way of the real gcloud."""

import json

from template.metadata import template_metadata
from template.spec import complete
from tests.template.conftest import DIGEST


def test_its_metadata_is_ours_streaming_keys_included(spec, google):
    made = json.loads(google.path(spec).read_text())
    assert made["metadata"] == template_metadata()
    assert made["sdkInfo"] == {"language": "PYTHON"}


def test_it_names_the_image_by_digest(spec, google):
    assert json.loads(google.path(spec).read_text())["image"] == DIGEST


def test_only_what_gcloud_dropped_is_put_back():
    dropped = {"image": "i", "metadata": {"name": "theirs"}}
    assert complete(dropped, {"name": "ours", "streaming": True}) == {
        "image": "i",
        "metadata": {"name": "theirs", "streaming": True},
    }
