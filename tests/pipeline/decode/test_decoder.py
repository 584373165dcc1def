"""The message contract: what becomes a reading, and what each refusal is called."""

import base64
import gc
import gzip
import json
import random
import subprocess
import sys
import weakref
from datetime import datetime
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.decode import documents
from pipeline.decode import timestamps as timestamps_module
from pipeline.decode import values as values_module
from pipeline.decode.decoder import Decoder
from pipeline.decode.errors import BadTimestamp, Rejection
from pipeline.decode.reading import Reading
from pipeline.decode.timestamps import parse_timestamp

NOW = 1_795_352_400.0
DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
SENSORS = ("Airtight", "AtmP", "H2OC", "Temp")


def decode(*payloads: bytes) -> tuple[list[Reading], list[Rejection]]:
    """The readings and rejections of messages that may be ten minutes ahead of NOW."""
    rejections: list[Rejection] = []
    return list(Decoder(SENSORS).decode(payloads, (NOW + 600) * 1e6, rejections)), rejections


def refusal(payload: bytes) -> tuple[str, str]:
    readings, (refused,) = decode(payload)
    assert not readings
    assert (refused.payload, refused.message) == (payload, 0)
    return refused.reason.stage, type(refused.reason).__name__


def body(**fields) -> bytes:
    return json.dumps({"Timestamp": NOW, **fields}).encode()


def by_the_grammar(text: str) -> int | None:
    """The microseconds of a text by the rules of RFC 3339, section 5.6, one after the other; None if it breaks one.

    Beyond the RFC: a blank in place of T, then also without an offset, and an offset without its colon. A leap second
    is refused, and so is what is before the year 2000.
    """
    rest = list(text)

    def digits(count: int) -> int:
        assert len(rest) >= count
        taken = [rest.pop(0) for _ in range(count)]
        assert set(taken) <= set("0123456789")
        return int("".join(taken))

    def one_of(characters: str) -> str:
        assert rest
        assert rest[0] in characters
        return rest.pop(0)

    def hour_and_minute(colon: bool) -> int:
        hour = digits(2)
        if colon or rest[:1] == [":"]:
            one_of(":")
        minute = digits(2)
        assert hour <= 23
        assert minute <= 59
        return hour * 60 + minute

    try:
        year, _, month, _, day = digits(4), one_of("-"), digits(2), one_of("-"), digits(2)
        leap_year = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        assert 1 <= month <= 12
        assert 1 <= day <= DAYS_IN_MONTH[month - 1] + (leap_year and month == 2)
        separator = one_of("Tt ")
        minutes, _, second = hour_and_minute(colon=True), one_of(":"), digits(2)
        assert second <= 59
        fraction = ""
        if rest[:1] == ["."]:
            one_of(".")
            fraction = str(digits(1))
            while rest and rest[0] in "0123456789":
                fraction += str(digits(1))
        offset = 0
        if rest or separator != " ":
            sign = one_of("Zz+-")
            offset = {"Z": 0, "z": 0, "+": 1, "-": -1}[sign] and int(f"{sign}1") * hour_and_minute(colon=False)
        assert not rest
        assert year >= 1
    except AssertionError:
        return None
    days = sum(365 + (y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)) for y in range(1970, year))
    days -= sum(365 + (y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)) for y in range(year, 1970))
    days += sum(DAYS_IN_MONTH[: month - 1]) + (leap_year and month > 2) + day - 1
    seconds = days * 86_400 + (minutes - offset) * 60 + second
    micros = seconds * 1_000_000 + int(f"{fraction:0<6}"[:6])
    return micros if seconds >= 946_684_800 else None


