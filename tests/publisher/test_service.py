import shlex
import sys

import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError

from publisher.sending import is_transient
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
    def test_ends_with_the_command_that_fixes_it(self, error, resource, fix):
        assert explain(error, resource).endswith(fix)

    def test_is_one_line_for_any_error_message(self):
        assert "\n" not in explain(exceptions.InvalidArgument("two\nlines"), TOPIC)

    def test_names_a_command_for_the_emulator_on_an_emulator(self, monkeypatch):
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:8085")
        fix = explain(exceptions.NotFound("x"), TOPIC).partition("create it with: ")[2]
        assert shlex.split(fix) == [
            "PUBSUB_EMULATOR_HOST=127.0.0.1:8085",
            sys.executable,
            "-c",
            f"from google.pubsub_v1 import PublisherClient; PublisherClient().create_topic(name='{TOPIC}')",
        ]

    def test_names_the_cause_of_the_last_retry(self):
        error = exceptions.RetryError("Timeout of 60.0s exceeded", exceptions.ServiceUnavailable("no route to host"))
        assert explain(error, TOPIC) == f"{TOPIC}: no route to host"

    def test_shortens_a_long_reason(self):
        assert len(explain(exceptions.InvalidArgument("x" * 5000), TOPIC)) < 500


def plugin(reason: str) -> exceptions.ServiceUnavailable:
    """Return the error by which gRPC reports that it got no token."""
    return exceptions.ServiceUnavailable(f"Getting metadata from plugin failed with error: {reason}")


class TestIsTransient:
    @pytest.mark.parametrize(
        "reason",
        [
            "('invalid_grant: Token has been expired or revoked.', {})",
            "('invalid_grant: Invalid JWT Signature.', {})",
            "Reauthentication is needed. Please run `gcloud auth application-default login` to reauthenticate.",
            """('Unable to acquire impersonated credentials', '{"error": {"code": 403, "status": "DENIED"}}')""",
        ],
    )
    def test_is_false_for_refused_credentials(self, reason):
        assert not is_transient(plugin(reason))

    @pytest.mark.parametrize(
        "reason",
        [
            "HTTPSConnectionPool(host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token",
            "('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))",
            """('Unable to acquire impersonated credentials', '{"error": {"code": 503}}')""",
        ],
    )
    def test_is_true_for_a_lost_connection(self, reason):
        assert is_transient(plugin(reason))

    def test_refused_credentials_are_explained(self):
        expired = plugin("('invalid_grant: Token has been expired or revoked.', {})")
        assert explain(expired, TOPIC).endswith("gcloud auth application-default login")
        denied = plugin("('Unable to acquire impersonated credentials', '{}')")
        assert "--role=roles/iam.serviceAccountTokenCreator" in explain(denied, TOPIC)
