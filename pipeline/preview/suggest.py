"""Parameters from messages alone: time by value, device by name, sensors by the numbers that are there."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.decode.avro import ATTRIBUTES as AVRO_ATTRIBUTES
from pipeline.decode.avro import FetchSchema
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import BadTimestamp, BadValue
from pipeline.decode.mapping import TEXT_FORMATS, Mapping
from pipeline.decode.reading import DEVICE, TIMESTAMP
from pipeline.decode.timestamps import LocalTimes
from pipeline.decode.values import lenient
from pipeline.preview.found import Found, documents, find
from pipeline.preview.messages import Message

_MAX_COLUMNS = 20
_MAX_NAME = 100  # characters of a column's
_AHEAD = 366 * 24 * 3600 * 1_000_000  # microseconds by which a time may be ahead of the clock

# Last keys of paths in lower case without signs, the likeliest first.
_TIMES = (
    *("timestamp", "time", "ts", "datetime", "date", "t", "timeunixnano", "creationtime", "createdat", "dateutc"),
    *("lastupdated", "enqueuedtimeutc", "eventtime", "observedat", "receivedat", "publishtime"),
)
_DEVICES = (
    *(
        "device",
        "deviceid",
        "connectiondeviceid",
        "deveui",
        "devicename",
        "clientid",
        "sensorid",
        "nodeid",
        "stationid",
    ),
    *("passkey", "hostname", "host", "mac", "serial", "source", "src"),
)
_NAMES = ("n", "name", "key", "k", "sensor", "metric", "valuetype", "entityid", "type", "parameter", "channel")
_VALUES = ("v", "value", "state", "asdouble", "asint", "reading", "val")
# Objects that hold sensors and nothing else, where there is one.
_HOLDERS = ("decodedpayload", "object", "fields", "values", "payload", "body", "readings", "measurements", "data")
_NO_SENSOR = re.compile(
    "id$|idx$|rssi|snr|port$|qos|frequency|spreading|bandwidth|counter|fcnt|latitude|longitude|^lat$|^lo?n$|version"
    "|quality|seq$|retain|time|received|published|^ts$"
)
_SENML = frozenset(["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut"])
_SENML_PATHS = {"timestamp": "t", "device": "device", "sensor_value": "v"}
_RESERVED = frozenset(["timestamp", "device", "revision", "writtenat", ""])

_KEYS = re.compile(r"""\['([^']*)'\]|\["([^"]*)"\]|([^\s.:\[\]$'"*]+)(?=[.\[]|$)""")

_parse_time = LocalTimes(ZoneInfo("UTC")).parse


def suggest(messages: Sequence[Message], fetch_schema: FetchSchema) -> dict[str, str]:
    """Return the likeliest parameters for messages, by name; none if there is no number in them."""
    for parameters in _formats(messages):
        form = parameters.get("format", "json")
        columns = tuple(parameters.get("csv_columns", "").split(","))
        mapping = Mapping(sensors={}, format=form, csv_columns=columns if form == "csv" else ())
        read = [
            document
            for message in messages
            for document in documents(message.data, Envelope(message.attributes, 0), mapping, fetch_schema)
        ]
        if form == "senml":
            records = [record for pack in read for record in pack]
            name = "n" if any(record["n"] for record in records) else "name"
            is_lenient = any(type(record["v"]) is bool for record in records)
            suggested = _SENML_PATHS | {"sensor_name": name} | _listed({record[name]: None for record in records})
            return parameters | suggested | ({"values": "lenient"} if is_lenient else {})
        structured = [document for document in read if isinstance(document, dict | list)]
        found = find(read if form == "text" else structured)
        if suggested := _paths(found, _attributes(messages), form):
            return parameters | suggested
    return {}


def _formats(messages: Sequence[Message]) -> Iterator[dict[str, str]]:
    """Yield the formats that messages may have, the likeliest first."""
    if any(name in message.attributes for message in messages for name in AVRO_ATTRIBUTES):
        yield {"format": "avro"}
    packs = [pack for one in messages for pack in documents(one.data, Envelope({}, 0), Mapping(sensors={}), None)]
    if packs and all(type(record) is dict and record and record.keys() <= _SENML for record in packs):
        yield {"format": "senml"}
    yield {}
    yield {"format": "influx"}
    yield {"format": "form"}
    first = next((line for one in messages for line in one.data[:10_000].decode(errors="replace").splitlines()), "")
    fields = [field.strip() for field in first.split(",")]
    if len(fields) > 1:
        is_header = all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", field) for field in fields)
        unnamed = ["time" if _is_time(field) else f"column_{number}" for number, field in enumerate(fields, 1)]
        columns = fields if is_header else unnamed
        yield {"format": "csv", "csv_columns": ",".join(dict.fromkeys(columns))}
    yield {"format": "text"}


