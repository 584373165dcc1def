import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError

from publisher.sending import may_pass
from publisher.service import explain

TOPIC = "projects/my-project/topics/readings"
SUBSCRIPTION = "projects/my-project/subscriptions/readings-sub"


class TestExplain:
    @pytest.fixture(autouse=True)
    def _google_cloud(self, monkeypatch):
        monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)

    @pytest.mark.parametrize(
        ("error", "resource", "fix"),
        [
            (exceptions.NotFound("x"), TOPIC, "gcloud pubsub topics create readings --project=my-project"),
            (
                exceptions.NotFound("x"),
                SUBSCRIPTION,
                "gcloud pubsub subscriptions create readings-sub --project=my-project --topic=TOPIC",
            ),
            (
                exceptions.PermissionDenied("x"),
                TOPIC,
                "gcloud pubsub topics add-iam-policy-binding readings --project=my-project "
                "--role=roles/pubsub.publisher --member=user:YOU@EXAMPLE.COM",
            ),
            (
                exceptions.PermissionDenied("Cloud Pub/Sub API has not been used in project 1 before"),
                TOPIC,
                "gcloud services enable pubsub.googleapis.com --project=my-project",
            ),
            (DefaultCredentialsError("none found"), TOPIC, "gcloud auth application-default login"),
            (exceptions.Unauthenticated("x"), TOPIC, "gcloud auth application-default login"),
        ],
    )
    def test_ends_with_the_command_that_helps(self, error, resource, fix):
        assert explain(error, resource).endswith(fix)

    def test_is_one_line_whatever_the_service_says(self):
        assert "\n" not in explain(exceptions.InvalidArgument("two\nlines"), TOPIC)

    def test_on_an_emulator_the_fix_is_for_the_emulator(self, monkeypatch):
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:8085")
        assert explain(exceptions.NotFound("x"), TOPIC).endswith(f"curl -X PUT http://127.0.0.1:8085/v1/{TOPIC}")


class TestExpiredLogin:
    ERROR = exceptions.ServiceUnavailable(
        "Getting metadata from plugin failed with error: ('invalid_grant: Token has been expired or revoked.', {})"
    )

    def test_is_not_tried_again(self):
        assert not may_pass(self.ERROR)

    def test_is_explained_as_such(self):
        assert explain(self.ERROR, TOPIC).endswith("gcloud auth application-default login")
