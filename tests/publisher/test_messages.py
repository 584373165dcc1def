import json

from publisher.messages import encode, pack
from publisher.sensors import Reading

NOON_MS = 1_795_352_400_000  # 2026-11-22T13:00:00Z


class TestEncode:
    def test_writes_data_and_attributes_of_the_contract(self):
        message = encode(Reading(7, "device-2", "Temp", 1_795_352_401_250, 21.4), "abc")
        assert message.data == b'{"Timestamp": "2026-11-22T13:00:01.250Z", "Device": "device-2", "Temp": 21.4}'
        assert message.attributes == {
            "timestamp": "2026-11-22T13:00:01.250Z",
            "reading_id": "abc-7",
            "device": "device-2",
        }


class TestPack:
    def test_returns_an_array_with_the_earliest_timestamp_and_the_first_id(self):
        readings = [
            Reading(7, "device-2", "Temp", NOON_MS + 1250, 21.4),
            Reading(8, "device-2", "AtmP", NOON_MS + 1000, 1013.0),
        ]
        parts = [encode(reading, "abc") for reading in readings]
        message = pack(parts)
        assert message.data == (
            b'[{"Timestamp": "2026-11-22T13:00:01.250Z", "Device": "device-2", "Temp": 21.4}, '
            b'{"Timestamp": "2026-11-22T13:00:01.000Z", "Device": "device-2", "AtmP": 1013.0}]'
        )
        assert message.attributes == {
            "timestamp": "2026-11-22T13:00:01.000Z",
            "reading_id": "abc-7",
            "device": "device-2",
        }
        assert (message.readings, message.packed) == (2, tuple(parts))

    def test_leaves_device_out_for_several_devices(self):
        parts = [encode(Reading(n, f"device-{n}", "Temp", NOON_MS, 20.0), "abc") for n in (1, 2)]
        assert pack(parts).attributes == {"timestamp": "2026-11-22T13:00:00.000Z", "reading_id": "abc-1"}
        assert [reading["Device"] for reading in json.loads(pack(parts).data)] == ["device-1", "device-2"]

    def test_returns_a_single_message_unchanged(self):
        message = encode(Reading(7, "device-2", "Temp", NOON_MS, 21.4), "abc")
        assert pack([message]) is message
