"""What is written is JSON to every reader, and what is read is JSON."""

import ast
import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decode import strict_json
from tests.pipeline.conftest import message

ROOT = Path(__file__).parents[3]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class TestDumps:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (math.inf, '"Infinity"'),
            (-math.inf, '"-Infinity"'),
            (math.nan, '"NaN"'),
            ({"sum": math.inf, "parts": (1.5, [-math.inf])}, '{"sum": "Infinity", "parts": [1.5, ["-Infinity"]]}'),
            ({"sum": 1e308, "name": "Köln"}, '{"sum": 1e+308, "name": "K\\u00f6ln"}'),
        ],
    )
    def test_writes_numbers_beyond_json_as_text(self, value, text):
        assert strict_json.dumps(value) == text

    @given(values)
    def test_writes_what_a_strict_parser_reads(self, value):
        msgspec.json.decode(strict_json.dumps(value))

    @given(st.floats())
    def test_keeps_every_number(self, value):
        found = float(json.loads(strict_json.dumps([value]))[0])
        assert found == value or (math.isnan(found) and math.isnan(value))


class TestLoads:
    def test_reads_json(self):
        assert strict_json.loads(b'{"Temp": [1.5, null, "K\xc3\xb6ln"]}') == {"Temp": [1.5, None, "Köln"]}

    @pytest.mark.parametrize(
        "text",
        [b"NaN", b"[Infinity]", b'{"Temp": -Infinity}', "[1]".encode("utf-16"), b"\xef\xbb\xbf[1]", b'"\xff"', b""],
    )
    def test_refuses_what_only_python_takes_for_json(self, text):
        with pytest.raises(ValueError):  # noqa: PT011
            strict_json.loads(text)


class TestDeadLetters:
    @pytest.mark.parametrize("statistics", ["mean", "mean,stddev,sum", "stddev"])
    def test_of_a_sum_beyond_a_float_is_json(self, run_on_worker, statistics):
        bad = [message(0, Temp=1.7e308), message(1, Temp=1.7e308), message(2, Temp=-1.7e308), message(3, Temp=1)]
        _, (letter,) = run_on_worker(bad, f"--statistics={statistics}", "--sensors=Temp")
        assert letter["error"] == "Overflow"
        readings = msgspec.json.decode(letter["payload"])["readings"]["Temp"]
        assert not all(math.isfinite(float(value)) for value in readings.values())


def writes(tree: ast.AST) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"json.dumps", "json.dump"}
    ]


def test_modules_write_valid_json_only():
    files = [file for file in ROOT.glob("[a-z]*/**/*.py") if file.relative_to(ROOT).parts[0] not in {"tests", "build"}]
    calls = [(file, call) for file in files for call in writes(ast.parse(file.read_text()))]
    assert len(calls) > 10
    lax = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file, call in calls
        if not any(word.arg == "allow_nan" and ast.unparse(word.value) == "False" for word in call.keywords)
    ]
    assert lax == [], "use pipeline.decode.strict_json, or allow_nan=False"
