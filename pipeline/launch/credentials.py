"""Why a call to Google failed, and how to fix it if the credentials are the reason."""

from google.api_core.exceptions import RetryError, ServiceUnavailable, Unauthorized
from google.auth.exceptions import GoogleAuthError, TransportError

from pipeline.launch import one_line

# gRPC reports credentials that cannot be refreshed as a service that is unavailable, and retries until its timeout.
_PLUGIN_FAILED = "Getting metadata from plugin failed"


def root_cause(error: BaseException) -> BaseException:
    """Return the last error of a call that was retried in vain; any other error unchanged."""
    while isinstance(error, RetryError) and error.cause:
        error = error.cause
    return error


def credentials_problem(error: BaseException) -> str | None:
    """Return what is wrong with the credentials and how to fix it; None if they are not the reason of the error."""
    error = root_cause(error)
    # A TransportError means that the token service could not be reached, which is often temporary.
    refused = isinstance(error, GoogleAuthError | Unauthorized) and not isinstance(error, TransportError)
    if not refused and not (isinstance(error, ServiceUnavailable) and _PLUGIN_FAILED in str(error)):
        return None
    # The arguments of a google-auth error hold its cause, such as the answer of the token service.
    texts = [text for text in error.args if isinstance(text, str)] or [str(error)]
    reason = one_line.reason("; ".join(text.strip().rstrip(".") for text in texts))
    if "impersonat" in reason:
        return (
            f"The caller may not impersonate the service account ({reason}): grant the caller "
            f"roles/iam.serviceAccountTokenCreator on it, or run gcloud auth application-default login."
        )
    return f"No usable Google Cloud credentials ({reason}): run gcloud auth application-default login."
