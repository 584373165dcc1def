"""`python -m pipeline.preview`: what it prints for the messages of docs/messages.jsonl, and for hostile files."""

import base64
import gzip
import json
import os
import random
import shlex
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from google.cloud import pubsub_v1
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decode.mapped import MappedDecoder
from pipeline.decode.paths import parse_path
from pipeline.decode.walk import Walk
from pipeline.preview import __main__ as preview
from pipeline.preview import messages
from pipeline.preview.found import find

ROOT = Path(__file__).parents[3]
RECIPES = [json.loads(line) for line in (ROOT / "docs/messages.jsonl").read_text().splitlines()]
READABLE = [recipe for recipe in RECIPES if "parameters" in recipe]
# Avro in binary needs the schema, which the service has and the message has not.
OF_FILES = [
    recipe for recipe in READABLE if recipe["message"]["attributes"].get("googclient_schemaencoding") != "BINARY"
]
TOPIC = "projects/test-project/topics/t-1"


def micros(rfc3339):
    return round(datetime.fromisoformat(rfc3339).timestamp() * 1_000_000)


def flags(recipe):
    return [f"--{name}={value}" for name, value in recipe["parameters"].items()]


def expected(recipe):
    return [(micros(one["timestamp"]), one["device"], one["values"]) for one in recipe["readings"]]


