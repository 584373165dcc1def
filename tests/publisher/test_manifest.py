import base64
import json
import signal
import time
from datetime import datetime
from itertools import pairwise

from publisher.manifest import Manifest
from publisher.messages import Message, encode, pack
from publisher.sensors import Reading

FAULTS = "late=0.1,duplicate=0.1,malformed=0.1,out_of_order=0.1,skew=0.1,burst=20"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def data_of(line):
    return base64.b64decode(line["data_base64"]) if line["data"] is None else line["data"].encode()


def assert_equals_received(manifest, messages):
    recorded = {line["message_id"]: (data_of(line), line["attributes"]) for line in manifest}
    assert recorded == {message.message_id: (message.data, dict(message.attributes)) for message in messages}
    assert len(manifest) == len(recorded)


class TestManifest:
    def test_record_writes_every_field(self, tmp_path):
        message = encode(Reading(7, "device-2", "Temp", 1_795_352_401_250, 21.4), "abc")
        Manifest(tmp_path / "manifest").record(message, "m1", sent=1_795_352_401.5)
        (line,) = lines(tmp_path / "manifest")
        assert abs(datetime.fromisoformat(line.pop("confirmed")).timestamp() - time.time()) < 5
        assert line == {
            "reading_id": "abc-7",
            "message_id": "m1",
            "sent": "2026-11-22T13:00:01.500000Z",
            "fault": None,
            "device": "device-2",
            "sensor": "Temp",
            "value": 21.4,
            "event_time": "2026-11-22T13:00:01.250Z",
            "attributes": message.attributes,
            "data": message.data.decode(),
        }

    def test_record_writes_base64_for_data_that_is_not_utf8(self, tmp_path):
        message = Message(b"\xff\x00", {"reading_id": "abc-1"}, 0, None, "malformed: not_utf8")
        Manifest(tmp_path / "manifest").record(message, "m1", sent=0)
        (line,) = lines(tmp_path / "manifest")
        assert (data_of(line), line["data"], line["value"]) == (b"\xff\x00", None, None)

    def test_record_writes_a_line_for_each_reading_of_a_packed_message(self, tmp_path):
        parts = [encode(Reading(n, "device-2", "Temp", 1_795_352_401_250 + n, 20.0 + n), "abc") for n in (7, 8)]
        message = pack([parts[0], parts[1]._replace(fault="burst")])
        Manifest(tmp_path / "manifest").record(message, "m1", sent=1_795_352_401.5)
        found = lines(tmp_path / "manifest")
        assert [(line["reading_id"], line["value"], line["fault"]) for line in found] == [
            ("abc-7", 27.0, None),
            ("abc-8", 28.0, "burst"),
        ]
        assert [data_of(line) for line in found] == [part.data for part in parts]
        assert [(line["message_id"], line["attributes"]) for line in found] == [("m1", message.attributes)] * 2

    def test_record_appends_to_an_existing_file(self, tmp_path):
        message = encode(Reading(7, "device-2", "Temp", 1_795_352_401_250, 21.4), "abc")
        for message_id in ("m1", "m2"):
            Manifest(tmp_path / "manifest").record(message, message_id, sent=0)
        assert [line["message_id"] for line in lines(tmp_path / "manifest")] == ["m1", "m2"]


class TestPublishManifest:
    def test_equals_what_a_subscription_receives(self, start, topic, tmp_path):
        process = start(
            *("publish", "--topic", topic.path, "--rate", "200", "--messages", "400", "--seed", "3"),
            *("--faults", FAULTS, "--late-by", "2s", "--manifest", "manifest"),
            PUBSUB_EMULATOR_HOST=topic.host,
        )
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        manifest = lines(tmp_path / "manifest")
        assert f"Published {len(manifest)} readings" in out
        assert_equals_received(manifest, topic.pull(len(manifest)))
        assert len({line["reading_id"] for line in manifest}) == 400
        assert len(manifest) > 420

    def test_marks_the_readings_after_which_a_device_drops_out(self, start, topic, tmp_path):
        process = start(
            *("publish", "--topic", topic.path, "--rate", "1000", "--messages", "1000", "--seed", "3"),
            *("--devices", "2", "--faults", "dropout=0.01", "--dropout-for", "0.2s"),
            *("--manifest", "manifest"),
            PUBSUB_EMULATOR_HOST=topic.host,
        )
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        manifest = lines(tmp_path / "manifest")
        assert_equals_received(manifest, topic.pull(len(manifest)))
        for device in ("device-1", "device-2"):
            own = sorted((line for line in manifest if line["device"] == device), key=lambda line: line["event_time"])
            times = [datetime.fromisoformat(line["event_time"]) for line in own]
            gaps = [
                (line["fault"], (b - a).total_seconds()) for line, (a, b) in zip(own, pairwise(times), strict=False)
            ]
            assert "dropout" in {fault for fault, _ in gaps}
            # A device has four readings in four milliseconds, then it is the other's turn.
            assert all((0.2 <= gap < 0.21) if fault else gap < 0.006 for fault, gap in gaps)

    def test_includes_held_back_readings_when_stopped(self, start, topic, tmp_path):
        process = start(
            *("publish", "--topic", topic.path, "--rate", "200", "--faults", "late=0.5", "--late-by", "1h"),
            *("--manifest", "manifest"),
            PUBSUB_EMULATOR_HOST=topic.host,
        )
        before = topic.pull(100)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        manifest = lines(tmp_path / "manifest")
        assert_equals_received(manifest, before + topic.pull(len(manifest) - len(before)))
        # Not one number is missing up to the last reading taken.
        numbers = sorted(int(line["reading_id"].partition("-")[2]) for line in manifest)
        assert numbers == list(range(len(manifest)))
        assert sum(line["fault"] == "late" for line in manifest) > 50

    def test_has_complete_lines_of_accepted_readings_when_killed(self, start, topic, tmp_path):
        process = start(
            *("publish", "--topic", topic.path, "--rate", "500", "--manifest", "manifest"),
            PUBSUB_EMULATOR_HOST=topic.host,
        )
        before = topic.pull(100)
        process.kill()
        process.wait()
        received = {message.message_id for message in before + topic.pull(0)}
        recorded = {line["message_id"] for line in lines(tmp_path / "manifest")}
        assert recorded <= received
        # At most the batch whose confirmation was on its way.
        assert len(received - recorded) < 60

    def test_ends_the_run_with_an_error_when_the_disk_is_full(self, start, topic):
        process = start(
            *("publish", "--topic", topic.path, "--rate", "100", "--manifest", "/dev/full"),
            PUBSUB_EMULATOR_HOST=topic.host,
        )
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "not written to the manifest: No space left on device" in err
        assert err.count("\n") == 1
