"""The joint walk of plain paths, by types: only members that paths name are parsed, which takes half the time.

It supports paths of keys and lists, as most mappings have, and messages that match them. All other messages, such as
one with text where a path expects an object, are left to `Walk`, which gives the same rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from pipeline.decode.paths import Every, Key
from pipeline.decode.walk import Node
from pipeline.errors import SensorStreamError

Rows = Callable[[Any, list[Any]], Iterable[Sequence[Any]]]


class NotPlain(SensorStreamError):
    """The paths of a mapping cannot be expressed as types, or a message needs `Walk`."""


class Shape:
    """Parses JSON to objects that have only the members that paths name.

    Args:
      root: the steps that all paths share.
      guard: a key of the document; a message that has it is left to `Walk`.

    Attributes:
      parse: takes a message, and returns an object, or a list of them.
      scalars: by slot, the attributes down to a value outside lists.
      list_path: the attributes down to the list; None without one.
      items: by slot, the attributes of the list's items, if these are objects without a list.
      guards: the attribute of the guard.

    Raises:
      NotPlain: a path has more than keys and `[*]`, or lists are walked side by side.
    """

    guards = ("guard",)

    def __init__(self, root: Node, guard: str):
        if root.values or root.keys:
            raise NotPlain("a path stands for the document")
        if Key(guard) in root.children:
            raise NotPlain("a path names the guard")
        kind = _struct(root, guard)
        self._rows = _level(root)
        self.parse = msgspec.json.Decoder(kind | list[kind]).decode  # type: ignore[valid-type]
        self.scalars = {slot: path for path, slot in _scalars(root, "")}
        lists = list(_lists(root, ""))
        self.list_path = lists[0][0] if lists else None
        self.items: dict[int | None, str] = {}
        if lists and not list(_lists(lists[0][1], "")):
            self.items = {slot: path for path, slot in _scalars(lists[0][1], "") if path}

    def rows(self, payload: bytes, row: list[Any]) -> Iterator[Sequence[Any]]:
        """Yield the rows of all documents of a message; each is the same `row`, overwritten.

        Raises:
          Exception: the message is left to `Walk`.
        """
        found = self.parse(payload)
        for document in found if type(found) is list else (found,):
            if document.guard is not None:
                raise NotPlain("it may be in canonical form")
            yield from self._rows(document, row)


def _struct(node: Node, guard: str = "") -> Any:
    fields: list[tuple[str, Any, Any]] = [("guard", Any, None)] if guard else []
    names = {"guard": guard} if guard else {}
    if node.values and node.children:
        raise NotPlain("a path continues where another ends")
    for number, (step, child) in enumerate(node.children.items()):
        if not isinstance(step, Key) or child.keys:
            raise NotPlain("a step is not a key")
        name = f"key{number}"
        names[name] = step.name
        kind = _type(child)
        # An absent object is read as one without members.
        default = kind() if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None
        fields.append((name, kind if default is not None or kind is Any else kind | None, default))
    return msgspec.defstruct("Shape", fields, rename=names, frozen=True, gc=False)


def _type(node: Node) -> Any:
    if not node.children:
        return Any
    if Every() not in node.children:
        return _struct(node)
    item = node.children[Every()]
    if len(node.children) > 1 or node.values or item.keys:
        raise NotPlain("a path to a list has more than [*]")
    return list[_type(item)]  # type: ignore[misc]


def _level(node: Node) -> Rows:
    """Return a function that fills the slots of a level, and of the list below it."""
    scalars = list(_scalars(node, ""))
    lists = list(_lists(node, ""))
    if len(lists) > 1:
        raise NotPlain("lists are walked side by side")
    slots = [slot for _, slot in scalars]
    get = getter([path for path, _ in scalars])
    if not lists:

        def fill_row(value: Any, row: list[Any]) -> Iterable[Sequence[Any]]:
            for slot, found in zip(slots, get(value), strict=True):
                row[slot] = found
            return (row,)

        return fill_row
    [(path, item)] = lists
    get_list: Callable[[Any], Any] = attrgetter(path) if path else (lambda value: value)
    rows_of = _level(item)
    inner_slots = [slot for _, slot in _scalars_below(item)]

    def fill_rows(value: Any, row: list[Any]) -> Iterator[Sequence[Any]]:
        for slot, found in zip(slots, get(value), strict=True):
            row[slot] = found
        items = get_list(value)
        if not items:
            for slot in inner_slots:
                row[slot] = None
            yield row
        else:
            for inner in items:
                yield from rows_of(inner, row)

    return fill_rows


def getter(paths: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that gets nested attributes by straight-line code, each part of a path once.

    It is three times as fast as `operator.attrgetter`. `Shape` numbers the attributes in paths, so that the code has
    no text of a user.
    """
    names = {"": "document"}
    lines = ["def get(document):"]
    for path in paths:
        parent, _, _ = path.rpartition(".")
        parts = parent.split(".") if parent else []
        for at in range(len(parts)):
            prefix = ".".join(parts[: at + 1])
            if prefix not in names:
                names[prefix] = f"part{len(names)}"
                lines.append(f"    {names[prefix]} = {names['.'.join(parts[:at])]}.{parts[at]}")
    found = [path.rpartition(".") for path in paths]
    values = [f"{names[parent]}.{attribute}" if attribute else "document" for parent, _, attribute in found]
    lines.append(f"    return ({''.join(f'{value}, ' for value in values)})")
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    get: Callable[[Any], tuple[Any, ...]] = scope["get"]
    return get


def _scalars(node: Node, path: str) -> Iterator[tuple[str, int]]:
    """Yield (attributes down to a value, its slot) up to the next list."""
    for slot in node.values:
        yield path, slot
    for number, (step, child) in enumerate(node.children.items()):
        if isinstance(step, Key):
            yield from _scalars(child, f"{path}.key{number}".lstrip("."))


def _lists(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    for number, (step, child) in enumerate(node.children.items()):
        if isinstance(step, Every):
            yield path, child
        else:
            yield from _lists(child, f"{path}.key{number}".lstrip("."))


def _scalars_below(node: Node) -> Iterator[tuple[str, int]]:
    yield from _scalars(node, "")
    for _, item in _lists(node, ""):
        yield from _scalars_below(item)
