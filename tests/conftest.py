"""The emulators, each started once for all tests that use it."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import settings

from local.stack import emulators
from tests import tools
from tests.guarded_run import GuardedRun

# Launched jobs: the tests of the template and of the update contract use them.
pytest_plugins = ["tests.deploy.template.launched"]

PROJECT = "sensor-stream-test"

# A slow machine is not a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--prism", metavar="PATH", help="run the graph on this Prism instead of Beam's local runner")


def pytest_configure(config: pytest.Config) -> None:
    tools.leave_out_what_is_missing(config)
    # A shell starts background commands with Ctrl-C ignored, and processes that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(GuardedRun(config))
    config.addinivalue_line("markers", "bundles_as_sent: each bundle is processed alone, before the next event")
    # The warning is for programs that poll a service across a network; the local stack must not block.
    config.addinivalue_line("filterwarnings", "ignore:The return_immediately flag:DeprecationWarning")


@pytest.fixture(scope="session")
def project() -> str:
    return PROJECT


@pytest.fixture(scope="session")
def pubsub_emulator() -> Iterator[str]:
    """host:port of the official emulator. Tests set os.environ, this does not."""
    with emulators.official_pubsub_emulator(PROJECT) as emulator:
        yield emulator.host


@pytest.fixture(scope="session")
def own_pubsub_server() -> Iterator[str]:
    """host:port of local.stack.pubsub_server in a separate process."""
    with emulators.own_pubsub_server() as server:
        yield server.host


@pytest.fixture(params=["ours", pytest.param("official", marks=pytest.mark.needs("Pub/Sub emulator"))])
def pubsub_server(request: pytest.FixtureRequest) -> str:
    """host:port of the local server, then of the official emulator if it is installed: a test runs on each."""
    return request.getfixturevalue({"official": "pubsub_emulator", "ours": "own_pubsub_server"}[request.param])


@pytest.fixture(scope="session")
def bigquery_server() -> Iterator[emulators.Emulator]:
    """The BigQuery emulator with its Storage Write API. Nothing is set in os.environ; tests do that."""
    with emulators.bigquery_emulator(PROJECT) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def gcloud_env(tmp_path_factory: pytest.TempPathFactory, project: str) -> dict[str, str]:
    """An environment in which gcloud has no credentials or settings of this machine, and never prompts."""
    return {
        **os.environ,
        "CLOUDSDK_CONFIG": str(tmp_path_factory.mktemp("gcloud")),
        "CLOUDSDK_CORE_PROJECT": project,
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def bigquery_emulator(bigquery_server: emulators.Emulator) -> str:
    """http://host:port, as BIGQUERY_EMULATOR_HOST wants it."""
    return bigquery_server.env["BIGQUERY_EMULATOR_HOST"]


@pytest.fixture(scope="session")
def bigquery_storage(bigquery_server: emulators.Emulator) -> str:
    """host:port, as BIGQUERY_STORAGE_EMULATOR_HOST wants it."""
    return bigquery_server.env[emulators.BIGQUERY_STORAGE]


@pytest.fixture
def expired_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Default credentials of a service account for which the token service answers that they have expired."""

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
            self.send_response(400)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048).private_bytes(*encoding).decode()
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        account = {"type": "service_account", "project_id": PROJECT, "private_key_id": "1", "private_key": key}
        account |= {"client_email": f"reader@{PROJECT}.iam.gserviceaccount.com", "client_id": "1"}
        account |= {"token_uri": f"http://127.0.0.1:{server.server_port}/token"}
        path = tmp_path / "credentials.json"
        path.write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"):
            monkeypatch.delenv(name, raising=False)
        yield
        server.shutdown()
