"""Why a call to Google failed, and how to fix it if the credentials are the reason."""

import pytest
from google.api_core.exceptions import PermissionDenied, RetryError, ServiceUnavailable, Unauthenticated
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from pipeline.launch.credentials import credentials_problem, root_cause

LOGIN = "run gcloud auth application-default login."


def test_root_cause_is_the_error_of_the_last_attempt():
    cause = PermissionDenied("no")
    assert root_cause(RetryError("Timeout of 60.0s exceeded", RetryError("again", cause))) is cause
    assert root_cause(cause) is cause
    ended = RetryError("Timeout of 60.0s exceeded", None)
    assert root_cause(ended) is ended


PLUGIN = "503 Getting metadata from plugin failed with error: ('Unable to acquire impersonated credentials', 'denied')"


@pytest.mark.parametrize(
    ("error", "beginning", "fix"),
    [
        (DefaultCredentialsError("none found"), "No usable Google Cloud credentials (none found): ", LOGIN),
        (
            RefreshError("invalid_grant: expired"),
            "No usable Google Cloud credentials (invalid_grant: expired): ",
            LOGIN,
        ),
        (Unauthenticated("bad token"), "No usable Google Cloud credentials (bad token): ", LOGIN),
        (RetryError("Timeout of 60.0s exceeded", ServiceUnavailable(PLUGIN)), "The caller may not impersonate", LOGIN),
        (
            RefreshError("Unable to acquire impersonated credentials", "PERM"),
            "The caller may not impersonate the service account (Unable to acquire impersonated credentials; PERM",
            "roles/iam.serviceAccountTokenCreator",
        ),
    ],
)
def test_credentials_problem_is_one_line_with_cause_and_fix(error, beginning, fix):
    line = credentials_problem(error)
    assert line.startswith(beginning)
    assert fix in line
    assert "\n" not in line


@pytest.mark.parametrize("error", [TransportError("no route"), ServiceUnavailable("later"), PermissionDenied("no")])
def test_credentials_problem_is_none_for_other_errors(error):
    assert credentials_problem(error) is None
