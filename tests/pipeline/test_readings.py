"""The message contract: what becomes a reading, and what each refusal is called."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.readings import BadTimestamp, Decoder, Reading, Refusal, parse_timestamp

NOW = 1_795_352_400.0
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")


def decode(payload: bytes) -> list[Reading | Refusal]:
    return Decoder(SENSORS, max_future_skew=600, clock=lambda: NOW).decode(payload)


def refusal(payload: bytes) -> tuple[str, str]:
    (outcome,) = decode(payload)
    assert isinstance(outcome, Refusal), outcome
    assert outcome.payload == payload
    return outcome.reason.stage, type(outcome.reason).__name__


def body(**fields) -> bytes:
    return json.dumps({"Timestamp": NOW, **fields}).encode()


class TestTimestamps:
    @pytest.mark.parametrize(
        "stamp",
        [
            "2026-11-22T13:00:00Z",
            "2026-11-22t13:00:00z",
            "2026-11-22T18:30:00+05:30",
            "2026-11-22 13:00:00",
            "2026-11-22 13:00:00Z",
            "2026-11-22T13:00:00.0000009Z",
            1_795_352_400,
            1_795_352_400.0,
            1_795_352_400_000,
        ],
    )
    def test_every_accepted_form_of_one_moment(self, stamp):
        assert parse_timestamp(stamp) == 1_795_352_400_000_000

    @pytest.mark.parametrize(
        ("stamp", "micros"),
        [
            ("2026-11-22T13:00:01.250Z", 1_795_352_401_250_000),
            ("2026-11-22 13:00:01.000001", 1_795_352_401_000_001),
            (1_795_352_401.25, 1_795_352_401_250_000),
            (1_795_352_401_250, 1_795_352_401_250_000),
            (1_795_352_401_250.5, 1_795_352_401_250_500),
            ("2000-01-01T00:00:00Z", 946_684_800_000_000),
        ],
    )
    def test_fractions_are_kept_to_the_microsecond(self, stamp, micros):
        assert parse_timestamp(stamp) == micros

    @pytest.mark.parametrize(
        "stamp",
        [
            None,
            True,
            "",
            "noon",
            "2026-11-22",
            "2026-11-22T13:00:00",
            "2026-W47-7T13:00:00Z",
            "20261122T130000Z",
            "2026-11-22T13:00Z",
            "2026-11-22T13:00:00,5Z",
            "2026-02-30T13:00:00Z",
            "2016-12-31T23:59:60Z",
            "2026-11-22T24:00:01Z",
            "2026-11-22T13:00:00+24:00",
            "1999-12-31T23:59:59Z",
            "0001-01-01T00:00:00+14:00",
            "1795352400",
            "\u0662\u0660\u0662\u0666-11-22T13:00:00Z",
            -1,
            0,
            946_684_799,
            [NOW],
            {},
        ],
    )
    def test_anything_else_is_refused(self, stamp):
        with pytest.raises(BadTimestamp):
            parse_timestamp(stamp)


class TestGoodMessages:
    def test_a_reading_of_one_sensor(self):
        assert decode(body(Temp=21.4, Device="d1")) == [Reading(int(NOW * 1e6), "d1", {"Temp": 21.4}, 0)]

    def test_other_keys_are_counted_and_ignored(self):
        assert decode(body(Temp=1, AtmP=2, site="n", unit=None)) == [
            Reading(int(NOW * 1e6), "", {"Temp": 1.0, "AtmP": 2.0}, 2)
        ]

    def test_of_a_duplicate_key_the_last_value_counts(self):
        (reading,) = decode(b'{"Timestamp": "x", "Temp": "x", "Timestamp": 1795352400, "Temp": 2}')
        assert reading.values == {"Temp": 2.0}

    def test_an_array_gives_its_readings_in_order(self):
        packed = b"[" + body(Temp=1) + b"," + body(Temp=2) + b"]"
        assert [reading.values["Temp"] for reading in decode(packed)] == [1.0, 2.0]

    def test_a_timestamp_at_the_edge_of_the_allowed_skew(self):
        assert isinstance(decode(body(Timestamp=NOW + 600, Temp=1))[0], Reading)


class TestBadMessages:
    @pytest.mark.parametrize(
        ("payload", "stage", "error"),
        [
            (b"", "decode", "NotJson"),
            (b"not json", "decode", "NotJson"),
            (b'{"Temp": 1', "decode", "NotJson"),
            (body(Temp=1) + b"{}", "decode", "NotJson"),
            (b'{"Timestamp": 1795352400, "Temp": NaN}', "decode", "NotJson"),
            (b'{"Timestamp": 1795352400, "Temp": Infinity}', "decode", "NotJson"),
            (b'{"Timestamp": 1795352400, "Temp": 1e999}', "validate", "BadValue"),
            (b'{"Timestamp": 1795352400, "Temp": 1, "note": "\xff"}', "decode", "NotJson"),
            (body(Temp=1).decode().encode("utf-16"), "decode", "NotJson"),
            (b"[" * 100_000, "decode", "NotJson"),
            (b"null", "decode", "NotAReading"),
            (b"21.4", "decode", "NotAReading"),
            (b'"Temp"', "decode", "NotAReading"),
            (b"[]", "decode", "NotAReading"),
            (b"{}", "timestamp", "BadTimestamp"),
            (body(Timestamp=1_795_352_400_000_000, Temp=1), "timestamp", "FutureTimestamp"),
            (body(Timestamp=NOW + 600.001, Temp=1), "timestamp", "FutureTimestamp"),
            (body(Timestamp=1e308, Temp=1), "timestamp", "FutureTimestamp"),
            (body(), "validate", "NoKnownSensor"),
            (body(temp=1), "validate", "NoKnownSensor"),
            (body(Temp="21.4"), "validate", "BadValue"),
            (body(Temp=True), "validate", "BadValue"),
            (body(Temp=None), "validate", "BadValue"),
            (body(Temp=[1]), "validate", "BadValue"),
            (body(Temp={}), "validate", "BadValue"),
            (body(Temp=1, AtmP="high"), "validate", "BadValue"),
            (body(Temp=10**400), "validate", "BadValue"),
            (body(Temp=1, Device=7), "validate", "BadDevice"),
            (body(Temp=1, Device=None), "validate", "BadDevice"),
            (body(Temp=1, Device="d" * 1025), "validate", "BadDevice"),
        ],
    )
    def test_each_is_refused_with_its_stage_and_error(self, payload, stage, error):
        assert refusal(payload) == (stage, error)

    def test_bad_items_of_an_array_carry_their_own_json_and_index(self):
        good, bad, worse = decode(b"[" + body(Temp=1) + b', {"Temp":  2}, 7]')
        assert isinstance(good, Reading)
        assert (bad.payload, str(bad.reason)) == (b'{"Temp":  2}', "item 1: Timestamp is missing")
        assert (worse.payload, str(worse.reason)) == (b"7", "item 2: expected a JSON object, got a number")

    def test_a_number_beyond_a_float_spoils_only_its_own_item(self):
        good, bad = decode(b"[" + body(Temp=1) + b', {"Timestamp": 1795352400, "Temp": 1e999}]')
        assert isinstance(good, Reading)
        assert (bad.reason.stage, bad.payload) == ("validate", b'{"Timestamp": 1795352400, "Temp": 1e999}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["Timestamp", "Device", *SENSORS]) | st.text(), inner)
    ),
)


class TestAnyInput:
    def test_a_hundred_thousand_random_byte_strings_are_all_refused(self):
        decoder = Decoder(SENSORS, max_future_skew=600)
        rng = random.Random(42)
        for _ in range(100_000):
            payload = rng.randbytes(rng.randrange(1, 64))
            (outcome,) = decoder.decode(payload)
            assert outcome.payload == payload

    @pytest.mark.parametrize("payload", [b"x" * 10_000_000, b"[" * 10_000_000, b'{"a":' * 2_000_000])
    def test_ten_megabytes_of_nonsense_are_refused(self, payload):
        assert refusal(payload) == ("decode", "NotJson")

    def test_ten_megabytes_of_readings_are_all_read(self):
        one = body(Temp=1)
        outcomes = decode(b"[" + b",".join([one] * (9_999_000 // (len(one) + 1))) + b"]")
        assert len(outcomes) > 200_000
        assert {type(outcome) for outcome in outcomes} == {Reading}

    @pytest.mark.parametrize("field", ["Timestamp", "Device", *SENSORS])
    @pytest.mark.parametrize(
        "value", ["null", "true", "0", "-1", "1e308", "1795352400", '"x"', '""', "[]", "{}", "[[1]]"]
    )
    def test_every_json_type_in_every_field_has_one_outcome(self, field, value):
        fields = {"Timestamp": "1795352400", "Device": '"d"', "Temp": "1", field: value}
        payload = ("{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}").encode()
        (outcome,) = decode(payload)
        number = value in ("0", "-1", "1e308", "1795352400")
        good = {"Timestamp": value == "1795352400", "Device": value in ('"x"', '""')}.get(field, number)
        assert isinstance(outcome, Reading) == good

    @given(st.binary())
    def test_any_bytes_give_a_reading_or_a_refusal(self, payload):
        assert decode(payload)

    @given(json_values)
    def test_any_json_gives_readings_with_finite_values_or_refusals(self, document):
        outcomes = decode(json.dumps(document).encode())
        assert len(outcomes) == (len(document) or 1 if isinstance(document, list) else 1)
        for outcome in outcomes:
            assert isinstance(outcome, Refusal) or all(abs(v) < float("inf") for v in outcome.values.values())
