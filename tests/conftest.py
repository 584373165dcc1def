"""The emulators, started once for all tests that ask for them."""

from collections.abc import Iterator

import pytest

from local import emulators

PROJECT = "sensor-stream-test"


def pytest_configure(config: pytest.Config) -> None:
    # Its advice is for programs that poll a service across a network; the local stack must not block.
    config.addinivalue_line("filterwarnings", "ignore:The return_immediately flag:DeprecationWarning")


@pytest.fixture(scope="session")
def project() -> str:
    return PROJECT


@pytest.fixture(scope="session")
def pubsub_emulator() -> Iterator[str]:
    """host:port, as PUBSUB_EMULATOR_HOST wants it. Nothing is set in os.environ; tests do that."""
    with emulators.pubsub_emulator(PROJECT) as emulator:
        yield emulator.value


@pytest.fixture(scope="session")
def bigquery_emulator() -> Iterator[str]:
    """http://host:port, as BIGQUERY_EMULATOR_HOST wants it. Nothing is set in os.environ; tests do that."""
    with emulators.bigquery_emulator(PROJECT) as emulator:
        yield emulator.value
