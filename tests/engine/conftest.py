"""What these tests run needs Prism, so they are collected only when pytest is given --prism: `make engines`."""

from pathlib import Path

import pytest

from tests.pipeline.conftest import engine

__all__ = ["engine"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.parent == Path(__file__).parent and not config.getoption("--prism"):
        return True
    return None
