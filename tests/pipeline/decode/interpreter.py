"""The mapping language, interpreted as slowly and plainly as it is described; shares no code with the pipeline.

A path is a tuple of steps: ("key", name), ("item", index), ("every",) or ("where", name, text).
"""

from typing import Any

Step = tuple[Any, ...]
Path = tuple[Step, ...]
Stars = dict[Path, int | None]  # which item of each list that `[*]` walks; None if the list is absent


class Unequal(Exception):
    """Lists side by side are not equally long."""


def rows(document: Any, paths: list[Path]) -> list[list[Any]]:
    """What each path finds, in each row."""
    stars = sorted({path[: at + 1] for path in paths for at, step in enumerate(path) if step == ("every",)}, key=len)
    return [[resolve(document, path, stars, chosen) for path in paths] for chosen in choices(document, stars, {})]


def choices(document: Any, stars: list[Path], chosen: Stars) -> list[Stars]:
    """Every choice of an item for each `[*]`, in step."""
    ready = [star for star in stars if star not in chosen and all(need in chosen for need in needs(star, stars))]
    if not ready:
        return [chosen]
    lists = {star: members(resolve(document, star[:-1], stars, chosen)) for star in ready}
    lengths = {len(items) for items in lists.values() if items}
    if len(lengths) > 1:
        raise Unequal
    found: list[Stars] = []
    for number in range(lengths.pop() if lengths else 1):
        of_item = {star: number if items else None for star, items in lists.items()}
        found += choices(document, stars, chosen | of_item)
    return found


def needs(star: Path, stars: list[Path]) -> list[Path]:
    """The lists whose item decides where this list is."""
    prefixes = [star[:at] for at in range(1, len(star))]
    beside = [(*prefix[:-1], ("every",)) for prefix in prefixes if prefix[-1][0] == "where"]
    return [other for other in stars if other in prefixes or other in beside]


def members(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []


def resolve(document: Any, path: Path, stars: list[Path], chosen: Stars) -> Any:
    value = document
    for at, step in enumerate(path):
        star = (*path[:at], ("every",))
        if step[0] == "key":
            value = value.get(step[1]) if isinstance(value, dict) else None
        elif step[0] == "item":
            inside = isinstance(value, list) and -len(value) <= step[1] < len(value)
            value = value[step[1]] if inside else None
        elif step == ("every",):
            number = chosen.get(star)
            value = None if number is None else members(value)[number]
        elif star in stars:
            number = chosen.get(star)
            item = None if number is None else members(value)[number]
            value = item if matches(item, step) else None
        elif matches(value, step):
            pass
        else:
            value = next((item for item in members(value) if matches(item, step)), None)
        if value is None:
            return None
    return value


def matches(value: Any, where: Step) -> bool:
    return isinstance(value, dict) and value.get(where[1]) == where[2]
