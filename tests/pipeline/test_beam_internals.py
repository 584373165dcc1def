"""What the pipeline uses of Beam beyond its public interface is in one module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub

import pipeline
from pipeline.beam_internals import ReadFromPubSubWithoutLineage
from tests.pipeline.conftest import captured

PACKAGE = Path(pipeline.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}

# Arguments by which Beam's transforms take a stand-in for a service.
FOR_TESTS = {"test_client"}

# Of named tuples, documented: https://docs.python.org/3/library/collections.html#collections.somenamedtuple._replace
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def defined_names(module: ast.Module) -> Iterator[str]:
    """Yield the private names that a module gives to classes, functions, fields and variables."""
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store())
            ):
                yield name


def private_uses(module: ast.Module, own: set[str]) -> Iterator[str]:
    """Yield the private names that a module uses and the pipeline does not define, and arguments meant for tests."""
    for node in ast.walk(module):
        match node:
            case ast.ImportFrom(module=str(path), names=names) if not path.startswith("pipeline"):
                yield from (part for part in path.split(".") if is_private(part))
                yield from (alias.name for alias in names if is_private(alias.name))
            case ast.Import(names=names):
                yield from (alias.name for alias in names if any(map(is_private, alias.name.split("."))))
            case ast.Attribute(attr=name) if is_private(name) and name not in own | NAMED_TUPLE:
                yield name
            case ast.keyword(arg=str(name)) if name in FOR_TESTS:
                yield name


OWN = {name for module in MODULES.values() for name in defined_names(module)}


def test_private_names_of_beam_are_used_in_beam_internals():
    assert set(private_uses(MODULES["beam_internals.py"], OWN)) == {"_windowing", "_from_proto_str"}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"beam_internals.py"}))
def test_private_names_of_beam_are_not_used_in_other_modules(module):
    assert list(private_uses(MODULES[module], OWN)) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from apache_beam.io.gcp.pubsub import _AddMetricsPassThrough", "_AddMetricsPassThrough"),
        ("from apache_beam._internal import x", "_internal"),
        ("import apache_beam._internal", "apache_beam._internal"),
        ("elements._windowing = windowing", "_windowing"),
        ("class Read(ReadFromPubSub):\n    def expand(self): return self._source", "_source"),
        ("WriteToBigQuery(table, test_client=client)", "test_client"),
    ],
)
def test_private_uses_finds_every_kind_of_use(source, name):
    module = ast.parse(source)
    assert list(private_uses(module, set(defined_names(module)))) == [name]


def test_private_uses_leaves_out_names_that_the_module_defines():
    module = ast.parse("class A:\n    def __init__(self): self._x = 1\n    def _f(self): return self._x\nA()._f()")
    assert list(private_uses(module, set(defined_names(module)))) == []


@pytest.mark.parametrize("with_attributes", [True, False])
def test_read_from_pubsub_without_lineage_yields_the_messages_of_read_from_pubsub(with_attributes):
    sent = PubsubMessage(b"a", {"k": "v"}, "1")
    fed = sent._to_proto_str() if with_attributes else sent.data
    found = []
    for read in ReadFromPubSubWithoutLineage, ReadFromPubSub:
        transform = read(topic="projects/test-project/topics/t-1", with_attributes=with_attributes)
        with captured() as (seen, capture), beam.Pipeline(runner="FnApiRunner") as pipeline:
            _ = transform.expand_continued(pipeline | beam.Create([fed])) | capture
        found.append(seen)
    assert found == [[sent if with_attributes else b"a"]] * 2
