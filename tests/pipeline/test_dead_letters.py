"""The envelope of a dead letter, its id, and its parts."""

import base64
import re
import time

import pytest

from pipeline.dead_letters import dead_letter, derived_id, in_parts, new_id, rfc3339
from pipeline.launch.tables import DEAD_LETTER_COLUMNS
from pipeline.version import VERSION


class TestDeadLetter:
    def test_has_the_columns_of_its_table(self):
        letter = dead_letter(
            "decode",
            "NotJson",
            "not a document",
            b"\x00bad",
            attributes={"b": "2", "a": "1"},
            message_id="m-1",
            letter_id="id-1",
            received_at=1_795_352_400_250_001,
            event_time="2026-11-22T13:00:00.000000Z",
            device="d-1",
        )
        assert letter == {
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
        assert list(letter) == [column.name for column in DEAD_LETTER_COLUMNS]

    def test_is_received_now_and_has_an_id_of_its_own_unless_these_are_given(self):
        before = rfc3339(int(time.time() * 1_000_000))
        one, other = (dead_letter("validate", "BadValue", "m", b"p", device="") for _ in range(2))
        assert before <= one["received_at"] <= other["received_at"] <= rfc3339(int(time.time() * 1_000_000))
        assert one["dead_letter_id"] != other["dead_letter_id"]
        assert [one[name] for name in ("event_time", "attributes", "message_id", "device")] == [None, [], None, None]


class TestIds:
    def test_new_ones_are_128_random_bits_in_hex(self):
        ids = {new_id() for _ in range(1_000)}
        assert len(ids) == 1_000
        assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
        for digit in (0, 31):  # with a bit less, some digits would never be the first
            assert {one[digit] for one in ids} == set("0123456789abcdef")

    def test_derived_ones_are_equal_for_the_same_identity_only(self):
        assert re.fullmatch("[0-9a-f]{32}", derived_id("job", "late", 1))
        assert derived_id("job", "late", 1) == derived_id("job", "late", 1)
        assert len({derived_id("job", "late", 1), derived_id("job", "late", 2), derived_id("joblate", 1)}) == 3


class TestParts:
    PAYLOAD = bytes(range(10))  # 16 characters of base64

    @pytest.mark.parametrize(
        ("most", "lengths"), [(16, [16]), (17, [16]), (15, [12, 4]), (11, [8, 8]), (4, [4, 4, 4, 4])]
    )
    def test_each_decode_by_themselves_and_together_are_the_payload(self, most, lengths):
        letter = dead_letter("decode", "NotJson", "m", self.PAYLOAD)
        parts = in_parts(letter, most)
        assert [len(part["payload"]) for part in parts] == lengths
        assert [(part["part"], part["parts"]) for part in parts] == [
            (number, len(lengths)) for number in range(1, len(lengths) + 1)
        ]
        assert b"".join(base64.b64decode(part["payload"]) for part in parts) == self.PAYLOAD
        of_part = {"payload", "part", "parts"}
        assert all(part[name] == letter[name] for part in parts for name in letter.keys() - of_part)

    def test_of_an_empty_payload_are_one(self):
        letter = dead_letter("decode", "NotJson", "m", b"")
        assert in_parts(letter, 4) == [letter]


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_795_352_400_250_001, "2026-11-22T13:00:00.250001Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_microseconds_become_what_bigquery_reads_as_a_timestamp(micros, text):
    assert rfc3339(micros) == text
