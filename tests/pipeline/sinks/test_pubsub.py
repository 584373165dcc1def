"""Dead letters and silences: the tables they are stored in, and their messages."""

import base64
import json

from pipeline.dead_letters import dead_letter
from pipeline.launch.tables import SILENCE_KEY, TableId
from pipeline.sinks import pubsub
from pipeline.sinks.storage_write import to_change
from pipeline.sinks.streaming_inserts import InsertDeadLetters, InsertRows
from tests.pipeline.conftest import Stream, message, run_through

ROWS = TableId("test-project", "d", "readings")
DEAD_LETTERS = TableId("test-project", "d", "readings_dead_letters")
SILENCES = TableId("test-project", "d", "readings_silences")
SILENCE = {"Device": "a", "SilentSince": "2024-11-22T13:00:00.000000Z", "NoticedAt": "x", "BackAt": None}


class TestWriteSilences:
    def test_returns_rejected_silence_and_stores_the_others(self, inserts):
        inserts.reject = lambda row: "no" if row.get("SilentSince") and row["Device"] == "a" else None
        stream = Stream().add(message(0, Temp=1, Device="a")).add(message(60, Temp=1, Device="a"))
        run_through(
            stream.watermark(120).end(),
            InsertRows(ROWS),
            InsertDeadLetters(DEAD_LETTERS),
            "--silence_after=30s",
            write_silences=pubsub.WriteSilences(InsertRows(SILENCES), None),
        )
        (stored,) = inserts.rows("readings_silences")
        assert (stored["Device"], stored["BackAt"]) == (None, "2024-11-22T13:01:00.000000Z")
        (found,) = inserts.rows("readings_dead_letters")
        assert (found["stage"], found["error"], found["device"]) == ("silence", "invalid", "a")
        assert found["event_time"] == "2024-11-22T13:00:00.000000Z"
        rejected = json.loads(base64.b64decode(found["payload"]))
        assert rejected == {**stored, "Device": "a", "NoticedAt": rejected["NoticedAt"]}


class TestSilenceMessage:
    def test_has_event_and_device_as_attributes(self):
        message = pubsub.silence_message(SILENCE)
        assert (json.loads(message.data), message.attributes) == (SILENCE, {"event": "silent", "device": "a"})

    def test_has_no_device_when_the_stream_is_silent(self):
        message = pubsub.silence_message({**SILENCE, "Device": None, "BackAt": "x"})
        assert message.attributes == {"event": "back"}

    def test_stays_within_limits_of_pubsub(self):
        message = pubsub.silence_message({**SILENCE, "Device": "é" * 1024})
        message._to_proto_str(for_publish=True)  # Beam's own check of sizes
        assert message.attributes["device"] == "é" * 512


class TestRevisionOfSilence:
    def test_orders_the_earliest_end_last_whatever_order_rows_arrive_in(self):
        noticed_at = "1970-01-01T00:00:00.000005Z"
        silence = {"Device": None, "SilentSince": "2024-11-22T13:00:00.000000Z", "NoticedAt": noticed_at}
        ends = [None, "2024-11-22T14:00:00.000000Z", "2024-11-22T13:30:00.000001Z", "2024-11-22T13:30:00.000000Z"]
        changes = [
            to_change(pubsub.revision_of_silence({**silence, "BackAt": end}), SILENCE_KEY, job_start=16) for end in ends
        ]
        assert {(change["Device"], change["_CHANGE_TYPE"]) for change in changes} == {("", "UPSERT")}
        numbers = [tuple(int(part, 16) for part in change["_CHANGE_SEQUENCE_NUMBER"].split("/")) for change in changes]
        assert numbers == sorted(set(numbers))
        assert numbers[0] == (16, 0, 5)


class TestToMessages:
    def test_stays_within_limits_of_pubsub(self):
        own = {f"a{n:03}": "v" for n in range(98)} | {"stage": "mine", "googclient": "x", "long": "é" * 1000}
        (message,) = pubsub.to_messages(dead_letter("decode", "NotJson", "m" * 2000, b"bad", attributes=own))
        message._to_proto_str(for_publish=True)  # Beam's own check of sizes and counts
        assert (message.data, message.attributes["stage"], len(message.attributes)) == (b"bad", "decode", 100)
        assert len(message.attributes["message"]) == 1024
        assert "googclient" not in message.attributes

    def test_returns_nothing_when_payload_is_too_large(self):
        assert pubsub.to_messages(dead_letter("decode", "NotJson", "m", b"x" * 9_000_001)) == []
