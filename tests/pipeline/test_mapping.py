"""Messages of other platforms, from a source to rows, through the shipped graph."""

import json

import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage

from tests.pipeline.conftest import NOON, Stream, message


def uplink(seconds: float, **payload) -> bytes:
    """A message as The Things Stack sends it."""
    end_device = {"device_id": "fridge-7"}
    decoded = {"received_at": NOON + seconds, "decoded_payload": payload}
    return json.dumps({"end_device_ids": end_device, "uplink_message": decoded}).encode()


UPLINKS = (
    "--timestamp=uplink_message.received_at",
    "--device=end_device_ids.device_id",
    "--sensors=Temp=uplink_message.decoded_payload.temperature,Humi=uplink_message.decoded_payload.humidity",
    "--group_by_device=true",
)


@pytest.mark.parametrize("window", ["--window=fixed", "--window=session"])
def test_messages_of_a_mapping_become_rows(run_on_worker, window):
    sent = [uplink(1, temperature=21, humidity=50.5), uplink(2, temperature=22, humidity=None)]
    rows, letters = run_on_worker(sent, *UPLINKS, window)
    assert letters == []
    assert [(row["Device"], row["Temp"], row["Humi"]) for row in rows] == [("fridge-7", 21.5, 50.5)]


def test_bad_value_is_a_dead_letter_and_counts_when_it_is_sent_again(run_on_worker):
    rows, (letter,) = run_on_worker([uplink(1, temperature="21", humidity=50.5)], *UPLINKS)
    assert [(row["Temp"], row["Humi"]) for row in rows] == [(None, 50.5)]
    assert json.loads(letter["payload"]) == {"Timestamp": NOON + 1, "Device": "fridge-7", "Temp": "21"}
    assert letter["error"] == "BadValue"
    rows, letters = run_on_worker([letter["payload"]], *UPLINKS, "--values=lenient")
    assert [(row["Device"], row["Temp"], row["Humi"]) for row in rows] == [("fridge-7", 21.0, None)]
    assert letters == []


def test_bad_value_of_the_contract_does_not_take_others_with_it(run_graph):
    rows, (letter,) = run_graph(Stream().add(message(1, Temp=1, AtmP="x", H2OC=None)).watermark(3600))
    assert [(row["Temp"], row["AtmP"], row["H2OC"]) for row in rows] == [(1.0, None, None)]
    assert json.loads(letter["payload"]) == {"Timestamp": NOON + 1, "Device": None, "AtmP": "x"}


class TestAttributes:
    FLAGS = ("--device=attribute:topic/1", "--sensors=Temp=temperature", "--group_by_device=true")

    def test_are_read_and_kept_in_dead_letters(self, run_graph):
        good, bad = (json.dumps({"Timestamp": NOON + 1, "temperature": value}).encode() for value in (21, "x"))
        attributes = {"topic": "tele/cellar/SENSOR"}
        stream = Stream().add(PubsubMessage(good, attributes), PubsubMessage(bad, attributes, "id-1"))
        rows, (letter,) = run_graph(stream.watermark(3600), *self.FLAGS)
        assert [(row["Device"], row["Temp"]) for row in rows] == [("cellar", 21.0)]
        assert (letter["payload"], letter["message_id"]) == (bad, "id-1")
        assert letter["attributes"] == [{"key": "topic", "value": "tele/cellar/SENSOR"}]

    def test_absent_attributes_leave_the_device_empty(self, run_graph):
        sent = PubsubMessage(json.dumps({"Timestamp": NOON + 1, "temperature": 21}).encode(), {})
        rows, letters = run_graph(Stream().add(sent).watermark(3600), *self.FLAGS)
        assert ([(row["Device"], row["Temp"]) for row in rows], letters) == ([(None, 21.0)], [])


def test_time_of_the_message_is_that_of_the_element(run_graph):
    stream = Stream().watermark(16).add(b'{"temperature": 21}').watermark(3600)
    rows, letters = run_graph(stream, "--timestamp=message:time", "--sensors=Temp=temperature")
    assert [(row["Timestamp"][14:19], row["Temp"]) for row in rows] == [("00:15", 21.0)]
    assert letters == []


def test_documents_without_a_sensor_are_dead_letters_or_ignored(run_graph):
    sent = uplink(1, battery=92), uplink(2, temperature=21)
    rows, (letter,) = run_graph(Stream().add(*sent).watermark(3600), *UPLINKS)
    assert (len(rows), letter["error"]) == (1, "NoKnownSensor")
    rows, letters = run_graph(Stream().add(*sent).watermark(3600), *UPLINKS, "--no_reading=ignore")
    assert (len(rows), letters) == (1, [])
