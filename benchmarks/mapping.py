"""Messages of other platforms, decoded by a mapping, beside the same values as the message contract has them."""

import json
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from functools import partial
from typing import Any, NamedTuple

from benchmarks.frame import Goal, cpu_micros, ratios, take_turns
from pipeline.decode.decoder import Decoder
from pipeline.decode.mapped import MappedDecoder
from pipeline.decode.mapping import Mapping
from pipeline.decode.paths import parse_path

_LATEST = 10**16  # microseconds since the epoch: no reading is in the future
_MESSAGES = 1_000  # decoded at once

# An uplink of The Things Stack, as its documentation has it: 540 bytes.
_UPLINK = {
    "end_device_ids": {
        "device_id": "fridge-7",
        "application_ids": {"application_id": "cold-store"},
        "dev_eui": "24E124136B000007",
    },
    "received_at": "2026-11-22T13:00:01.532614873Z",
    "uplink_message": {
        "f_port": 85,
        "frm_payload": "AXVcA2fWAARoZQ==",
        "decoded_payload": {"battery": 92, "temperature": 21.4, "humidity": 50.5},
        "rx_metadata": [{"gateway_ids": {"gateway_id": "gw-1"}, "rssi": -81, "snr": 9.2}],
        "settings": {"data_rate": {"lora": {"spreading_factor": 7}}, "frequency": "868300000"},
        "received_at": "2026-11-22T13:00:01.250331Z",
    },
}
_LIST = {
    "id": "fridge-7",
    "at": "2026-11-22T13:00:01.250331Z",
    "data": [
        {"name": "temperature", "value": 21.4},
        {"name": "humidity", "value": 50.5},
        {"name": "pressure", "value": 1013.2},
    ],
}
_ORIGIN = {"Timestamp": "2026-11-22T13:00:01.250331Z", "Device": "fridge-7"}


class _Case(NamedTuple):
    name: str
    message: MappingOf[str, Any]
    mapping: Mapping
    flat: MappingOf[str, Any]
    at_most: float  # times the flat decode


CASES = (
    _Case(
        "LoRaWAN uplink",
        _UPLINK,
        Mapping(
            timestamp=parse_path("uplink_message.received_at"),
            device=parse_path("end_device_ids.device_id"),
            sensors={
                "Temp": "uplink_message.decoded_payload.temperature",
                "Humi": "uplink_message.decoded_payload.humidity",
            },
        ),
        {**_ORIGIN, "Temp": 21.4, "Humi": 50.5},
        1.5,
    ),
    _Case(
        "list of names and values",
        _LIST,
        Mapping(
            timestamp=parse_path("at"),
            device=parse_path("id"),
            sensor_name=parse_path("data[*].name"),
            sensor_value=parse_path("data[*].value"),
            sensors={"Temp": "temperature", "Humi": "humidity", "AtmP": "pressure"},
        ),
        {**_ORIGIN, "Temp": 21.4, "Humi": 50.5, "AtmP": 1013.2},
        2,
    ),
)


def costs(rounds: int) -> list[dict[str, Any]]:
    """Return a row for each case: microseconds of CPU per message, flat and mapped, and how many times that is."""
    rows = []
    for case in CASES:
        ways = {
            "flat": _decoding(Decoder(tuple(case.mapping.sensors)), case.flat),
            "mapped": _decoding(MappedDecoder(case.mapping), case.message),
        }
        readings = {name: way() for name, way in ways.items()}
        assert readings["flat"] == readings["mapped"], case.name
        turns = {name: partial(cpu_micros, [way], _MESSAGES) for name, way in ways.items()}
        micros = take_turns(turns, rounds, warm_up=1)
        size = len(_encoded(case.message))
        rows.append({"decoded": f"{case.name}, {size} B", **micros, "mapped / flat": ratios(micros, "mapped", "flat")})
    return rows


def goals(rows: Sequence[MappingOf[str, Any]]) -> list[Goal]:
    """Return the goal of each case."""
    pairs = zip(CASES, rows, strict=True)
    return [Goal(f"{case.name}: mapped / flat", row["mapped / flat"], at_most=case.at_most) for case, row in pairs]


def _encoded(message: MappingOf[str, Any]) -> bytes:
    return json.dumps(message, allow_nan=False).encode()


def _decoding(decoder: Decoder | MappedDecoder, message: MappingOf[str, Any]) -> Callable[[], list[Any]]:
    payloads = [_encoded(message)] * _MESSAGES
    return lambda: list(decoder.decode(payloads, _LATEST, []))
