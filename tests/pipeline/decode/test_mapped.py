"""Mapped messages, however hostile: one outcome for each value, bounded in number and size; never an exception."""

import base64
import gzip
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import Rejection
from pipeline.decode.mapped import MappedDecoder
from pipeline.decode.mapping import FORMATS, Mapping
from pipeline.decode.paths import parse_path

SETTINGS = settings(max_examples=150, deadline=None)
NOW = 1_795_352_400
ROWS = Mapping(
    timestamp=parse_path("t|m[*].t"), device=parse_path("d"), sensors={"Temp": "m[*].v", "Humi": "m[*].h"}, lenient=True
)
PAIRS = Mapping(
    timestamp=parse_path("t"),
    device=parse_path("d"),
    sensor_name=parse_path("m[*].n"),
    sensor_value=parse_path("m[*].v"),
    sensors={"Temp": "a", "Humi": "b"},
)
FLAT = Mapping(timestamp=parse_path("t"), device=parse_path("d"), sensors={"Temp": "v", "Humi": "h"})


def decode(mapping: Mapping, *payloads: bytes, walk_only: bool = False) -> tuple[list, list[Rejection]]:
    decoder = MappedDecoder(mapping, lambda name, revision: '"string"')
    if walk_only:
        decoder._quick = decoder._plan.shape = None
    rejections: list[Rejection] = []
    attributes = {"googclient_schemaencoding": "BINARY"}
    envelopes = [Envelope(attributes, NOW * 1_000_000)] * len(payloads)
    return list(decoder.decode(payloads, 10**16, rejections, envelopes)), rejections


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


scalars = st.sampled_from([None, True, 1, 2.5, "x", "7 °C", "", NOW, "a", "b", str(NOW), "2026-11-22T13:00:00Z"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("tdmvhn"), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from("tdmvhn"), values, max_size=5).map(lambda found: {"t": NOW, **found})


@SETTINGS
@given(st.sampled_from([ROWS, PAIRS, FLAT]), st.lists(documents | values, min_size=1, max_size=3))
def test_quick_ways_give_what_the_walk_gives(mapping, some):
    payloads = [encoded(document) for document in some]
    quick, quick_rejections = decode(mapping, *payloads)
    walked, rejections = decode(mapping, *payloads, walk_only=True)
    assert quick == walked
    assert [(one.payload, one.errors, str(one.reason)) for one in quick_rejections] == [
        (one.payload, one.errors, str(one.reason)) for one in rejections
    ]


@SETTINGS
@given(st.sampled_from([ROWS, PAIRS, FLAT]), st.lists(documents, min_size=1, max_size=3))
def test_dead_letters_sent_again_count_no_value_twice(mapping, some):
    _, rejections = decode(mapping, encoded(some))
    again, still = decode(mapping, *[one.payload for one in rejections])
    assert again == []
    assert len(still) == len(rejections)


@SETTINGS
@given(st.sampled_from(FORMATS), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_of_any_format_give_readings_or_rejections(form, payload):
    columns = ("t", "v") if form == "csv" else ()
    mapping = Mapping(
        format=form, csv_columns=columns, timestamp=parse_path("t|message:time"), sensors={"Temp": "v|fields.v"}
    )
    _, rejections = decode(mapping, payload)
    assert "UnexpectedError" not in {type(one.reason).__name__ for one in rejections}


HOSTILE = {
    "a list of bad values": encoded({"t": NOW, "m": [{"v": []}] * 200_000}),
    "a list of good and bad values": encoded({"t": NOW, "m": [{"v": 1}] + [{"v": []}] * 200_000}),
    "a list of nothing": encoded({"t": NOW, "m": [0] * 500_000}),
    "long devices": encoded({"t": NOW, "d": "d" * 500_000, "m": [{"v": 1}] * 5_000}),
    "long values": encoded({"t": NOW, "m": [{"v": 1}, {"v": "x" * 500_000}] * 3}),
    "deep lists": b'{"t":%d,"m":' % NOW + b"[" * 900 + b"]" * 900 + b"}",
    "deeper lists": b'{"m":' + b"[" * 500_000,
    "a bomb": gzip.compress(b"[" + b"0," * 10_000_000 + b"0]"),
    "a bomb in base64": base64.b64encode(gzip.compress(b" " * 20_000_000)),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("mapping", [ROWS, PAIRS, FLAT], ids=["rows", "pairs", "flat"])
def test_hostile_message_makes_bounded_dead_letters(mapping, payload):
    _, rejections = decode(mapping, payload)
    assert 1 <= len(rejections) <= 1_001
    assert sum(len(one.payload) for one in rejections) <= 2 * len(payload) + 4_000_000
    assert all(len(str(one.reason)) <= 1_000 for one in rejections)
    assert "UnexpectedError" not in {type(one.reason).__name__ for one in rejections}


def test_value_of_a_list_is_refused_with_its_time_and_device():
    document = {"t": NOW, "d": "x", "m": [{"v": 1, "h": []}, {"v": "warm"}, {"v": "7 °C"}]}
    readings, rejections = decode(ROWS, encoded(document))
    assert [found for _, _, found in readings] == [{"Temp": 1.0}, {"Temp": 7.0}]
    assert [json.loads(one.payload) for one in rejections] == [
        {"Timestamp": NOW, "Device": "x", "Humi": []},
        {"Timestamp": NOW, "Device": "x", "Temp": "warm"},
    ]
    assert all("canonical form" in str(one.reason) for one in rejections)


def test_document_of_which_nothing_is_read_is_kept_as_it_came():
    payload = encoded({"t": NOW, "m": [{"v": "warm"}, {"h": []}]})
    assert decode(ROWS, payload)[0] == []
    [rejection] = decode(ROWS, payload)[1]
    assert (rejection.payload, rejection.errors) == (payload, {"BadValue": 2})


def test_dead_letters_beyond_the_bound_are_counted_by_their_error():
    _, rejections = decode(ROWS, encoded({"t": NOW, "m": [{"v": 1}] + [{"v": []}] * 1_500}))
    total: Counter[str] = Counter()
    for one in rejections:
        total.update(one.errors)
    assert (len(rejections), total) == (1_001, {"BadValue": 1_500})
    assert len(json.loads(rejections[-1].payload)) == 500