def _attributes(messages: Sequence[Message]) -> Found:
    found: Found = {}
    for message in messages:
        for name, value in message.attributes.items():
            if re.fullmatch(r"[^\s|/~'\"]+", name):
                found.setdefault(f"attribute:{name}", []).append(value)
    return found


def _paths(found: Found, attributes: Found, form: str) -> dict[str, str]:
    """Return the paths of time, device and sensors; none if there is no number."""
    # Dead letters have these names, which no other path may be of.
    found = {path: values for path, values in found.items() if path not in (TIMESTAMP, DEVICE)} | {
        path: found[path]
        for path, is_one in ((TIMESTAMP, _is_time), (DEVICE, _is_name))
        if path in found and _all(is_one, found[path])
    }
    times = [path for path in found if path != DEVICE and _all(_is_time, found[path])]
    pair = _pair(found, times)
    if pair:
        name, value, names = pair
        sensors = [value.split("|")[0]]
        parameters = {"sensor_name": name, "sensor_value": value} | _listed(dict.fromkeys(names))
    elif topic := _esphome_topic(attributes) if form == "text" else "":
        sensors = ["$"]
        parameters = {"sensor_name": "attribute:topic/2", "sensor_value": "$"} | _listed({topic: None})
    else:
        sensors = _sensors(found, times, form)
        if not sensors:
            return {}
        parameters = {"sensors": ",".join(_columns(sensors))}
    values = [one for path in ([*pair[1].split("|")] if pair else sensors) for one in found[path] if one is not None]
    if any(type(one) is bool or (type(one) is str and form not in TEXT_FORMATS) for one in values):
        parameters["values"] = "lenient"
    beside = [path for path in found if _is_beside(path, sensors[0])]
    stamp = _best([path for path in times if path in beside], _TIMES, sensors[0], others=True)
    stamp = stamp or _best([path for path in attributes if _all(_is_time, attributes[path])], _TIMES, "", others=False)
    taken = {stamp, *sensors, *([pair[0]] if pair else [])}
    names = [path for path in beside if path not in (*taken, TIMESTAMP) and _all(_is_name, found[path])]
    device = _device(names, attributes, sensors[0])
    return {"timestamp": stamp or "message:time"} | ({"device": device} if device else {}) | parameters