def found(line):
    return [(micros(one["timestamp"]), one["device"], one["values"]) for one in json.loads(line)["readings"]]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the preview on a file with this content; returns exit code, lines of stdout, and stderr."""

    def run(content, *args):
        file = tmp_path / "messages"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        code = preview.main([str(file), *args])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


class TestJson:
    @pytest.mark.parametrize("recipe", OF_FILES, ids=lambda recipe: recipe["platform"])
    def test_has_the_readings_of_each_recipe(self, run, recipe):
        code, [line], err = run(json.dumps(recipe["message"]), "--json", *flags(recipe))
        assert (code, err) == (0, "")
        assert found(line) == expected(recipe)
        assert json.loads(line)["dead_letters"] == []

    def test_has_the_readings_of_avro_in_binary_by_the_schema_of_the_service(self, tmp_path, monkeypatch, capsys):
        [recipe] = [recipe for recipe in READABLE if recipe not in OF_FILES]
        file = tmp_path / "messages"
        file.write_text(json.dumps(recipe["message"]))
        fetch = lambda name, revision: json.dumps(recipe["schema"])  # noqa: E731
        monkeypatch.setattr(preview, "decoder_for", lambda mapping: MappedDecoder(mapping, fetch))
        assert preview.main([str(file), "--json", *flags(recipe)]) == 0
        assert found(capsys.readouterr().out) == expected(recipe)

    def test_has_a_line_per_message_with_readings_and_dead_letters(self, run):
        lines = [
            '{"Timestamp": "2026-11-22T13:00:01Z", "Temp": 21.5, "AtmP": "high"}',
            "",
            '{"data": "eyJUaW1lc3RhbXAiOjE3OTUzNTI0MDEsIlRlbXAiOjF9", "encoding": "base64"}',
            "no JSON",
        ]
        code, [first, second, third], _ = run("\r\n".join(lines), "--json")
        assert code == 0
        assert json.loads(first) == {
            "readings": [{"timestamp": "2026-11-22T13:00:01.000000Z", "device": None, "values": {"Temp": 21.5}}],
            "dead_letters": [
                {
                    "error": "BadValue",
                    "message": "AtmP is a string, not a number; the payload is its canonical form",
                }
            ],
        }
        assert json.loads(second)["readings"][0]["values"] == {"Temp": 1.0}
        assert [one["error"] for one in json.loads(third)["dead_letters"]] == ["NotJson"]

    @pytest.mark.parametrize(
        ("attributes", "parameters", "time"),
        [
            ({}, [], "2026-11-22T13:00:02Z"),
            ({"ts": "1795352401250"}, [], "2026-11-22T13:00:02Z"),
            ({"ts": "1795352401250"}, ["--timestamp_attribute=ts"], "2026-11-22T13:00:01.25Z"),
            ({"ts": "2026-11-22T13:00:01.25Z"}, ["--timestamp_attribute=ts"], "2026-11-22T13:00:01.25Z"),
            ({"ts": "soon"}, ["--timestamp_attribute=ts"], "2026-11-22T13:00:02Z"),
        ],
    )
    def test_has_the_time_of_the_message(self, run, attributes, parameters, time):
        envelope = {"data": '{"Temp": 1}', "attributes": attributes, "publish_time": "2026-11-22T13:00:02Z"}
        _, [line], _ = run(json.dumps(envelope), "--json", "--timestamp=message:time", *parameters)
        assert found(line) == [(micros(time), None, {"Temp": 1.0})]

    def test_takes_data_of_another_form_for_plain_data(self, run):
        line = '{"data": {"Temp": 2}, "attributes": {"a": 1}}'
        _, [line], _ = run(line, "--json", "--timestamp=message:time", "--sensors=Temp=data.Temp")
        assert [values for _, _, values in found(line)] == [{"Temp": 2.0}]


class TestReport:
    def test_is_a_table_of_readings_and_what_to_set_for_rejected_messages(self, run):
        lines = [
            '{"time": "2026-11-22T13:00:01Z", "dev": "cellar", "T": 21.5, "H": 50}',
            '{"time": "2026-11-22T13:00:02Z", "dev": "attic", "T": -3.25}',
            '{"at": {"time": "2026-11-22T13:00:03Z"}, "readings": [{"T": 1}, {"T": 2}], "a.b": null}',
        ]
        content = "\n".join([*lines[:2], json.dumps({"data": lines[2], "attributes": {"site": "x"}})])
        code, out, _ = run(content, "--timestamp=time", "--device=dev", "--sensors=Temp=T,Humi=H,Other=o")
        assert code == 0
        assert out[:-1] == [
            "3 messages: 2 readings, 1 dead letter",
            "",
            "Timestamp                    Device   Temp  Humi",
            "2026-11-22T13:00:01.000000Z  cellar   21.5    50",
            "2026-11-22T13:00:02.000000Z  attic   -3.25     -",
            "",
            "line 3: NoKnownSensor: no sensor found: nothing at T, H, o",
            "  set --sensors to COLUMN=PATH,..., or --no_reading=ignore if such messages have no reading",
            "  paths in it:",
            "    at.time         2026-11-22T13:00:03Z",
            "    readings[*].T   1",
            "    ['a.b']         null",
            "    attribute:site  x",
        ]
        assert out[-1].startswith("    message:time    20")

    def test_counts_messages_without_a_reading(self, run):
        parameters = ["--timestamp=message:time", "--no_reading=ignore"]
        _, [line], _ = run('{"status": "online"}', *parameters)
        expected = "1 message: 0 readings, 0 dead letters; 1 without a reading, which --no_reading=ignore passes over"
        assert line == expected

    def test_is_bounded_for_many_messages(self, run):
        good = '{"Timestamp": 1795352401, "Temp": 1}\n' * 60
        code, out, _ = run(good + "{}\n" * 7, "--sensors=Temp")
        assert code == 0
        assert out[0] == "67 messages: 60 readings, 7 dead letters"
        assert "... 10 more" in out
        assert sum(line.endswith("BadTimestamp: Timestamp is missing") for line in out) == 5
        assert out[-1] == "2 more messages have dead letters"


class TestSuggest:
    # Of these no message says what the recipe knows: which event types have readings, a time zone, which of many
    # resource attributes is the device, and the names of CSV columns.
    NOT_FOUND = frozenset(
        [
            "ChirpStack v4 status event in the same topic",
            "Tasmota tele/SENSOR",
            "OTLP JSON metrics",
            "Google's sensor course (San Diego traffic)",
        ]
    )

    def test_finds_the_readings_of_most_platforms(self, run):
        wrong = {recipe["platform"] for recipe in OF_FILES if not self.is_found(run, recipe)}
        assert wrong == self.NOT_FOUND
        assert (len(OF_FILES), len(OF_FILES) - len(wrong)) == (30, 26)

    def is_found(self, run, recipe):
        """Whether there are as many readings as the recipe has, of the same times and devices, with its values."""
        code, [_, line], err = run(json.dumps(recipe["message"]), "--json", "--suggest")
        assert (code, err) == (0, "")
        readings = found(line)
        return [one[:2] for one in readings] == [one[:2] for one in expected(recipe)] and all(
            set(named.values()) <= set(values.values())
            for (_, _, named), (_, _, values) in zip(expected(recipe), readings, strict=True)
        )

    @pytest.mark.parametrize(
        ("line", "device", "values"),
        [
            (
                '{"reported_at": 1795352401000, "dev_eui": "6081F9", "port": 2, "name": "probe", '
                '"decoded": {"payload": {"temp": 21.4, "hum": 50}, "status": "success"}}',
                "6081F9",
                {"temp": 21.4, "hum": 50.0},
            ),
            (
                '{"eventTime": "2026-11-22T13:00:01Z", "deviceId": "pump-3", "observations": '
                '{"pressure": {"value": 3.2, "unit": "bar"}, "flow": {"value": 12, "unit": "l"}}}',
                "pump-3",
                {"pressure": 3.2, "flow": 12.0},
            ),
            (
                '{"src": "plus-08b61f", "params": {"ts": 1795352401.0, "temperature:0": {"id": 0, "tC": 21.4}, '
                '"humidity:0": {"id": 0, "rh": 50.5}}}',
                "plus-08b61f",
                {"tC": 21.4, "rh": 50.5},
            ),
            (
                '{"gateway": 1, "m": [{"k": "temp", "v": 21.4, "t": 1795352401}, '
                '{"k": "hum", "v": 50, "t": 1795352401}]}',
                None,
                {"temp": 21.4, "hum": 50.0},
            ),
            (
                '{"data": "temperature,host=c1 value=21.4 1795352401000000000\\nhumidity,host=c1 value=50 '
                '1795352401000000000", "attributes": {}}',
                "c1",
                {"temperature": 21.4, "humidity": 50.0},
            ),
        ],
        ids=["LoRaWAN hub", "observations", "Shelly RPC", "key and value list", "line protocol"],
    )
    def test_finds_the_readings_of_other_platforms(self, run, line, device, values):
        _, [_, second], _ = run(line, "--suggest", "--json")
        assert found(second) == [(1_795_352_401_000_000, device, values)]

    def test_prints_a_command_that_gives_the_same_readings(self, run, tmp_path, capsys):
        line = """{"it's": {"a b": "1.5 V"}, "ts": 1795352401, "device_id": "d'1"}"""
        _, out, _ = run(line, "--suggest", "--interval=1m")
        end = out.index("")
        words = shlex.split(" ".join(part.removesuffix("\\") for part in out[:end]))
        assert words[:3] == ["python", "-m", "pipeline.preview"]
        assert words[4:] == [
            "--timestamp=ts",
            "--device=device_id",
            """--sensors=a_b=["it's"]['a b']""",
            "--values=lenient",
            "--interval=1m",
        ]
        assert preview.main(words[3:]) == 0
        assert capsys.readouterr().out.splitlines() == out[end + 1 :]
        assert "1 reading" in out[end + 1]

    def test_does_not_replace_what_is_given(self, run):
        line = '{"ts": 1795352401, "time": 1795352402, "temp": 1, "id": "d"}'
        _, [first, second], _ = run(line, "--suggest", "--json", "--timestamp=ts")
        assert json.loads(first) == {"parameters": {"device": "id", "sensors": "temp"}}
        assert found(second) == [(1_795_352_401_000_000, "d", {"temp": 1.0})]

    def test_finds_senml_records_without_names_of_their_own(self, run):
        line = '[{"bn": "urn:dev:mac:1:", "bt": 1795352401, "v": 21.4}]'
        _, [_, second], _ = run(line, "--suggest", "--json")
        assert found(second) == [(1_795_352_401_000_000, "urn:dev:mac:1:", {"urn_dev_mac_1": 21.4})]

    @pytest.mark.parametrize(
        ("line", "values"),
        [
            ('{"Device": 1.5, "a": 1}', {"a": 1.0}),
            ('{"Device": 1795352401, "a": 1}', {"a": 1.0}),
            ("""{"'": 1, "value": 2}""", {"value_x": 1.0, "value": 2.0}),
            ('{"a": {"b": 1}, "b": 2}', {"a_b": 1.0, "b": 2.0}),
        ],
    )
    def test_suggests_columns_whose_dead_letters_can_be_read(self, run, line, values):
        code, [_, second], err = run(line, "--suggest", "--json")
        assert (code, err) == (0, "")
        assert [named for _, _, named in found(second)] == [values]

    def test_suggests_nothing_without_a_number(self, run):
        _, out, _ = run('{"status": "online"}', "--suggest")
        assert out[0] == "No number found in these messages, so nothing is suggested."


# Keys as platforms have them, and as none should.
_KEYS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["a", "a.b", "$", "it's", '"', "*", "x:y"])
_SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3)
_DOCUMENTS = st.recursive(
    _SCALARS, lambda inner: st.dictionaries(_KEYS, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=12
)


@given(document=st.dictionaries(_KEYS, _DOCUMENTS, min_size=1, max_size=4))
def test_found_paths_lead_to_the_values_that_are_shown(document):
    for path, values in find([document]).items():
        [source] = parse_path(path).sources
        rows = [row[0] for row in Walk([source]).rows(document, [None])]
        shown, read = (Counter(repr(value) for value in some if value is not None) for some in (values, rows))
        assert shown <= read


class TestErrors:
    @pytest.mark.parametrize(
        ("parameter", "error"),
        [
            ("--timestamp=a..b", "--timestamp=a..b: expected a key at character 3, before '.b'"),
            ("--sensors=T,T", "--sensors=T,T: T is already the name of another sensor"),
            ("--sensor_name=n", "--sensor_name=n: needs sensor_value too"),
            ("--time_zone=Nowhere", "--time_zone=Nowhere: no such time zone"),
            ("--interval=0s", "--interval=0s: expected a whole number above 0"),
            ("--timestmp=a", "--timestmp=a: no such parameter; did you mean --timestamp?"),
        ],
    )
    def test_parameters_are_refused_as_before_launch(self, run, parameter, error):
        code, lines, err = run("{}", parameter)
        assert (code, lines) == (2, [])
        assert err.startswith(f"error: {error}")
        assert err.count("\n") == 1

    def test_parameters_may_follow_their_name_and_precede_the_file(self, run, tmp_path, capsys):
        (tmp_path / "one").write_text('{"t": 1795352401, "Temp": 1}')
        assert preview.main(["--timestamp", "t", str(tmp_path / "one"), "--json"]) == 0
        assert found(capsys.readouterr().out) == [(1_795_352_401_000_000, None, {"Temp": 1.0})]

    @pytest.mark.parametrize("name", ["missing", ".", "a\0b"])
    def test_unreadable_file_is_one_line(self, tmp_path, capsys, name):
        assert preview.main([f"{tmp_path}/{name}", "--json"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: cannot read ")
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ('{"data": "?", "encoding": "base64"}', "line 1: "),
            ('{"data": "?", "encoding": "hex"}', "line 1: the encoding of an envelope is base64, or left out"),
            ('{"data": "", "attributes": {"a": 1}}', "line 1: the value of an attribute is not text"),
            ('{"data": "", "publish_time": "now"}', "line 1: Timestamp is neither RFC 3339"),
            ("x" * 20_000_001, "line 1: longer than 20,000,000 bytes"),
        ],
    )
    def test_damaged_envelope_is_one_line(self, run, line, error):
        code, lines, err = run(line, "--json")
        assert (code, lines) == (2, [])
        assert error in err
        assert err.count("\n") == 1

    def test_process_ends_with_one_line_and_exit_code_2(self, tmp_path):
        command = [sys.executable, "-m", "pipeline.preview", str(tmp_path / "missing")]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"error: cannot read {tmp_path}/missing: No such file or directory\n"


def test_output_to_a_terminal_without_unicode_is_escaped(tmp_path):
    (tmp_path / "one").write_text('{"Timestamp": 1795352401, "Device": "Küche", "Temp": 1}')
    command = [sys.executable, "-m", "pipeline.preview", str(tmp_path / "one")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert "K\\xfcche" in ended.stdout


def hostile():
    deep = "[" * 100_000 + "]" * 100_000
    yield deep
    yield '{"a":' * 50_000
    yield json.dumps({"data": deep})
    yield json.dumps({"data": base64.b64encode(gzip.compress(bytes(30_000_000))).decode(), "encoding": "base64"})
    yield '{"data": "\\ud800"}'
    yield '{"Timestamp": ' + "9" * 10_000 + "}"
    yield json.dumps([{}] * 100_000)
    yield json.dumps({f"k{number}": {"\x1b[31m\n": number} for number in range(10_000)})
    yield bytes(random.Random(1).randbytes(100_000))
    yield b"\0" * 1000


@pytest.mark.parametrize("output", [["--json"], [], ["--suggest"]], ids=str)
@pytest.mark.parametrize(
    "parameters",
    [[], ["--timestamp=a[*].t", "--sensors=T=a[*].v"], ["--format=influx"], ["--format=senml"], ["--format=text"]],
    ids=str,
)
def test_hostile_messages_are_dead_letters_or_one_error(run, output, parameters):
    for content in hostile():
        code, lines, err = run(content, *output, *parameters)
        assert code == 0 or (err.startswith("error: ") and err.count("\n") == 1)
        assert lines or err
        assert "Traceback" not in err
        assert all("\x1b" not in line for line in lines)


class TestSubscription:
    @pytest.fixture
    def subscription(self, pubsub_server, monkeypatch, request):
        """A subscription with three messages."""
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_server)
        name = f"preview-{abs(hash(request.node.name))}"
        topic, path = f"projects/test-project/topics/{name}", f"projects/test-project/subscriptions/{name}"
        with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
            publisher.create_topic(name=topic)
            subscriber.create_subscription(name=path, topic=topic)
            for number in range(3):
                publisher.publish(topic, json.dumps({"Temp": number}).encode(), device=f"d{number}").result()
            yield path
            subscriber.delete_subscription(subscription=path)
            publisher.delete_topic(topic=topic)

    def test_is_pulled_and_not_acknowledged(self, subscription, capsys):
        for _ in range(2):
            parameters = ["--timestamp=message:time", "--device=attribute:device"]
            assert preview.main([subscription, "--json", *parameters]) == 0
            lines = capsys.readouterr().out.splitlines()
            read = sorted((device, values) for line in lines for _, device, values in found(line))
            assert read == [(f"d{number}", {"Temp": float(number)}) for number in range(3)]

    def test_missing_subscription_is_one_line(self, subscription, capsys):
        assert preview.main([f"{subscription}-other", "--json"]) == 2
        assert capsys.readouterr().err == f"error: {subscription}-other does not exist\n"

    def test_without_messages_is_one_line(self, subscription, monkeypatch, capsys):
        with pubsub_v1.SubscriberClient() as subscriber:
            while pulled := subscriber.pull(subscription=subscription, max_messages=10, timeout=5).received_messages:
                subscriber.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in pulled])
                if len(pulled) == 3:
                    break
        monkeypatch.setattr(messages, "_TIMEOUT_SECONDS", 1.0)
        assert preview.main([subscription]) == 2
        assert capsys.readouterr().err == f"error: {subscription} had no message within 1 seconds\n"

    def test_with_a_wrong_name_is_one_line(self, capsys):
        assert preview.main(["projects/p/subscriptions/s"]) == 2
        assert capsys.readouterr().err.startswith("error: --input_subscription=projects/p/subscriptions/s: expected ")

    @pytest.mark.usefixtures("expired_credentials")
    def test_with_expired_credentials_is_one_line(self, capsys):
        assert preview.main(["projects/test-project/subscriptions/sub-1"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: No usable Google Cloud credentials (")
        assert err.count("\n") == 1
