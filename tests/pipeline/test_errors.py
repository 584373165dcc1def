"""The exception classes that the product defines: one tree, and one class per name."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections import Counter

import pytest

from pipeline import errors
from pipeline.errors import SensorStreamError
from publisher.errors import PublisherError

# Each ships, or runs, with the package `pipeline`, except the publisher.
PACKAGES = ("pipeline", "dashboard", "redrive", "local", "deploy")


def exceptions_of(package: str) -> set[type[Exception]]:
    """Return the exception classes that the modules of a package define."""
    names = [package]
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith(".__main__"):
            names.append(module.name)
    return {
        found
        for name in names
        for _, found in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if issubclass(found, Exception) and found.__module__.partition(".")[0] == package
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_exceptions_derive_from_the_one_root(package):
    assert not {found for found in exceptions_of(package) if not issubclass(found, SensorStreamError)}


def test_exceptions_derive_from_a_root_without_pipeline_in_the_publisher():
    found = exceptions_of("publisher")
    assert PublisherError in found
    assert not {one for one in found if not issubclass(one, PublisherError)}


def test_exceptions_have_unique_names():
    names = Counter(found.__name__ for package in (*PACKAGES, "publisher") for found in exceptions_of(package))
    assert {"SensorStreamError", "InvalidReading", "UsageError", "LocalStackError", "PublisherError"} <= names.keys()
    assert not {name for name, count in names.items() if count > 1}


def test_errors_imports_nothing():
    tree = ast.parse(inspect.getsource(errors))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_decode_does_not_import_beam():
    program = "import sys, pipeline.decode.decoder; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pipeline.errors" in ran.stdout.split()
    assert "apache_beam" not in ran.stdout.split()