def pieces(*usual: str) -> st.SearchStrategy[str]:
    """Mostly what fits a place of a timestamp, else something near it."""
    odd = [
        "",
        "0",
        "00",
        "01",
        "24",
        "29",
        "30",
        "31",
        "32",
        "59",
        "60",
        "61",
        "99",
        "-1",
        "\u0661\u0662",
        "1\n",
        " 1",
        "+1",
    ]
    return st.sampled_from([*usual * (2 * len(odd) // len(usual)), *odd])


stamps = st.tuples(
    pieces("2026", "2000", "2024", "1999", "0000", "9999", "2100", "20260"),
    pieces("-"),
    pieces("01", "02", "11", "12"),
    pieces("-"),
    pieces("01", "28", "29", "30", "31"),
    pieces("T", "t", " "),
    pieces("00", "13", "23"),
    pieces(":"),
    pieces("00", "59"),
    pieces(":"),
    pieces("00", "59"),
    pieces("", ".5", ".25", ".000001", ".9999999", "." + "7" * 60),
    pieces("Z", "z", "", "+01:00", "-00:00", "+23:59", "-0330", "+00:99", "+24:00"),
).map("".join)


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
            1_795_352_400_000_000,
            1_795_352_400_000_000_999,
            1_795_352_400_000_000.75,
            "1795352400",
            "1795352400.0",
            "1795352400000",
            "1795352400000000999",
            "2026-11-22T13:00:00-00:00",
            "2026-11-23T12:59:00+23:59",
            "2026-11-22T14:00:00+0100",
            "2026-11-22T13:00:00." + "0" * 5_000 + "9Z",
        ],
    )
    def test_accepted_forms_of_one_moment_are_equal(self, stamp):
        assert parse_timestamp(stamp) == 1_795_352_400_000_000

    @pytest.mark.parametrize(
        ("stamp", "micros"),
        [
            ("2026-11-22T13:00:01.250Z", 1_795_352_401_250_000),
            ("2026-11-22 13:00:01.000001", 1_795_352_401_000_001),
            (1_795_352_401.25, 1_795_352_401_250_000),
            (1_795_352_401_250, 1_795_352_401_250_000),
            (1_795_352_401_250.5, 1_795_352_401_250_500),
            (1_795_352_401_250_001, 1_795_352_401_250_001),
            (1_795_352_401_250_001_999, 1_795_352_401_250_001),
            ("1795352401.250001", 1_795_352_401_250_001),
            ("1795352401250.5", 1_795_352_401_250_500),
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
            "2026-11-22T24:00:00Z",
            "2026-11-22T13:60:00Z",
            "2026-11-22T13:00:00+24:00",
            "2026-11-22T13:00:00+00:60",
            "2026-11-22T13:00:00+00:99",
            "2026-11-22T13:00:00+0099",
            "2026-11-22T13:00:00+01",
            "2026-11-22T13:00:00+01:00:00",
            "2026-11-22T13:00:00 +01:00",
            "2026-11-22T13:00:00\u22120100",
            "0000-11-22T13:00:00Z",
            "2026-11-22T13:00:00.Z",
            "2026-11-22T13:00:00.\u0665Z",
            "1999-12-31T23:59:59Z",
            "0001-01-01T00:00:00+14:00",
            "1795352400Z",
            "1795352400.",
            "+1795352400",
            "1.7953524e9",
            "17953524_00",
            "0x6B030E50",
            "-1795352400",
            "1" + "0" * 21,
            "9" * 5_000,
            "\u0661\u0667\u0669\u0665\u0663\u0665\u0662\u0664\u0660\u0660",
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

    @given(stamps)
    def test_text_means_what_the_grammar_says_or_is_refused(self, stamp):
        assume(not stamp.replace(".", "", 1).lstrip("-").isdecimal())  # a number
        self.means_what_the_grammar_says(stamp)

    @pytest.mark.parametrize("piece", range(13))
    @given(st.data())
    def test_good_text_with_one_piece_changed_means_what_the_grammar_says(self, piece, data):
        good = ["2026", "-", "11", "-", "22", "T", "13", ":", "00", ":", "00", ".25", "+01:00"]
        good[piece] = data.draw(st.text(max_size=7) | st.text("0123456789:+-Zz. ", max_size=7))
        self.means_what_the_grammar_says("".join(good))

    @pytest.mark.parametrize("minute", [0, 1, 59, 60, 99])
    def test_offset_means_what_the_grammar_says_up_to_23_59(self, minute):
        for sign, hour, colon in product("+-", range(26), (":", "")):
            self.means_what_the_grammar_says(f"2026-11-22T13:00:00{sign}{hour:02}{colon}{minute:02}")

    def means_what_the_grammar_says(self, stamp):
        expected = by_the_grammar(stamp)
        if expected is None:
            with pytest.raises(BadTimestamp):
                parse_timestamp(stamp)
        else:
            assert parse_timestamp(stamp) == expected
        # In a message, where the ends of a text are looked up separately, it means the same.
        found = list(Decoder(SENSORS).decode([json.dumps({"Timestamp": stamp, "Temp": 1}).encode()], 10**18, []))
        assert [event_time for event_time, _, _ in found] == ([] if expected is None else [expected])


class TestNumericTimestamps:
    """Seconds, milliseconds, microseconds or nanoseconds since the epoch, by size."""

    UNITS = ((0, "seconds"), (3, "milliseconds"), (6, "microseconds"), (9, "nanoseconds"))
    YEAR_2000, YEAR_10000 = 946_684_800, 253_402_300_800

    @pytest.mark.parametrize(
        ("exponent", "last_moment"),
        [
            (0, 253_402_300_799_000_000),
            (3, 253_402_300_799_999_000),
            (6, 253_402_300_799_999_999),
            (9, 253_402_300_799_999_999),
        ],
    )
    def test_units_read_their_first_and_last_moment(self, exponent, last_moment):
        first, last = self.YEAR_2000 * 10**exponent, self.YEAR_10000 * 10**exponent - 1
        assert [parse_timestamp(stamp) for stamp in (first, str(first))] == [946_684_800_000_000] * 2
        assert [parse_timestamp(stamp) for stamp in (last, str(last))] == [last_moment] * 2

    @pytest.mark.parametrize("as_type", [int, float, str])
    @pytest.mark.parametrize(("exponent", "unit"), UNITS)
    def test_number_before_the_year_2000_is_refused_with_its_unit(self, exponent, unit, as_type):
        step = 10_000 if exponent == 9 else 1  # a float of this size cannot hold one nanosecond
        with pytest.raises(BadTimestamp, match=f"^Timestamp is before the year 2000, read as epoch {unit} by its size"):
            parse_timestamp(as_type(self.YEAR_2000 * 10**exponent - step))

    @pytest.mark.parametrize("as_type", [int, float, str])
    @pytest.mark.parametrize(("exponent", "unit"), UNITS[1:])
    def test_first_number_beyond_a_unit_is_of_the_next(self, exponent, unit, as_type):
        # The year 10000 in one unit is January 1978 in the next.
        with pytest.raises(BadTimestamp, match=f"before the year 2000, read as epoch {unit} by its size"):
            parse_timestamp(as_type(self.YEAR_10000 * 10 ** (exponent - 3)))

    @pytest.mark.parametrize(("exponent", "unit"), UNITS)
    def test_number_in_the_future_is_refused_with_its_unit(self, exponent, unit):
        for stamp in (2 * int(NOW) * 10**exponent, str(2 * int(NOW) * 10**exponent)):
            _, (refused,) = decode(body(Timestamp=stamp, Temp=1))
            assert str(refused.reason) == (
                f"Timestamp is further in the future than max_future_skew allows, read as epoch {unit} by its size"
            )

    def test_text_out_of_range_names_no_unit(self):
        _, rejections = decode(
            body(Timestamp="1999-12-31T23:59:59Z", Temp=1), body(Timestamp="2100-01-01 00:00:00", Temp=1)
        )
        assert [str(one.reason) for one in rejections] == [
            "Timestamp is before the year 2000",
            "Timestamp is further in the future than max_future_skew allows",
        ]

    @given(
        st.integers(946_684_800_000_000, 253_402_300_799_999_999),
        st.sampled_from([(1_000_000, 1), (1_000, 1), (1, 1), (1, 1_000)]),
    )
    def test_any_moment_is_the_same_in_every_unit(self, micros, unit):
        divisor, factor = unit
        assert parse_timestamp(micros * factor // divisor) == micros // divisor * divisor


class TestGoodMessages:
    def test_reading_of_one_sensor(self):
        assert decode(body(Temp=21.4, Device="d1")) == ([(int(NOW * 1e6), "d1", {"Temp": 21.4})], [])

    def test_other_keys_are_counted_and_ignored(self):
        decoder = Decoder(SENSORS)
        payloads = [body(Temp=1, AtmP=2, site="n", unit=None), body(site="n"), body(Temp=3, Device="d", unit="C")]
        readings = list(decoder.decode(payloads, NOW * 1e6, refused := []))
        assert readings == [(NOW * 1e6, "", {"Temp": 1.0, "AtmP": 2.0}), (NOW * 1e6, "d", {"Temp": 3.0})]
        assert len(refused) == 1
        # Those of the second message are not counted: it is no reading.
        assert (decoder.readings, decoder.ignored_keys) == (2, 3)

    def test_whole_numbers_become_floats(self):
        (((_, _, values),), _) = decode(body(Temp=21, AtmP=1013.5))
        assert [(name, type(value)) for name, value in values.items()] == [("Temp", float), ("AtmP", float)]

    def test_of_a_duplicate_key_the_last_value_counts(self):
        ((reading,), _) = decode(b'{"Timestamp": "x", "Temp": "x", "Timestamp": 1795352400, "Temp": 2}')
        assert reading == (NOW * 1e6, "", {"Temp": 2.0})

    def test_array_gives_its_readings_in_order(self):
        packed = b"[" + body(Temp=1) + b"," + body(Temp=2) + b"]"
        assert [values["Temp"] for _, _, values in decode(packed, body(Temp=3))[0]] == [1.0, 2.0, 3.0]

    def test_timestamp_at_the_edge_of_the_allowed_skew(self):
        assert decode(body(Timestamp=NOW + 600, Temp=1))[1] == []


class TestStampsOfTheSameSecond:
    """The seconds of a text and what follows them are remembered apart; together they must mean the same as before."""

    STAMPS = (
        "2026-11-22T13:00:00Z",
        "2026-11-22T13:00:00.250Z",
        "2026-11-22T13:00:00.250001Z",
        "2026-11-22t13:00:00.250z",
        "2026-11-22T13:00:00.250+01:00",
        "2026-11-22T13:00:00-05:30",
        "2026-11-22 13:00:00.250",
        "2026-11-22 13:00:00",
        "2026-11-22T13:00:00",
        "2026-11-22T13:00:00.250",
        "2026-11-22T13:00:60Z",
        "2026-11-22T13:00:00.Z",
        "2000-01-01T00:00:00Z",
        "2000-01-01T00:00:00+00:01",
        "1999-12-31T23:59:59-00:01",
        "2026-11-22T13:00:001Z",
    )

    @pytest.mark.parametrize("stamps", [STAMPS, STAMPS[::-1]], ids=["forwards", "backwards"])
    def test_stamps_mean_the_same_together_and_alone(self, stamps):
        decoder = Decoder(SENSORS)
        for stamp in [*stamps, *stamps]:
            try:
                expected = [(parse_timestamp(stamp), "", {"Temp": 1.0})]
            except BadTimestamp:
                expected = []
            refused = []
            found = list(decoder.decode([json.dumps({"Timestamp": stamp, "Temp": 1}).encode()], NOW * 1e7, refused))
            assert (stamp, found) == (stamp, expected)
            assert len(refused) == 1 - len(expected)

    def test_are_not_parsed_again_for_each_reading(self, monkeypatch):
        stamps = [f"2026-11-22T13:00:{second}.{fraction}Z" for second in range(10, 30) for fraction in range(10)]
        payloads = [body(Timestamp=stamp, Temp=1) for stamp in stamps]
        parsed = []
        monkeypatch.setattr(
            timestamps_module, "parse_timestamp", lambda text: parsed.append(text) or parse_timestamp(text)
        )
        found = [event_time for event_time, _, _ in Decoder(SENSORS).decode(payloads, NOW * 1e7, [])]
        assert found == [parse_timestamp(stamp) for stamp in stamps]
        # The 20 seconds, and the 10 fractions with what they are less.
        assert len(parsed) <= 20 + 2 * 10

    @given(
        st.datetimes(datetime(1999, 12, 30), datetime(2200, 1, 1)),
        st.sampled_from(["Z", "z", "", "+05:30", "-00:01", "+24:00", "-23:59", "x"]),
        st.sampled_from(["T", " ", "t"]),
    )
    def test_any_moment_in_any_zone(self, moment, zone, separator):
        self.test_stamps_mean_the_same_together_and_alone([moment.isoformat(separator) + zone, str(moment) + "Z"])

    def test_cache_stays_small(self):
        decoder = Decoder(SENSORS)
        payloads = (body(Timestamp=f"2026-11-22T13:00:00.{n:06d}Z", Temp=1) for n in range(20_000))
        assert sum(1 for _ in decoder.decode(payloads, NOW * 1e7, [])) == 20_000
        assert len(decoder._fractions) <= decoder._fractions.full < 20_000

    def test_long_text_is_not_remembered(self):
        decoder = Decoder(SENSORS)
        payloads = [body(Timestamp=f"2026-11-22T13:00:00.{'0' * 100_000}{n}Z", Temp=1) for n in range(10)]
        assert len(list(decoder.decode(payloads, NOW * 1e7, []))) == 10
        assert sum(map(len, [*decoder._seconds, *decoder._fractions])) < 1_000


class TestBadValues:
    """One bad value is a dead letter of its own, and the reading's other values count."""

    def test_of_a_reading_are_rejected_one_by_one_in_canonical_form(self):
        readings, rejections = decode(body(Device="d", Temp=21.4, AtmP="1013", H2OC=None, Airtight=True, site="n"))
        assert readings == [(NOW * 1e6, "d", {"Temp": 21.4})]
        assert [(type(one.reason).__name__, json.loads(one.payload), one.errors) for one in rejections] == [
            ("BadValue", {"Timestamp": NOW, "Device": "d", "AtmP": "1013"}, {"BadValue": 1}),
            ("BadValue", {"Timestamp": NOW, "Device": "d", "Airtight": True}, {"BadValue": 1}),
        ]
        assert str(rejections[0].reason) == "AtmP is a string, not a number; the payload is its canonical form"

    def test_of_a_reading_without_others_leave_the_message_as_it_was(self):
        assert refusal(body(Temp="21.4", AtmP=[])) == ("validate", "BadValue")

    @pytest.mark.parametrize("fields", [{"Device": None}, {"AtmP": None}, {"Device": None, "AtmP": None}])
    def test_null_is_absent(self, fields):
        assert decode(body(Temp=1, **fields)) == ([(NOW * 1e6, "", {"Temp": 1.0})], [])

    def test_null_of_a_sensor_is_no_ignored_key(self):
        decoder = Decoder(SENSORS)
        assert len(list(decoder.decode([body(Temp=1, AtmP=None, other=None)], NOW * 1e6, []))) == 1
        assert decoder.ignored_keys == 1

    def test_of_an_array_carry_the_index_of_their_item(self):
        _, (bad,) = decode(b"[" + body(Temp=1) + b"," + body(Temp=2, AtmP="x") + b"]")
        assert str(bad.reason).startswith("item 1: AtmP is a string")
        assert json.loads(bad.payload) == {"Timestamp": NOW, "Device": None, "AtmP": "x"}

    def test_long_values_are_cut_so_that_dead_letters_stay_small(self):
        text = "x" * 1_000_000
        _, rejections = decode(body(Temp=1, AtmP=text, H2OC=[text], Airtight={"a": 1}))
        assert [len(one.payload) < 2_000 for one in rejections] == [True] * 3
        assert json.loads(rejections[1].payload)["H2OC"] == []
        assert json.loads(rejections[2].payload)["Airtight"] == {"a": 1}


class TestWrappedMessages:
    """gzip, base64 and a byte order mark are taken off, in whatever order they were put on."""

    WRAPPERS = (gzip.compress, base64.b64encode, base64.urlsafe_b64encode, lambda text: b"\xef\xbb\xbf" + text)

    @pytest.mark.parametrize("wrappers", [*product(WRAPPERS), *product(WRAPPERS, WRAPPERS)])
    def test_are_read(self, wrappers):
        wrapped = b"[" + body(Temp=1, note="?>~") + b"," + body(Temp="x") + b"]"
        for wrap in wrappers:
            wrapped = wrap(wrapped)
        good, (bad,) = decode(wrapped)
        assert good == [(NOW * 1e6, "", {"Temp": 1.0})]
        assert bad.payload == body(Temp="x")

    @pytest.mark.parametrize(
        ("payload", "error"),
        [
            (gzip.compress(b"not json", mtime=0), "NotJson"),
            (gzip.compress(body(Temp=1), mtime=0)[:-1], "BadFormat"),
            (gzip.compress(body(Temp=1), mtime=0)[:-8] + b"00000000", "BadFormat"),
            (gzip.compress(b" " * 10_000_001, mtime=0), "BadFormat"),
            (b"\x1f\x8b", "BadFormat"),
            (base64.b64encode(b"21.4"), "NotJson"),
            (base64.b64encode(b"not json"), "NotJson"),
            (b"\xef\xbb\xbf", "NotJson"),
            (b"\xef\xbb\xbf" * 10, "BadFormat"),
        ],
    )
    def test_messages_without_a_reading_are_kept_unchanged(self, payload, error):
        assert refusal(payload) == ("decode", error)

    def test_members_of_gzip_are_one_text(self):
        text = body(Temp=1)
        assert decode(gzip.compress(text[:9]) + gzip.compress(text[9:])) == ([(NOW * 1e6, "", {"Temp": 1.0})], [])

    def test_bomb_of_many_members_is_refused(self):
        assert refusal(gzip.compress(b" " * 9_000_000) * 9) == ("decode", "BadFormat")


class TestLinesOfJson:
    def test_lines_end_as_they_would_alone(self):
        lines = [body(Temp=1), b"", b"[" + body(Temp=2) + b", 7]", b"not json", body(Temp=3, AtmP="x"), body()]
        good, rejections = decode(b"\r\n".join(lines))
        assert [values["Temp"] for _, _, values in good] == [1.0, 2.0, 3.0]
        assert [(type(one.reason).__name__, one.payload) for one in rejections if one.payload in lines] == [
            ("NotJson", b"not json"),
            ("NoKnownSensor", body()),
        ]
        assert rejections[0].payload == b"7"
        assert json.loads(rejections[2].payload) == {"Timestamp": NOW, "Device": None, "AtmP": "x"}

    def test_after_a_bad_first_line_count(self):
        good, (bad,) = decode(b"{broken\n" + body(Temp=1))
        assert (len(good), bad.payload) == (1, b"{broken")


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
            (b'{"Timestamp": 1795352400, "Temp": -1e999}', "validate", "BadValue"),
            (b'{"Timestamp": 1795352400, "Temp": 1, "note": "\xff"}', "decode", "NotJson"),
            (body(Temp=1).decode().encode("utf-16"), "decode", "NotJson"),
            (b"[" * 100_000, "decode", "NotJson"),
            (b"null", "decode", "NotAReading"),
            (b"21.4", "decode", "NotAReading"),
            (b'"Temp"', "decode", "NotAReading"),
            (b"[]", "decode", "NotAReading"),
            (b"{}", "timestamp", "BadTimestamp"),
            (body(Timestamp=1_795_353_000_000_001, Temp=1), "timestamp", "FutureTimestamp"),
            (body(Timestamp=NOW + 600.001, Temp=1), "timestamp", "FutureTimestamp"),
            (body(Timestamp=1e308, Temp=1), "timestamp", "FutureTimestamp"),
            (body(), "validate", "NoKnownSensor"),
            (body(temp=1), "validate", "NoKnownSensor"),
            (body(Temp="21.4"), "validate", "BadValue"),
            (body(Temp=True), "validate", "BadValue"),
            (body(Temp=None), "validate", "NoKnownSensor"),
            (body(Temp=[1]), "validate", "BadValue"),
            (body(Temp={}), "validate", "BadValue"),
            (body(Temp=[], AtmP="high", H2OC=None), "validate", "BadValue"),
            (body(Temp=10**400), "validate", "BadValue"),
            (body(Temp=1, Device=7), "validate", "BadDevice"),
            (body(Temp=1, Device="d" * 1025), "validate", "BadDevice"),
        ],
    )
    def test_message_is_refused_with_its_stage_and_error(self, payload, stage, error):
        assert refusal(payload) == (stage, error)

    def test_bad_items_of_an_array_carry_their_own_json_and_index(self):
        good, (bad, worse) = decode(b"[" + body(Temp=1) + b', {"Temp":  2}, 7]')
        assert good == [(NOW * 1e6, "", {"Temp": 1.0})]
        assert (bad.payload, str(bad.reason)) == (b'{"Temp":  2}', "item 1: Timestamp is missing")
        assert (worse.payload, str(worse.reason)) == (b"7", "item 2: expected a JSON object, got a number")

    def test_rejection_names_its_message(self):
        _, rejections = decode(body(Temp=1), b"x", body(Temp=1), b"[1, 2]")
        assert [(refusal.message, refusal.payload) for refusal in rejections] == [(1, b"x"), (3, b"1"), (3, b"2")]

    def test_array_of_bad_items_is_split_once(self, monkeypatch):
        taken_apart = []
        raw_items = documents.raw_items
        monkeypatch.setattr(documents, "raw_items", lambda text: taken_apart.append(text) or raw_items(text))
        payload = b"[" + b",".join(b'{"Temp": %d}' % n for n in range(1000)) + b"]"
        _, rejections = decode(payload)
        assert [refusal.payload for refusal in rejections] == [b'{"Temp": %d}' % n for n in range(1000)]
        assert taken_apart == [payload]

    def test_number_beyond_a_float_spoils_only_its_own_item(self):
        good, (bad,) = decode(b"[" + body(Temp=1) + b', {"Timestamp": 1795352400, "Temp": 1e999}]')
        assert good == [(NOW * 1e6, "", {"Temp": 1.0})]
        assert (bad.reason.stage, bad.payload) == ("validate", b'{"Timestamp": 1795352400, "Temp": 1e999}')

    @pytest.mark.parametrize(
        "bad", [b"{", b"[]", body(Temp=True), body(), b'{"Temp": 1}', b"[" + body(Temp=1) + b", 7]", body(Temp=10**400)]
    )
    def test_rejection_does_not_keep_its_batch_in_memory(self, bad):
        class Batch(list):
            """A list that a weak reference can be had of."""

        batch, rejections = Batch([body(Temp=1), bad]), []
        kept = weakref.ref(batch)
        gc.disable()
        try:
            list(Decoder(SENSORS).decode(batch, NOW * 1e6, rejections))
            del batch
            assert kept() is None
        finally:
            gc.enable()
        assert len(rejections) == 1


class TestADefectOfTheDecoder:
    """An unexpected exception becomes a dead letter too; raised, it would come back with every redelivery."""

    def test_spoils_only_the_item_it_arises_in(self, monkeypatch):
        monkeypatch.setattr(values_module, "BadValue", None)  # so that refusing a value fails
        good, (bad, alone) = decode(b"[" + body(Temp=1) + b"," + body(Temp="x") + b"]", body(Temp="y"), body(Temp=2))
        assert [values for _, _, values in good] == [{"Temp": 1.0}, {"Temp": 2.0}]
        assert (bad.message, bad.payload) == (0, body(Temp="x"))
        assert (alone.message, alone.payload) == (1, body(Temp="y"))
        assert (alone.reason.stage, type(alone.reason).__name__) == ("decode", "UnexpectedError")
        assert str(bad.reason) == "item 1: TypeError: 'NoneType' object is not callable"

    def test_in_the_json_parser_spoils_only_the_message(self):
        decoder = Decoder(SENSORS)
        parse = decoder._parse_json
        decoder._parse_json = lambda payload: parse(payload) if b"Temp" in payload else 1 / 0
        good = list(decoder.decode([b"[1]", body(Temp=1)], NOW * 1e6, refused := []))
        assert good == [(NOW * 1e6, "", {"Temp": 1.0})]
        assert [(one.payload, str(one.reason)) for one in refused] == [(b"[1]", "ZeroDivisionError: division by zero")]


# JSON as text, because a dictionary has no key twice, and `json` writes no number that a float cannot hold.
scalars = st.sampled_from(
    [b"null", b"true", b"false", b"0", b"-1", b"1795352400", b"1795352400123", b"21.5", b"-0.0", b"1e308", b"1e-400"]
) | st.sampled_from(
    [
        b'""',
        b'"x"',
        b'"\\u0000"',
        b'"\\ud83d\\ude00"',
        b'"2026-11-22T13:00:00.250Z"',
        b'"2026-11-22 13:00:00"',
        b"1e400",
    ]
    + [digit + b"0" * zeros for digit in (b"1", b"-1") for zeros in (30, 400, 5_000)]
)
keys = st.sampled_from([b'"Timestamp"', b'"Device"', *(f'"{name}"'.encode() for name in SENSORS), b'"other"', b'""'])


def objects(values):
    pairs = st.lists(st.tuples(keys, values), max_size=6)
    stamped = pairs.map(lambda fields: [(b'"Timestamp"', b"1795352400"), *fields])
    return (pairs | stamped).map(lambda fields: b"{" + b", ".join(key + b": " + value for key, value in fields) + b"}")


def arrays(values):
    return st.lists(values, max_size=5).map(lambda items: b"[" + b",".join(items) + b"]")


json_texts = st.recursive(scalars, lambda inner: arrays(inner) | objects(inner), max_leaves=8)
no_json_texts = st.sampled_from(
    [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00x"', b'"\\q"', b'"\n', b"", b"NaN", b"01", b"1 2", b"{1: 2}"]
) | st.sampled_from([b"[" * 3_000 + b"]" * 3_000, b'{"a":' * 3_000 + b"1" + b"}" * 3_000, b"[" * 3_000])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["Timestamp", "Device", *SENSORS]) | st.text(), inner)
    ),
)


