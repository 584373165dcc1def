"""The joint walk gives the rows that a plain interpreter of the language gives."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode.errors import UnequalLists
from pipeline.decode.paths import InDocument, parse_path
from pipeline.decode.shapes import NotPlain, Shape
from pipeline.decode.walk import Walk
from tests.pipeline.decode import interpreter

SETTINGS = settings(max_examples=300, deadline=None)

names = st.sampled_from("abc")
scalars = st.sampled_from(["x", "y", 1, 2.5, None, True])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=20
)
steps = (
    st.tuples(st.just("key"), names)
    | st.just(("every",))
    | st.tuples(st.just("item"), st.integers(-2, 1))
    | st.tuples(st.just("where"), names, st.sampled_from("xy"))
)
paths = st.lists(steps, max_size=4).map(tuple)


def written(path: interpreter.Path) -> str:
    """A path as a user writes it."""
    forms = {"key": "['{}']", "every": "[*]", "item": "[{}]", "where": "[?@.{}=='{}']"}
    return "$" + "".join(forms[step[0]].format(*step[1:]) for step in path)


def parsed(path: interpreter.Path) -> InDocument:
    [source] = parse_path(written(path)).sources
    assert isinstance(source, InDocument)
    return source


def walked(document: object, some: list[interpreter.Path]) -> list[list[object]]:
    return [list(row) for row in Walk([parsed(path) for path in some]).rows(document, [None] * len(some))]


@SETTINGS
@given(documents, st.lists(paths, min_size=1, max_size=4))
def test_rows_are_those_of_the_interpreter_for_any_paths(document, some):
    try:
        expected = interpreter.rows(document, some)
    except interpreter.Unequal:
        with pytest.raises(UnequalLists):
            walked(document, some)
    else:
        assert walked(document, some) == expected


plain_steps = st.tuples(st.just("key"), names) | st.just(("every",))


@SETTINGS
@given(documents, st.lists(st.lists(plain_steps, max_size=4).map(tuple), min_size=1, max_size=4, unique=True))
def test_rows_of_shapes_are_those_of_the_walk_or_none(document, some):
    walk = Walk([parsed(path) for path in some])
    try:
        shape = Shape(walk.root, "guard")
        rows = [list(row) for row in shape.rows(json.dumps([document]).encode(), [None] * len(some))]
    except (NotPlain, msgspec.ValidationError):
        pass  # for the walk alone
    else:
        assert rows == [list(row) for row in walk.rows(document, [None] * len(some))]


@pytest.mark.parametrize(
    ("document", "some", "expected"),
    [
        ({"m": [{"n": "T", "v": 1}, {"n": "H"}]}, ["m[*].n", "m[*].v"], [["T", 1], ["H", None]]),
        ({"t": 5, "m": [{"v": 1}, {"v": 2}]}, ["t", "m[*].v"], [[5, 1], [5, 2]]),
        ({"t": [5, 6], "v": [1, 2]}, ["t[*]", "v[*]"], [[5, 1], [6, 2]]),
        ({"a": {"x": 1}, "b": {"x": 2}}, ["[*]~", "[*].x"], [["a", 1], ["b", 2]]),
        ({"t": 5, "m": []}, ["t", "m[*].v"], [[5, None]]),
        ([{"n": "T", "v": 1}, {"n": "H", "v": 2}], ["[?@.n=='H'].v"], [[2]]),
        ({"m": [{"n": "T", "v": 1}, {"n": "H", "v": 2}]}, ["m[*].n", "m[?@.n=='H'].v"], [["T", None], ["H", 2]]),
        ({"m": [{"n": "T", "v": 1}, {"n": "H", "v": 2}]}, ["m[*][?@.n=='H'].v"], [[None], [2]]),
        ({"p": '{"v": [1, 2]}'}, ["p.v[-1]"], [[2]]),
        ({"p": '"{\\"v\\": 1}"'}, ["p.v"], [[1]]),
        ({"p": "eyJ2IjogMX0="}, ["p.v", "p"], [[1, "eyJ2IjogMX0="]]),
        ({"m": [{"id": 3, "on": True, "v": 1}]}, ["m[?@.id==3 && @.on==true].v", "m[?@.id==1].v"], [[1, None]]),
        ({"m": [{"on": True, "v": 1}]}, ["m[?@.on==1].v"], [[None]]),
    ],
)
def test_rows_of_a_document(document, some, expected):
    sources = [parse_path(text).sources[0] for text in some]
    rows = Walk(sources).rows(document, [None] * len(some))
    assert [list(row) for row in rows] == expected


def test_lists_that_are_not_equally_long_give_no_row():
    walk = Walk([parse_path(text).sources[0] for text in ("m[*].t[*]", "m[*].v[*]")])
    with pytest.raises(UnequalLists, match="1 and 2 items"):
        list(walk.rows({"m": [{"t": [1], "v": [1]}, {"t": [1], "v": [1, 2]}]}, [None, None]))
