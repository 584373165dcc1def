"""What a call to Google failed with, and the fix when it is the credentials."""

from google.api_core.exceptions import RetryError, ServiceUnavailable, Unauthorized
from google.auth.exceptions import GoogleAuthError, TransportError

from pipeline.launch import one_line

# gRPC reports credentials that cannot be refreshed as a service that is unavailable, and retries until its timeout.
_PLUGIN_FAILED = "Getting metadata from plugin failed"


def root_cause(error: BaseException) -> BaseException:
    """Return the last error of a call whose retries ended, else `error` itself."""
    while isinstance(error, RetryError) and error.cause:
        error = error.cause
    return error


def credentials_problem(error: BaseException) -> str | None:
    """Return what is wrong with the credentials and how to fix it; None if the error is about something else."""
    error = root_cause(error)
    # A TransportError says that the token service could not be reached, which may pass.
    refused = isinstance(error, GoogleAuthError | Unauthorized) and not isinstance(error, TransportError)
    if not refused and not (isinstance(error, ServiceUnavailable) and _PLUGIN_FAILED in str(error)):
        return None
    # An error of google-auth has its cause in arguments, the answer of the token service among them.
    texts = [text for text in error.args if isinstance(text, str)] or [str(error)]
    reason = one_line.reason("; ".join(text.strip().rstrip(".") for text in texts))
    if "impersonat" in reason:
        return (
            f"The caller may not impersonate the service account ({reason}): grant the caller "
            f"roles/iam.serviceAccountTokenCreator on it, or run gcloud auth application-default login."
        )
    return f"No usable Google Cloud credentials ({reason}): run gcloud auth application-default login."
