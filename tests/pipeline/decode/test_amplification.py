"""One message, however hostile, makes a bounded number of dead letters, and takes no good reading with it.

Bounds are on counts and bytes, since time and memory depend on the machine.
"""

import json
from collections import Counter
from collections.abc import Iterator

import apache_beam as beam
import pytest

from pipeline.aggregate.activity import DeviceActivity
from pipeline.aggregate.fold import ACTIVITY, _Fold
from pipeline.aggregate.sums import MAX_BUCKETS
from pipeline.dead_letters import DEAD_LETTERS
from pipeline.decode import documents, values
from pipeline.decode.decoder import Decoder
from pipeline.decode.errors import Rejection, TooManyRefused
from pipeline.decode.mapping import Mapping
from pipeline.decode.reading import Reading
from pipeline.decode.rejections import MAX_REASON, MAX_REJECTIONS
from pipeline.side_output import SIDE_OUTPUT
from pipeline.windows.fixed import MAYBE_EXPIRED, FixedIntervals
from tests.pipeline.conftest import NOON, message

SENSORS = ("Temp", "AtmP")
SIZE = 1_000_000
GOOD = message(0, Temp=1)


def filled(item: bytes, size: int = SIZE) -> bytes:
    """An array of this item, of about `size` bytes."""
    return b"[" + b",".join([item] * (size // (len(item) + 1))) + b"]"


def with_good(array: bytes) -> bytes:
    """The array with a good reading before and behind its items."""
    return b"[" + GOOD + b"," + array[1:-1] + b"," + GOOD + b"]"


def decode(*payloads: bytes) -> tuple[list[Reading], list[Rejection]]:
    rejections: list[Rejection] = []
    return list(Decoder(SENSORS).decode(payloads, (NOON + 600) * 1_000_000, rejections)), rejections


ARRAYS = {
    "numbers": (b"0", "NotAReading"),
    "texts": (b'"x"', "NotAReading"),
    "empty arrays": (b"[]", "NotAReading"),
    "nested arrays": (b"[" * 100 + b"]" * 100, "NotAReading"),
    "empty objects": (b"{}", "BadTimestamp"),
    "objects of one key": (b'{"":0}', "BadTimestamp"),
    "objects without a sensor": (b'{"Timestamp":%d}' % NOON, "NoKnownSensor"),
    "bad timestamps": (b'{"Timestamp":"","Temp":0}', "BadTimestamp"),
    "bad values": (b'{"Timestamp":%d,"Temp":""}' % NOON, "BadValue"),
    "bad devices": (b'{"Timestamp":%d,"Device":0,"Temp":0}' % NOON, "BadDevice"),
    "numbers too large": (b'{"Timestamp":%d,"Temp":1e999}' % NOON, "BadValue"),
    "nulls": (b'{"Timestamp":%d,"Temp":null}' % NOON, "NoKnownSensor"),
}


class TestAnArrayOfBadItems:
    @pytest.mark.parametrize(("item", "error"), ARRAYS.values(), ids=ARRAYS)
    def test_makes_at_most_1001_refusals_that_hold_every_item_and_count_it(self, item, error):
        array = filled(item)
        readings, rejections = decode(with_good(array))
        assert readings == [(NOON * 1_000_000, "", {"Temp": 1.0})] * 2
        *single, others = rejections
        assert len(single) == MAX_REJECTIONS == 1_000
        assert {(type(one.reason).__name__, one.payload, one.errors[error]) for one in single} == {(error, item, 1)}
        count = SIZE // (len(item) + 1)
        assert others.errors == {error: count - MAX_REJECTIONS}
        assert others.payload == filled(item, (count - MAX_REJECTIONS) * (len(item) + 1))
        assert (type(others.reason), others.reason.stage) == (TooManyRefused, "decode")
        assert str(others.reason) == (
            f"{count - 1_000} more items were refused: {count - 1_000} {error}; the payload is the array of them"
        )

    def test_of_exactly_the_bound_makes_no_refusal_that_counts(self):
        readings, rejections = decode(with_good(b"[" + b",".join([b"{}"] * 1_000) + b"]"))
        assert (len(readings), Counter(type(one.reason).__name__ for one in rejections)) == (2, {"BadTimestamp": 1_000})

    def test_of_one_more_than_the_bound_has_its_own_json_in_the_refusal_that_counts(self):
        readings, rejections = decode(with_good(b"[" + b",".join([b"{}"] * 1_000) + b', {"Temp":  1} ]'))
        assert (len(readings), len(rejections)) == (2, 1_001)
        assert (rejections[-1].payload, rejections[-1].errors) == (b'[{"Temp":  1}]', {"BadTimestamp": 1})

    def test_of_many_kinds_counts_each_by_its_error(self):
        kinds = [
            b"0",
            b"{}",
            b'{"Timestamp":%d}' % NOON,
            b'{"Timestamp":%d,"Temp":true}' % NOON,
            b'{"Timestamp":%d,"Temp":1e999}' % NOON,
        ]
        _, rejections = decode(b"[" + b",".join(kinds * 1_000) + b"]")
        total = Counter()
        for one in rejections:
            total.update(one.errors)
        assert total == {"NotAReading": 1_000, "BadTimestamp": 1_000, "NoKnownSensor": 1_000, "BadValue": 2_000}
        assert rejections[-1].errors.keys() == total.keys()
        assert str(rejections[-1].reason).startswith("4000 more items were refused: 1600 BadValue, 800 ")

    def test_is_bounded_by_itself_whatever_comes_before_and_after_it(self):
        bad = b"[" + b",".join([b"0"] * 1_500) + b"]"
        readings, rejections = decode(GOOD, bad, b"{", bad, GOOD, b"[0]", bad)
        assert len(readings) == 2
        assert Counter(one.message for one in rejections) == {1: 1_001, 2: 1, 3: 1_001, 5: 1, 6: 1_001}
        assert [one.message for one in rejections] == sorted(one.message for one in rejections)

    def test_is_read_in_full_when_what_its_dead_letters_hold_is_sent_again(self):
        # As after a fix: the same items with a decoder that knows their sensor.
        array = b"[" + b",".join(b'{"Timestamp":%d,"Wind":%d}' % (NOON, n) for n in range(2_500)) + b"]"
        _, rejections = decode(array)
        again = Decoder(("Wind",)).decode([one.payload for one in rejections], NOON * 1_000_000, [])
        assert [values["Wind"] for _, _, values in again] == list(range(2_500))

    def test_of_short_items_has_an_error_raised_for_no_more_than_are_kept_one_by_one(self, monkeypatch):
        looked_at = []
        look_at = Decoder._object
        monkeypatch.setattr(Decoder, "_object", lambda decoder, item: looked_at.append(item) or look_at(decoder, item))
        decode(filled(b"0"))
        assert len(looked_at) == MAX_REJECTIONS

    def test_array_that_cannot_be_split_is_kept_once(self, monkeypatch):
        monkeypatch.setattr(documents, "raw_items", lambda payload: [])
        array = b"[" + b",".join([GOOD, *[b"{}"] * 3_000, GOOD]) + b"]"
        readings, rejections = decode(array)
        assert len(readings) == 2
        assert [(one.payload, one.errors) for one in rejections] == [
            (array, {"BadTimestamp": 1}),
            (b"[]", {"BadTimestamp": 2_999}),
        ]


class TestLongText:
    @pytest.mark.parametrize(
        "payload",
        [
            b'{"Timestamp":"' + b"1" * SIZE + b'","Temp":1}',
            b'{"Timestamp":"2026-02-30T00:00:00.' + b"1" * SIZE + b'Z","Temp":1}',
            b'{"Timestamp":' + b"1" * 4_000 + b',"Temp":1}',
            b'{"Timestamp":%d,"Temp":1,"Device":"' % NOON + b"d" * SIZE + b'"}',
            b'{"Timestamp":%d,"Temp":"' % NOON + b"1" * SIZE + b'"}',
            b'"' + b"x" * SIZE,
            b"\xff" * SIZE,
        ],
        ids=lambda payload: payload[:30],
    )
    def test_does_not_get_into_the_reason(self, payload):
        _, (refused,) = decode(payload)
        assert len(str(refused.reason)) < 200

    def test_of_an_unexpected_failure_is_cut(self, monkeypatch):
        monkeypatch.setattr(values, "json_type", lambda value: {}["x" * SIZE])
        _, (refused,) = decode(message(0, Temp="x"))
        assert len(str(refused.reason)) == MAX_REASON


def from_devices(count: int) -> bytes:
    """A reading from each of so many devices."""
    return b"[" + b",".join(b'{"Timestamp":%d,"Device":"%d","Temp":1}' % (NOON, n) for n in range(count)) + b"]"


def fold(payload: bytes, silence_after: int | None = None, by_device: bool = False) -> Iterator[object]:
    """What the fold emits for one message."""
    intervals = FixedIntervals(15, 5, 3600, False, by_device=by_device)
    step = _Fold(Mapping.of_columns(SENSORS), 600, intervals, silence_after)
    step.setup()
    step.start_bundle()
    yield from step.process(payload)
    yield from step.finish_bundle()


class TestTheFold:
    def test_emits_1001_dead_letters_no_larger_than_their_message(self):
        emitted = [
            output.value.value[1] for output in fold(filled(b"0")) if isinstance(output, beam.pvalue.TaggedOutput)
        ]
        assert {tag for tag, _ in emitted} == {DEAD_LETTERS}
        assert len(emitted) == 1_001
        assert sum(len(refused[4]) for _, refused in emitted) <= SIZE

    def test_remembers_no_more_devices_than_it_may(self, monkeypatch):
        most = []
        drain = DeviceActivity.drain
        monkeypatch.setattr(DeviceActivity, "drain", lambda self: most.append(len(self._runs)) or drain(self))
        devices = 3 * MAX_BUCKETS + 5
        payload = (
            b"[" + b",".join(b'{"Timestamp":%d,"Device":"%d","Temp":1}' % (NOON, n) for n in range(devices)) + b"]"
        )
        found = [output for output in fold(payload, silence_after=60) if getattr(output, "tag", None) == ACTIVITY]
        assert most == [MAX_BUCKETS] * 3 + [5]
        # Each device once, and with each time the stream.
        assert len(found) == devices + 4

    @pytest.mark.parametrize("by_device", [True, False])
    def test_counts_each_reading_once_when_devices_or_sums_fill_up(self, by_device):
        count = 0
        for output in fold(from_devices(50_000), silence_after=60, by_device=by_device):
            if getattr(output, "tag", None) == SIDE_OUTPUT:
                _, (tag, (_, _, kept)) = output.value.value
                assert tag == MAYBE_EXPIRED
                count += sum(sums["Temp"][1] for sums in (kept.values() if by_device else [kept]))
        assert count == 50_000


class TestTheGraph:
    def test_writes_the_rows_of_others_and_counts_every_refused_item(self, run_on_worker):
        rows, letters = run_on_worker([message(0, Temp=1), filled(b"0"), message(1, Temp=3)], "--sensors=Temp")
        assert [row["Temp"] for row in rows] == [2.0]
        assert Counter(letter["error"] for letter in letters) == {"NotAReading": 1_000, "TooManyRefused": 1}
        (others,) = [letter for letter in letters if letter["error"] == "TooManyRefused"]
        assert len(json.loads(others["payload"])) == SIZE // 2 - 1_000
