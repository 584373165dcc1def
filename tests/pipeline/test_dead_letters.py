"""The columns of a dead letter, its id, and its parts."""

import base64
import re
import time

import pytest

from pipeline.dead_letters import dead_letter, derived_id, in_parts, new_id
from pipeline.launch.tables import DEAD_LETTER_COLUMNS
from pipeline.timestamps import rfc3339
from pipeline.version import VERSION


class TestDeadLetter:
    def test_has_columns_of_its_table(self):
        created = dead_letter(
            "decode",
            "NotJson",
            "not a document",
            b"\x00bad",
            attributes={"b": "2", "a": "1"},
            message_id="m-1",
            dead_letter_id="id-1",
            received_at=1_795_352_400_250_001,
            event_time="2026-11-22T13:00:00.000000Z",
            device="d-1",
        )
        assert created == {
            "dead_letter_id": "id-1",
            "part": 1,
            "parts": 1,
            "event_time": "2026-11-22T13:00:00.000000Z",
            "received_at": "2026-11-22T13:00:00.250001Z",
            "stage": "decode",
            "error": "NotJson",
            "message": "not a document",
            "payload": "AGJhZA==",
            "attributes": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}],
            "message_id": "m-1",
            "device": "d-1",
            "pipeline_version": VERSION,
        }
        assert list(created) == [column.name for column in DEAD_LETTER_COLUMNS]

    def test_has_unique_id_and_current_time_by_default(self):
        before = rfc3339(int(time.time() * 1_000_000))
        first, second = (dead_letter("validate", "BadValue", "m", b"p", device="") for _ in range(2))
        assert before <= first["received_at"] <= second["received_at"] <= rfc3339(int(time.time() * 1_000_000))
        assert first["dead_letter_id"] != second["dead_letter_id"]
        assert [first[name] for name in ("event_time", "attributes", "message_id", "device")] == [None, [], None, None]


class TestId:
    def test_new_id_is_128_random_bits_in_hex(self):
        ids = {new_id() for _ in range(1_000)}
        assert len(ids) == 1_000
        assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
        for place in (0, 31):  # with a bit less, some digits would never come first
            assert {one[place] for one in ids} == set("0123456789abcdef")

    def test_derived_id_is_equal_for_equal_identity_only(self):
        assert re.fullmatch("[0-9a-f]{32}", derived_id("job", "late", 1))
        assert derived_id("job", "late", 1) == derived_id("job", "late", 1)
        assert len({derived_id("job", "late", 1), derived_id("job", "late", 2), derived_id("joblate", 1)}) == 3


class TestInParts:
    PAYLOAD = bytes(range(10))  # 16 characters of base64

    @pytest.mark.parametrize(
        ("size", "lengths"), [(16, [16]), (17, [16]), (15, [12, 4]), (11, [8, 8]), (4, [4, 4, 4, 4])]
    )
    def test_returns_parts_that_decode_alone_and_join_to_the_payload(self, size, lengths):
        whole = dead_letter("decode", "NotJson", "m", self.PAYLOAD)
        parts = in_parts(whole, size)
        assert [len(part["payload"]) for part in parts] == lengths
        assert [(part["part"], part["parts"]) for part in parts] == [
            (number, len(lengths)) for number in range(1, len(lengths) + 1)
        ]
        assert b"".join(base64.b64decode(part["payload"]) for part in parts) == self.PAYLOAD
        of_parts = {"payload", "part", "parts"}
        assert all(part[name] == whole[name] for part in parts for name in whole.keys() - of_parts)

    def test_returns_one_part_when_payload_is_empty(self):
        whole = dead_letter("decode", "NotJson", "m", b"")
        assert in_parts(whole, 4) == [whole]
