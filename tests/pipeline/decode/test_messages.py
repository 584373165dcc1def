"""Messages as platforms publish them, read with the parameters that docs/messages.jsonl gives for them."""

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import Rejection
from pipeline.decode.mapped import MappedDecoder
from pipeline.launch import options

RECIPES = [json.loads(line) for line in (Path(__file__).parents[3] / "docs/messages.jsonl").read_text().splitlines()]
READABLE = [recipe for recipe in RECIPES if "parameters" in recipe]


def micros(rfc3339: str) -> int:
    return round(datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp() * 1_000_000)


def payload(message: dict[str, Any]) -> bytes:
    return base64.b64decode(message["data"]) if message.get("encoding") else message["data"].encode()


def decode(recipe: dict[str, Any], *payloads: bytes) -> tuple[list, list[Rejection], MappedDecoder]:
    """What the mapping of a recipe makes of messages with the attributes of its own."""
    flags = [f"--{name}={value}" for name, value in recipe["parameters"].items()]
    job, _ = options.parse(["--input_topic=projects/test-project/topics/t-1", *flags])
    message = recipe["message"]
    decoder = MappedDecoder(job.mapping, lambda name, revision: json.dumps(recipe["schema"]))
    envelope = Envelope(message["attributes"], micros(message["publish_time"]))
    rejections: list[Rejection] = []
    readings = list(decoder.decode(payloads, 10**16, rejections, [envelope] * len(payloads)))
    return readings, rejections, decoder


@pytest.mark.parametrize("recipe", READABLE, ids=lambda recipe: recipe["platform"])
def test_message_gives_the_readings_of_its_recipe(recipe):
    readings, rejections, _ = decode(recipe, payload(recipe["message"]))
    assert rejections == []
    assert readings == [(micros(one["timestamp"]), one["device"] or "", one["values"]) for one in recipe["readings"]]


def test_recipes_cover_all_messages_but_protocol_buffers_registries_and_device_bytes():
    assert (len(RECIPES), len(READABLE)) == (36, 31)
    assert all(recipe["unreadable"] for recipe in RECIPES if recipe not in READABLE)


@pytest.mark.parametrize("recipe", READABLE, ids=lambda recipe: recipe["platform"])
def test_dead_letters_in_canonical_form_are_read_by_every_recipe(recipe):
    columns = [part.partition("=")[0] for part in recipe["parameters"]["sensors"].split(",")]
    letter = {"Timestamp": 1_795_352_400, "Device": "d", columns[0]: 5}
    for sent in (letter, [letter]):
        readings, rejections, _ = decode(recipe, json.dumps(sent).encode())
        assert (readings, rejections) == ([(1_795_352_400_000_000, "d", {columns[0]: 5.0})], [])
