"""The joint walk: all paths of a mapping through a document at once, so that lists stay in step.

Paths with a common prefix share its steps. A value outside a list applies to all its items, and lists side by side are
walked in parallel. Paths are compiled once to closures; what a user wrote is only ever compared with keys and values.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pipeline.decode.errors import UnequalLists
from pipeline.decode.json_text import container
from pipeline.decode.paths import Every, InDocument, Item, Key, Step, Where

Row = list[Any]  # what each path found, None where it found nothing

# Found by one visit: a list or object that `[*]` walks, the visit of each item, and those of items that match filters.
_List = tuple[list[Any] | dict[str, Any], "_Visit", list[tuple[Where, "_Visit"]]]
# Takes a value, the key under which it is, the row to fill, and the lists found so far.
_Visit = Callable[[Any, Any, Row, list[_List]], None]


class Node:
    """The steps that paths share up to here.

    Attributes:
      values: slots of a row for the value here.
      keys: slots of a row for the key of that value.
      children: the next nodes, by step.
    """

    def __init__(self) -> None:
        self.values: list[int] = []
        self.keys: list[int] = []
        self.children: dict[Step, Node] = {}

    def add(self, path: InDocument, slot: int) -> None:
        """Add a path, whose value or key fills a slot."""
        node = self
        for step in path.steps:
            node = node.children.setdefault(step, Node())
        (node.keys if path.takes_key else node.values).append(slot)

    def of_kind(self, kind: type[Any]) -> list[tuple[Any, "Node"]]:
        """Return the children whose steps are of one kind."""
        return [(step, node) for step, node in self.children.items() if type(step) is kind]


class Walk:
    """Walks documents along several paths.

    Args:
      paths: one for each slot of a row; None for a slot that the walk does not fill.

    Attributes:
      root: the steps that all paths share.
      one_row: whether each document has one row, because no path has a `[*]`.
    """

    def __init__(self, paths: Sequence[InDocument | None]):
        self.root = Node()
        for slot, path in enumerate(paths):
            if path:
                self.root.add(path, slot)
        self._visit = _compiled(self.root)
        most = max(_lists_side_by_side([self.root]), default=0)
        self.one_row = most == 0
        self._parallel = most > 1

    def rows(self, document: Any, row: Row) -> Iterable[Row]:
        """Return the rows of a document; `row` holds the values known without the document, and is changed.

        Raises:
          UnequalLists: lists side by side are not equally long.
        """
        lists: list[_List] = []
        if document is not None:
            self._visit(document, None, row, lists)
        if not lists:
            return (row,)
        if self._parallel:
            # All or nothing: no row counts if lists further on turn out unequal.
            deque(_rows(row, lists), maxlen=0)
        return _rows(row, lists)


def _rows(row: Row, lists: list[_List]) -> Iterator[Row]:
    lengths = {len(found) for found, _, _ in lists}
    if len(lengths) > 1:
        shown = " and ".join(map(str, sorted(lengths)[:2]))
        raise UnequalLists(f"lists that are walked side by side have {shown} items")
    for items in zip(*(_members(found) for found, _, _ in lists), strict=True):
        item_row = row.copy()
        inner: list[_List] = []
        for (key, value), (_, visit, filters) in zip(items, lists, strict=True):
            if value is not None:
                visit(value, key, item_row, inner)
                for where, visit_match in filters:
                    if matches(where, value):
                        visit_match(value, key, item_row, inner)
        if inner:
            yield from _rows(item_row, inner)
        else:
            yield item_row


def matches(where: Where, value: Any) -> bool:
    """Return whether the members of a value equal those in a filter."""
    for keys, literal in where.conditions:
        member = value
        for key in keys:
            inner = container(member)
            member = inner.get(key) if isinstance(inner, dict) else None
        # In JSON, 1 and true are not equal; in Python, they are.
        if member != literal or isinstance(member, bool) is not isinstance(literal, bool):
            return False
    return True


def _members(found: list[Any] | dict[str, Any]) -> Iterable[tuple[Any, Any]]:
    return found.items() if isinstance(found, dict) else enumerate(found)


def _matching(where: Where, own_key: Any, found: list[Any] | dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield (key, value): the object itself if it matches, otherwise its first member that does, if any."""
    if isinstance(found, dict) and matches(where, found):
        yield own_key, found
        return
    for key, value in _members(found):
        if value is not None and matches(where, value):
            yield key, value
            return


def _compiled(node: Node) -> _Visit:
    """Return a function that visits a value at this node, and all below it up to lists that `[*]` walks."""
    values, own_keys = tuple(node.values), tuple(node.keys)
    if not node.children:
        return _leaf(values, own_keys)
    keys = [(step.name, _compiled(child)) for step, child in node.of_kind(Key)]
    indexes = [(step.index, _compiled(child)) for step, child in node.of_kind(Item)]
    filters = [(step, _compiled(child)) for step, child in node.of_kind(Where)]
    every = next((_compiled(child) for _, child in node.of_kind(Every)), None)

    fill = _leaf(values, own_keys)

    def visit(value: Any, key: Any, row: Row, lists: list[_List]) -> None:
        fill(value, key, row, lists)
        found = value if type(value) is dict else container(value)
        if not found:
            return
        if type(found) is dict:
            for name, visit_member in keys:
                member = found.get(name)
                if member is not None:
                    visit_member(member, name, row, lists)
        else:
            for index, visit_item in indexes:
                item = found[index] if -len(found) <= index < len(found) else None
                if item is not None:
                    visit_item(item, index, row, lists)
        if every:
            lists.append((found, every, filters))
            return
        for where, visit_match in filters:
            for name, member in _matching(where, key, found):
                visit_match(member, name, row, lists)

    return visit


def _leaf(values: tuple[int, ...], keys: tuple[int, ...]) -> _Visit:
    if len(values) == 1 and not keys:
        [slot] = values

        def fill_one(value: Any, key: Any, row: Row, lists: list[_List]) -> None:
            row[slot] = value

        return fill_one

    def fill(value: Any, key: Any, row: Row, lists: list[_List]) -> None:
        for place in values:
            row[place] = value
        for place in keys:
            row[place] = key

    return fill


def _lists_side_by_side(level: list[Node]) -> Iterator[int]:
    """Yield the number of lists that are walked at once, for a level and all levels below."""
    walked: list[Node] = []
    waiting = [*level]
    while waiting:
        node = waiting.pop()
        if Every() in node.children:
            walked.append(node)
        else:
            waiting += [child for _, child in node.of_kind(Where)]
        waiting += [child for kind in (Key, Item) for _, child in node.of_kind(kind)]
    yield len(walked)
    if walked:
        # Filters of a list that `[*]` walks are applied to its items.
        yield from _lists_side_by_side(
            [child for node in walked for kind in (Every, Where) for _, child in node.of_kind(kind)]
        )