def test_decoder_imports_no_beam():
    # The live page reads messages with it, in an image without Beam.
    code = "import sys, pipeline.decode.decoder; print({name.split('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "'msgspec'" in imported
    assert "'apache_beam'" not in imported


class TestAnyInput:
    def test_hundred_thousand_random_byte_strings_are_all_refused(self):
        rng = random.Random(42)
        payloads = [rng.randbytes(rng.randrange(1, 64)) for _ in range(100_000)]
        readings, rejections = decode(*payloads)
        assert [refusal.payload for refusal in rejections] == payloads
        assert not readings

    @pytest.mark.parametrize("payload", [b"x" * 10_000_000, b"[" * 10_000_000, b'{"a":' * 2_000_000])
    def test_ten_megabytes_of_nonsense_are_refused(self, payload):
        assert refusal(payload) == ("decode", "NotJson")

    def test_ten_megabytes_of_readings_are_all_read(self):
        one = body(Temp=1)
        readings, rejections = decode(b"[" + b",".join([one] * (9_999_000 // (len(one) + 1))) + b"]")
        assert len(readings) > 200_000
        assert not rejections

    @pytest.mark.parametrize("field", ["Timestamp", "Device", *SENSORS])
    @pytest.mark.parametrize(
        "value", ["null", "true", "0", "-1", "1e308", "1795352400", '"x"', '""', "[]", "{}", "[[1]]"]
    )
    def test_json_types_in_all_fields_have_one_outcome(self, field, value):
        fields = {"Timestamp": "1795352400", "Device": '"d"', "Temp": "1", field: value}
        payload = ("{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}").encode()
        readings, rejections = decode(payload)
        if field in ("Timestamp", "Device"):
            good = value in {"Timestamp": ("1795352400",), "Device": ('"x"', '""', "null")}[field]
            assert (len(readings), len(rejections)) == (good, not good)
            return
        good = value in ("0", "-1", "1e308", "1795352400")
        expected = {"Temp": 1.0} if field != "Temp" else {}
        assert [values for _, _, values in readings] == (
            [expected | ({field: float(value)} if good else {})] if expected or good else []
        )
        assert len(rejections) == (not good and (value != "null" or not expected))

    @given(st.binary())
    def test_any_bytes_give_a_reading_or_a_refusal(self, payload):
        assert any(decode(payload))

    @given(json_values)
    def test_any_json_gives_readings_with_finite_values_or_refusals(self, document):
        readings, rejections = decode(json.dumps(document).encode())
        whole = [one for one in rejections if "canonical" not in str(one.reason)]
        assert len(readings) + len(whole) == (len(document) or 1 if isinstance(document, list) else 1)
        for _, _, values in readings:
            assert values
            assert all(abs(value) < float("inf") for value in values.values())

    @given(st.lists(objects(json_texts) | json_texts, min_size=1, max_size=5))
    def test_item_of_an_array_ends_as_it_would_alone(self, items):
        alone = [decode(b"[" + item + b"]") for item in items]
        readings, rejections = decode(b"[" + b" , ".join(items) + b"]")
        assert all(len(read) <= 1 <= len(read) + len(refused) for read, refused in alone)
        assert all(read or len(refused) == 1 for read, refused in alone)
        assert readings == [reading for read, _ in alone for reading in read]
        assert [(type(one.reason), one.payload) for one in rejections] == [
            (type(one.reason), one.payload if read else item)
            for item, (read, refused) in zip(items, alone, strict=True)
            for one in refused
        ]
        assert {type(one.reason).__name__ for one in rejections} <= {
            "BadDevice",
            "BadTimestamp",
            "BadValue",
            "FutureTimestamp",
            "NoKnownSensor",
            "NotAReading",
        }

    @given(st.lists(objects(json_texts | no_json_texts) | json_texts | no_json_texts, min_size=1, max_size=5))
    def test_invalid_json_spoils_its_message_or_only_its_item(self, items):
        payload = b"[" + b",".join(items) + b"]"
        readings, rejections = decode(body(Temp=1), payload, body(Temp=2))
        assert (readings.pop(0)[2], readings.pop()[2]) == ({"Temp": 1.0}, {"Temp": 2.0})
        assert all(one.message == 1 and type(one.reason).__name__ != "UnexpectedError" for one in rejections)
        whole = [one.payload for one in rejections if "canonical" not in str(one.reason)]
        if whole != [payload]:
            assert len(readings) + len(whole) == len(items)
            left = iter(items)
            assert all(item in left for item in whole)

    @given(objects(json_texts | no_json_texts))
    def test_object_ends_as_one_reading_or_one_refusal_with_its_own_bytes(self, payload):
        readings, rejections = decode(payload)
        assert len(readings) <= 1
        if not readings:
            assert [(one.payload, one.message) for one in rejections] == [(payload, 0)]

    @given(st.lists(objects(json_texts), min_size=1, max_size=4))
    def test_dead_letters_sent_again_count_no_value_twice(self, items):
        payload = b"[" + b",".join(items) + b"]"
        _, rejections = decode(payload)
        again, still = decode(*[one.payload for one in rejections])
        assert not again
        assert [type(one.reason) for one in still] == [type(one.reason) for one in rejections]
