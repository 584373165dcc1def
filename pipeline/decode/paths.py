"""The grammar of paths: where in a message a time, a device or a value is found.

A subset of RFC 9535 (https://www.rfc-editor.org/rfc/rfc9535) in which the leading `$` is optional, extended by the
key of a value (`~`), a segment of a text (`/2`), attributes, and the message's time.
"""

import re
from dataclasses import dataclass

from pipeline.errors import SensorStreamError

MAX_LENGTH = 1_000  # characters of a path, with its alternatives
MAX_STEPS = 32  # of one alternative, each of which may parse a text as JSON


class PathError(SensorStreamError, ValueError):
    """A path cannot be parsed; the message names the reason and the character."""


@dataclass(frozen=True)
class Key:
    """`a`, `['a b']`: the member of an object."""

    name: str


@dataclass(frozen=True)
class Item:
    """`[0]`, `[-1]`: the item of a list."""

    index: int


@dataclass(frozen=True)
class Every:
    """`[*]`: every item of a list, or every member of an object."""


@dataclass(frozen=True)
class Where:
    """`[?@.k=='v' && @.m=='w']`: items whose members equal these; (keys down to the member, expected value)."""

    conditions: tuple[tuple[tuple[str, ...], str | float | bool], ...]


Step = Key | Item | Every | Where


@dataclass(frozen=True)
class InDocument:
    """A path into the document.

    Attributes:
      steps: from the document down; without any, the document itself.
      takes_key: whether the path stands for the key of the value instead of the value.
      segment: index of a part of the text between slashes; None for the complete text.
    """

    steps: tuple[Step, ...]
    takes_key: bool = False
    segment: int | None = None


@dataclass(frozen=True)
class Attribute:
    """`attribute:NAME`: an attribute of the message, or a segment of it."""

    name: str
    segment: int | None = None


@dataclass(frozen=True)
class MessageTime:
    """`message:time`: the publish time, or the time in `timestamp_attribute`."""

    segment: int | None = None


Source = InDocument | Attribute | MessageTime


@dataclass(frozen=True)
class Path:
    """One path.

    Attributes:
      text: as the user wrote it.
      sources: its alternatives, of which the first that is present counts.
    """

    text: str
    sources: tuple[Source, ...]


_BARE_KEY = re.compile(r"""[^\s.:,|~/=\[\]()'"*?]+""")
_ROOT = re.compile(r"\$(?=[.\[|/ ]|$)")
_ATTRIBUTE = re.compile(r"""[^\s|/~'"]+""")
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
_LITERAL = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\['"\\])*)'|"((?:[^"\\]|\\['"\\])*)\"""")


def parse_path(text: str) -> Path:
    """Return the path that a text stands for.

    Raises:
      PathError: the text is not a path; the message shows the place.
    """
    return Path(text.strip(), _Parser(text).path())


class _Parser:
    """Recursive descent over one text; `_at` is the place of the next character."""

    def __init__(self, text: str):
        self._text = text
        self._at = 0

    def path(self) -> tuple[Source, ...]:
        if len(self._text) > MAX_LENGTH:
            raise PathError(f"longer than {MAX_LENGTH:,} characters")
        if not self._text.isprintable():
            raise PathError("a character that cannot be printed")
        sources = [self._source()]
        while self._take("|"):
            sources.append(self._source())
        if self._at < len(self._text):
            raise self._error("expected a dot, a bracket, |, ~, / or the end")
        return tuple(sources)

    def _source(self) -> Source:
        self._skip_blanks()
        source: Source
        if self._take("attribute:"):
            source = Attribute(self._name(_ATTRIBUTE, "an attribute's name"), self._segment())
        elif self._take("message:"):
            if not self._take("time"):
                raise self._error("expected message:time")
            source = MessageTime()
        else:
            steps = self._steps()
            source = InDocument(steps, bool(steps) and self._take("~"), self._segment())
        self._skip_blanks()
        return source

    def _steps(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        if _ROOT.match(self._text, self._at):
            self._at += 1
        elif not self._peek("["):
            steps.append(self._key())
        while True:
            if len(steps) > MAX_STEPS:
                raise self._error(f"expected at most {MAX_STEPS} steps")
            if self._take("."):
                steps.append(Every() if self._take("*") else self._key())
            elif self._take("["):
                steps.append(self._bracket())
            else:
                return tuple(steps)

    def _key(self) -> Key:
        if self._peek("'") or self._peek('"'):
            raise self._error("expected a quoted key in brackets, ['...']")
        key = Key(self._name(_BARE_KEY, "a key"))
        if self._peek(":"):
            raise self._error("expected a key with a colon in quotes, ['a:b']")
        return key

    def _bracket(self) -> Step:
        self._skip_blanks()
        step: Step
        if self._take("*"):
            step = Every()
        elif self._take("?"):
            step = self._filter()
        elif self._peek("'") or self._peek('"'):
            step = Key(self._quoted())
        else:
            step = Item(int(self._matched(_NUMBER, "a quoted key, a number, * or ?@")))
        self._skip_blanks()
        self._expect("]")
        return step

    def _filter(self) -> Where:
        self._skip_blanks()
        in_parentheses = self._take("(")
        conditions = [self._condition()]
        while self._take("&&"):
            conditions.append(self._condition())
        if in_parentheses:
            self._expect(")")
        return Where(tuple(conditions))

    def _condition(self) -> tuple[tuple[str, ...], str | float | bool]:
        self._skip_blanks()
        self._expect("@")
        keys = []
        while not self._peek("="):
            if self._take("."):
                keys.append(self._key().name)
            elif self._take("["):
                keys.append(self._quoted())
                self._expect("]")
            else:
                self._skip_blanks()
                if not self._peek("="):
                    raise self._error("expected a member and ==, such as @.name=='temperature'")
        self._expect("==")
        self._skip_blanks()
        literal = self._literal()
        self._skip_blanks()
        return tuple(keys), literal

    def _literal(self) -> str | float | bool:
        for word, value in (("true", True), ("false", False)):
            if self._take(word):
                return value
        if self._peek("'") or self._peek('"'):
            return self._quoted()
        return float(self._matched(_LITERAL, "a text in quotes, a number, true or false"))

    def _segment(self) -> int | None:
        return int(self._matched(_NUMBER, "the number of a segment")) if self._take("/") else None

    def _name(self, pattern: re.Pattern[str], expected: str) -> str:
        return self._quoted() if self._peek("'") or self._peek('"') else self._matched(pattern, expected)

    def _quoted(self) -> str:
        quoted = self._matched(_QUOTED, "a text in quotes")
        return re.sub(r"\\(.)", r"\1", quoted[1:-1])

    def _matched(self, pattern: re.Pattern[str], expected: str) -> str:
        found = pattern.match(self._text, self._at)
        if not found:
            raise self._error(f"expected {expected}")
        self._at = found.end()
        return found[0]

    def _peek(self, token: str) -> bool:
        return self._text.startswith(token, self._at)

    def _take(self, token: str) -> bool:
        taken = self._peek(token)
        self._at += len(token) * taken
        return taken

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error(f"expected {token}")

    def _skip_blanks(self) -> None:
        while self._peek(" "):
            self._at += 1

    def _error(self, what: str) -> PathError:
        rest = self._text[self._at : self._at + 20]
        place = f"before {rest!r}" if rest else "at the end"
        return PathError(f"{what} at character {self._at + 1}, {place}")
