"""Refused credentials end a run immediately, with the cause and the fix."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from publisher import listen
from publisher.listen import Listener
from publisher.service import ServiceError

RESOURCES = {
    "publish": "--topic=projects/some-project/topics/readings",
    "listen": "--subscription=projects/some-project/subscriptions/readings",
}
GOOD = (200, {"access_token": "token", "expires_in": 1, "token_type": "Bearer"})
REVOKED = (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
DENIED = (
    403,
    {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "iam.serviceAccounts.getAccessToken denied"}},
)


@dataclass
class TokenEndpoint:
    """Google's token service and IAM credentials; `tokens` are the former's responses, of which the last repeats."""

    url: str = ""
    tokens: list[tuple[int, dict]] = field(default_factory=lambda: [REVOKED])
    impersonated: tuple[int, dict] = DENIED


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    fake = TokenEndpoint()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if ":generateAccessToken" in self.path:
                status, answer = fake.impersonated
            else:
                status, answer = fake.tokens.pop(0) if len(fake.tokens) > 1 else fake.tokens[0]
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield fake
        server.shutdown()


@pytest.fixture
def key_file(endpoint: TokenEndpoint, tmp_path: Path) -> Path:
    """The key of a service account."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "key.json"
    key = {"type": "service_account", "client_email": "sa@p.iam.gserviceaccount.com", "private_key": private.decode()}
    path.write_text(json.dumps({**key, "token_uri": f"{endpoint.url}/token", "project_id": "p", "private_key_id": "1"}))
    return path


@pytest.fixture
def federation_file(endpoint: TokenEndpoint, tmp_path: Path) -> Path:
    """A configuration of workload identity federation, which impersonates a service account."""
    (tmp_path / "subject").write_text("subject-token")
    account = f"{endpoint.url}/v1/projects/-/serviceAccounts/sa@p.iam.gserviceaccount.com:generateAccessToken"
    path = tmp_path / "federation.json"
    path.write_text(
        json.dumps(
            {
                "type": "external_account",
                "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{endpoint.url}/token",
                "service_account_impersonation_url": account,
                "credential_source": {"file": str(tmp_path / "subject")},
            }
        )
    )
    return path


@pytest.mark.parametrize("command", RESOURCES)
class TestCredentialsAtTheStart:
    def error(self, process) -> str:
        """Return the last line on stderr of a process, which must end within ten seconds with exit code 1."""
        began = time.monotonic()
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert process.returncode == 1
        return err.splitlines()[-1]

    def test_revoked_login_is_one_line(self, command, start, key_file):
        error = self.error(start(command, RESOURCES[command], GOOGLE_APPLICATION_CREDENTIALS=str(key_file)))
        assert "Token has been expired or revoked." in error
        assert error.endswith("run: gcloud auth application-default login")

    def test_denied_impersonation_is_one_line(self, command, start, endpoint, federation_file):
        endpoint.tokens = [(200, {**GOOD[1], "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})]
        error = self.error(start(command, RESOURCES[command], GOOGLE_APPLICATION_CREDENTIALS=str(federation_file)))
        assert "iam.serviceAccounts.getAccessToken denied" in error
        assert "--role=roles/iam.serviceAccountTokenCreator" in error

    @pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED])
    def test_rejection_by_pubsub_is_one_line(self, command, start, service, code):
        service.always = service.stream_status = code
        error = self.error(start(command, RESOURCES[command], PUBSUB_EMULATOR_HOST=service.host))
        assert "set by the test" in error
        assert "gcloud " in error


def test_listener_ends_when_the_login_is_revoked_while_it_runs(endpoint, key_file, server, monkeypatch):
    monkeypatch.setattr(listen, "CHECK_SECONDS", 0.2)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    endpoint.tokens = [GOOD, GOOD, REVOKED]
    find = listen.find_credentials

    def find_as_on_google_cloud(resource):
        with monkeypatch.context() as patched:
            patched.delenv("PUBSUB_EMULATOR_HOST")
            return find(resource)

    monkeypatch.setattr(listen, "find_credentials", find_as_on_google_cloud)
    with pytest.raises(ServiceError, match=r"Token has been expired or revoked.*gcloud auth application-default login"):
        Listener(server.subscription).run(messages=None, timeout=20)