def _pair(found: Found, times: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """Return the paths of name and value in lists of such pairs, and the names that are there."""
    values = [path for path in found if _word(path) in _VALUES and path not in times and _any_number(found[path])]
    for name in sorted((path for path in found if _word(path) in _NAMES), key=lambda path: _NAMES.index(_word(path))):
        texts = [text for text in found[name] if type(text) is str and text]
        parent = _parent(name)
        within = (f"{parent}.", f"{parent}[") if parent else ""
        matching = [path for path in values if path.startswith(within) and path != name]
        if texts and matching and all(_is_beside(name, path) for path in matching):
            return name, "|".join(matching), texts
    return None


def _sensors(found: Found, times: Sequence[str], form: str) -> list[str]:
    """Return the paths of numbers that may be of sensors."""
    maybe = [path for path in found if path not in (*times, DEVICE) and not _NO_SENSOR.search(_word(path))]
    numbers = [path for path in maybe if _all(_is_number, found[path])] if form not in TEXT_FORMATS else []
    numbers = numbers or [path for path in maybe if _all(_is_lenient_number, found[path])]
    held = [path for path in numbers if any(_plain(key) in _HOLDERS for key in _keys(path)[:-1])]
    numbers = held or numbers
    # Lists side by side are seldom of the same length.
    most = max((_list_of(path) for path in numbers), key=[_list_of(path) for path in numbers].count, default="")
    return [path for path in numbers if most.startswith(_list_of(path))][:_MAX_COLUMNS]


def _device(paths: Sequence[str], attributes: Found, sensor: str) -> str:
    named = _best(paths, _DEVICES, sensor, others=False) or _best([*attributes], _DEVICES, "", others=False)
    if named:
        return named
    if "attribute:topic" in attributes:
        segments = str(attributes["attribute:topic"][0]).split("/")
        return "attribute:topic/0" if _esphome_topic(attributes) or len(segments) == 1 else "attribute:topic/1"
    ids = [path for path in paths if _word(path).endswith("id") and (_word(path) != "id" or path == "id")]
    return _best(ids, (), sensor, others=True)


def _esphome_topic(attributes: Found) -> str:
    """Return the sensor of a topic such as cellar/sensor/temperature/state; empty text for any other topic."""
    segments = str(attributes.get("attribute:topic", [""])[0]).split("/")
    return segments[2] if len(segments) == 4 and segments[1::2] == ["sensor", "state"] else ""


def _best(paths: Sequence[str], words: Sequence[str], near: str, others: bool) -> str:
    """Return the path whose last key comes first in `words`, and of several the one that is nearest to another path."""
    ranks = {path: words.index(_word(path)) if _word(path) in words else len(words) for path in paths}
    ranked = [path for path in paths if others or ranks[path] < len(words)]
    return min(ranked, key=lambda path: (ranks[path], -_shared(path, near), path.count(".")), default="")


def _listed(names: dict[str, None]) -> dict[str, str]:
    """Return the parameter `sensors` for names in a list."""
    usable = [
        name
        for name in names
        if name and name.isprintable() and not re.search("[,'\"=]", name) and name == name.strip()
    ]
    return {"sensors": ",".join(_columns(usable[:_MAX_COLUMNS], lambda name: re.split(r"[./]", name)))}


def _columns(places: Sequence[str], keys_of: Callable[[str], list[str]] | None = None) -> list[str]:
    """Return COLUMN, or COLUMN=PLACE where they differ, for each place."""
    taken: set[str] = set(_RESERVED)
    columns = {}

    def is_taken(name: str, place: str) -> bool:
        # A name in the document is that of no other column; dead letters could not be read otherwise.
        return name.lower() in taken or (name in places and name != place)

    for place in places:
        keys = (keys_of or _keys)(place) or ["value"]
        if len(keys) > 1 and _plain(keys[-1]) in _VALUES:
            keys = keys[:-1]  # the key before it says of what it is the value
        name = ""
        for key in [*reversed(keys), "value"]:
            name = re.sub(r"[^A-Za-z0-9_]+", "_", f"{key}_{name}" if name else key).strip("_")[:_MAX_NAME]
            name = f"n{name}" if name[:1].isdigit() else name
            if not is_taken(name, place):
                break
        while is_taken(name, place):
            name += "_x"
        taken.add(name.lower())
        columns[place] = name
    return [place if columns[place] == place else f"{columns[place]}={place}" for place in places]


def _keys(path: str) -> list[str]:
    return [next(filter(None, groups), "") for groups in _KEYS.findall(path)]


def _plain(key: str) -> str:
    return re.sub("[^a-z0-9]", "", key.lower())


def _word(path: str) -> str:
    keys = _keys(path.removeprefix("attribute:"))
    return _plain(keys[-1]) if keys else ""


def _parent(path: str) -> str:
    return re.sub(r"\.?(?:[^.\[\]]+|\[[^\]]*\])$", "", path)


def _list_of(path: str) -> str:
    """Return the path of the innermost list that is walked; empty text if none is."""
    return path[: path.rindex("[*]") + 3] if "[*]" in path else ""


def _is_beside(path: str, other: str) -> bool:
    """Return whether a path is walked through no list but those of another."""
    return _list_of(other).startswith(_list_of(path))


def _shared(path: str, other: str) -> int:
    """Return how many steps two paths share."""
    pairs = zip(re.split(r"[.\[]", path), re.split(r"[.\[]", other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _all(is_one: Callable[[Any], bool], values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(map(is_one, present))


def _any_number(values: Sequence[Any]) -> bool:
    return any(map(_is_lenient_number, values))


def _is_number(value: Any) -> bool:
    return type(value) is not str and _is_lenient_number(value)


def _is_lenient_number(value: Any) -> bool:
    try:
        return lenient("", value) is not None
    except BadValue:
        return False


def _is_time(value: Any) -> bool:
    if type(value) not in (str, int, float):
        return False
    try:
        return bool(_parse_time(value) < time.time_ns() // 1000 + _AHEAD)
    except (BadTimestamp, ValueError, OverflowError):
        return False


def _is_name(value: Any) -> bool:
    return (type(value) is str and 0 < len(value) <= 200) or type(value) is int
