"""The vocabulary of the repository: words of the field, one for each thing, in short lines, and names that say what."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_LISTED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
TRACKED = [ROOT / name for name in _LISTED.split("\0") if name and (ROOT / name).exists()]
# This file names the phrases; a published changelog is not rewritten.
TEXTS = [
    path
    for path in TRACKED
    if path.suffix not in {".png", ".txt"} and path.name not in {"CHANGELOG.md", "schema.json", Path(__file__).name}
]
PYTHON = [path for path in TRACKED if path.suffix == ".py"]

# What to write instead; docs/glossary.md defines the terms.
PHRASES = {
    "aged sums": "sums that may have expired",
    "anew": "again, or recreated",
    "comes of": "output of",
    "cures?": "fix",
    "dear": "expensive",
    "does not take rows for now": "BigQuery rejects rows; retrying",
    "everywhen": "in the global window",
    "foresaw|unforeseen": "unexpected",
    "heard": "activity",
    "judge[sd]?": "classify",
    "mend(s|ed|ing)?": "fix",
    "noted": "observed, recorded",
    "(unless|if|when) (nobody|somebody) asks": "when the parameter is set",
    "whoever": "name who",
    "runs? whole": "end to end",
    "tells?[ _]apart": "distinguish, or split by tag",
    "told": "payload, or informed",
    "the house": "repository layout",
    "unless asked": "when it is set",
    "without a word": "silently",
    "young": "sums that cannot have expired",
}
NAMES = {"aside", "heard", "it", "told", "judge"}


def _places(pattern: str) -> Iterator[str]:
    search = re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.IGNORECASE).search
    for path in TEXTS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


@pytest.mark.parametrize("phrase", PHRASES)
def test_texts_use_the_vocabulary(phrase):
    assert list(_places(phrase)) == [], f"write instead: {PHRASES[phrase]}"


def _bound(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of all that a module binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_are_not_pronouns_or_particles(name):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {bound}"
        for path in PYTHON
        for line, bound in _bound(ast.parse(path.read_text()))
        if bound.strip("_") == name
    ]
    assert found == []


def test_markdown_lines_have_at_most_120_columns():
    long = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)}"
        for path in TRACKED
        if path.suffix == ".md"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120 and not line.startswith("|")  # a row of a table cannot be broken
    ]
    assert long == []


def test_test_names_begin_with_a_unit_or_a_behaviour():
    start = re.compile(r"test_(a|all|an|each|every|it|neither|no|nobody|nor|nothing|one|that|the|what|when|who)_").match
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in PYTHON
        for line, name in _bound(ast.parse(path.read_text()))
        if start(name)
    ]
    assert found == []
