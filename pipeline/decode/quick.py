"""Decodes messages that are one valid reading of a plain mapping, at the cost of little more than parsing.

A mapping is plain if its paths have only keys and no alternatives, or lead to one list of names and values. A message
that does not match the paths raises an exception; it is then decoded by the joint walk, which finds the reason.
"""

from collections.abc import Callable
from typing import Any

from pipeline.decode.errors import BadDevice
from pipeline.decode.plan import Plan
from pipeline.decode.reading import MAX_DEVICE, Reading
from pipeline.decode.shapes import NotPlain, Shape, getter
from pipeline.decode.values import ReadValue

# Takes a timestamp and the latest time that is accepted, and returns the event time.
EventTime = Callable[[Any, int], int]
Quick = Callable[[bytes, int], Reading]


def quick(plan: Plan, event_time: EventTime) -> Quick | None:
    """Return a decoder of messages that are one valid reading, for a plain mapping; None for any other."""
    shape, slots = plan.shape, [plan.timestamp.slot, plan.device.slot]
    if not shape or None in slots or any(slot not in shape.scalars for slot in slots):
        return None
    origin = [shape.scalars[slot] for slot in slots if slot is not None]
    if plan.name and plan.value:
        pair = [plan.name.slot, plan.value.slot]
        if not shape.items or any(slot not in shape.items for slot in pair):
            return None
        get = getter([*shape.guards, shape.list_path, *origin]) if shape.list_path else None
        get_pair = getter([shape.items[slot] for slot in pair])
        return _pairs(shape, get, get_pair, plan, event_time) if get else None
    columns = [(column, read.slot) for column, read in plan.columns]
    if any(slot not in shape.scalars for _, slot in columns):
        return None
    get = getter([*shape.guards, *origin, *(shape.scalars[slot] for _, slot in columns if slot is not None)])
    return _columns(shape, get, [column for column, _ in columns], plan.read_value, event_time)


def _columns(
    shape: Shape, get: Callable[[Any], Any], columns: list[str], read_value: ReadValue, event_time: EventTime
) -> Quick:
    parse = shape.parse

    def decode(payload: bytes, latest: int) -> Reading:
        guard, stamp, device, *found = get(parse(payload))
        if guard is not None:
            raise NotPlain("it may be in canonical form")
        values = {}
        for column, value in zip(columns, found):  # noqa: B905, a keyword takes a tenth of the time
            if type(value) is float:
                values[column] = value
            elif value is not None and (number := read_value(column, value)) is not None:
                values[column] = number
        if not values:
            raise NotPlain("no sensor")
        if type(device) is not str or len(device) > MAX_DEVICE:
            device = _device(device)
        return event_time(stamp, latest), device, values

    return decode


def _pairs(
    shape: Shape, get: Callable[[Any], Any], get_pair: Callable[[Any], Any], plan: Plan, event_time: EventTime
) -> Quick:
    parse, column_of, read_value = shape.parse, plan.column_of, plan.read_value

    def decode(payload: bytes, latest: int) -> Reading:
        guard, items, stamp, device = get(parse(payload))
        if guard is not None:
            raise NotPlain("it may be in canonical form")
        values: dict[str, float] = {}
        for name, value in map(get_pair, items):
            column = column_of.get(name)
            if column is None or value is None:
                continue
            number = value if type(value) is float else read_value(column, value)
            if number is not None:
                if column in values:
                    raise NotPlain("a name is repeated")
                values[column] = number
        if not values:
            raise NotPlain("no sensor")
        if type(device) is not str or len(device) > MAX_DEVICE:
            device = _device(device)
        return event_time(stamp, latest), device, values

    return decode


def _device(device: Any) -> str:
    if device is not None:
        raise BadDevice("not text")
    return ""
