"""metadata.json equals the declared parameters, and egrep and Python read its regexes in the same way."""

import json
import re
from string import Template

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploy.template.metadata import METADATA, template_metadata
from pipeline.launch.parameters import PARAMETERS, Parameter
from pipeline.launch.tables import TableId
from tests.deploy.template.fake_google import ROOT, egrep, faults

FIELDS = {field["name"]: field for field in template_metadata()["parameters"]}

GOOD = {
    "input_subscription": [
        "projects/my-project/subscriptions/s-1",
        "projects/example.com:proj-1/subscriptions/a.b~c+%d",
    ],
    "input_topic": ["projects/my-project/topics/sensor-readings"],
    "timestamp_attribute": ["timestamp", "Event-Time", "ts/µs"],
    "id_attribute": ["reading_id"],
    "output_table": ["my-project:sensors.readings", "my-project.sensors.readings", "example.com:my-proj.d.t-1"],
    "dead_letter_table": ["my-project:sensors.readings_dead_letters"],
    "dead_letter_topic": ["projects/my-project/topics/dead.letters"],
    "silence_after": ["1s", "5m"],
    "silence_topic": ["projects/my-project/topics/silences"],
    "fill_gaps": ["true", "false"],
    "sensors": [
        "Temp",
        "Temp,AtmP",
        " Temp , _a1 ",
        "Temp=a.b,AtmP",
        "T=['a,b'].c|d[?@.k==\"v,w\"],H = x ",
        "C=sensor.c d",
    ],
    "format": ["json", "influx", "senml", "csv", "form", "text", "avro"],
    "csv_columns": ["time", "time,lat,,lon", " time , temp "],
    "timestamp": ["Timestamp", "a.b|c[*].d", "attribute:ts", "message:time", "$['a b']"],
    "device": ["Device", "attribute:topic/1", "[*]~"],
    "sensor_name": ["data[*].name"],
    "sensor_value": ["data[*].value", "$"],
    "values": ["strict", "lenient"],
    "time_zone": ["UTC", "Europe/Berlin", "Etc/GMT+5"],
    "no_reading": ["dead_letter", "ignore"],
    "statistics": ["mean", "max,mean", " count , min,sum ,stddev,first,last"],
    "group_by_device": ["true", "false"],
    "max_future_skew": ["0s", "10m"],
    "window": ["fixed", "hopping", "session"],
    "interval": ["1s", "15s", "5m", "1h", "999s"],
    "hop": ["5s", "1m"],
    "session_gap": ["60s"],
    "grace_period": ["0s", "0h", "5s"],
    "allowed_lateness": ["0m", "1h", "24h"],
    "on_late": ["dead_letter", "revise"],
    "rows_since": ["2026-11-22T13:00:00Z", "2026-11-22T13:00:00.25+01:00"],
    "write_method": ["streaming_inserts", "storage_write", "upsert"],
    "keep_attributes": ["true", "false"],
    "check_before_launch": ["true", "false"],
}

DURATIONS = ["'15s'", '"15s"', "15", "15 s", "15S", "1.5m", "-5s", "015s", "1h30m", "15sec", "s", " 15s", "15s "]
BOOLEANS = ["True", "TRUE", "yes", "1", "0", "t", "'true'", "truefalse", "true|false", "true "]
TABLES = [
    "readings",
    "sensors.readings",
    "my-project:readings",
    "my-project/d/t",
    "my-project:d.t.u",
    "my-project.d.t.u",
    "my-project:d:t",
]
TOPICS = [
    "t-1",
    "topics/t-1",
    "projects/p/topics/t-1",
    "projects/my-project/topics/1t",
    "projects/my-project/topics/tt",
]
PATHS = [" a", "'a.b'", '"a"']
BAD = {
    "input_subscription": ["projects/my-project/topics/t-1", "s-1", "/projects/my-project/subscriptions/s-1"],
    "input_topic": [*TOPICS, "projects/my-project/subscriptions/s-1", "//projects/my-project/topics/t-1"],
    "timestamp_attribute": ["'timestamp'", '"timestamp"', "time stamp", "timestamp "],
    "id_attribute": ["'reading_id'"],
    "output_table": ["", *TABLES, *(f"`{good}`" for good in GOOD["output_table"])],
    "dead_letter_table": TABLES,
    "dead_letter_topic": TOPICS,
    "silence_after": [*DURATIONS, "0s"],
    "silence_topic": TOPICS,
    "fill_gaps": BOOLEANS,
    "sensors": [
        "Temp,",
        ",Temp",
        "Temp;AtmP",
        "Temp AtmP",
        "2Temp",
        "Température",
        "a-b",
        "Temp,,AtmP",
        "'Temp'",
        "Temp=",
        "Temp='a",
        "=a",
    ],
    "format": ["xml", "JSON", "protobuf", "json,csv"],
    "csv_columns": [",", "'time'", '"a","b"'],
    "timestamp": PATHS,
    "device": PATHS,
    "sensor_name": PATHS,
    "sensor_value": PATHS,
    "values": ["loose", "Lenient", "strict,lenient"],
    "time_zone": ["+01:00", "../UTC", "'UTC'", "2"],
    "no_reading": ["drop", "dead-letter", "Ignore"],
    "statistics": ["average", "Mean", "mean,", ",max", "mean;max", "mean max", "meanmax", "'mean'", "mean,,max"],
    "group_by_device": BOOLEANS,
    "max_future_skew": DURATIONS,
    "window": ["sliding", "Fixed", "fixed,session", "fixedsession"],
    "interval": [*DURATIONS, "0s", "0h"],
    "hop": [*DURATIONS, "0s"],
    "session_gap": [*DURATIONS, "0s"],
    "grace_period": DURATIONS,
    "allowed_lateness": DURATIONS,
    "on_late": ["drop", "dead-letter", "dead_letters"],
    "rows_since": [
        "2026-11-22",
        "2026-11-22T13:00:00",
        "2026-11-22 13:00:00Z",
        "13:00:00Z",
        "1795352400",
        "2026-11-22T24:00:00Z",
        "2026-11-22T13:00:00+00:99",
    ],
    "write_method": ["insert", "Upsert", "storage-write", "STORAGE_WRITE_API"],
    "keep_attributes": BOOLEANS,
    "check_before_launch": BOOLEANS,
}


def cases(values: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, several in values.items() for value in several]


def reads(parameter: Parameter, text: str) -> bool:
    try:
        parameter.value_type.read(text)
    except ValueError:
        return False
    return True


class TestMetadataFile:
    def test_is_what_make_metadata_writes(self):
        assert json.loads(METADATA.read_text()) == template_metadata(), "run: make metadata"

    def test_declares_exactly_once_streaming(self):
        made = template_metadata()
        assert (made["streaming"], made["supportsExactlyOnce"], made["supportsAtLeastOnce"]) == (True, True, False)
        assert made["defaultStreamingMode"] == "EXACTLY_ONCE"


class TestForm:
    def test_has_every_parameter_once_in_contiguous_groups(self):
        groups = [field["groupName"] for field in FIELDS.values() if "groupName" in field]
        assert list(FIELDS) == list(PARAMETERS)
        assert list(dict.fromkeys(groups)) == ["Source", "Readings", "Windows", "Silences", "Target"]
        assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)

    def test_requires_only_the_output_table(self):
        assert [name for name, field in FIELDS.items() if not field["isOptional"]] == ["output_table"]
        assert "Required on Dataflow" in FIELDS["output_table"]["helpText"]

    def test_explains_that_one_of_subscription_and_topic_is_needed(self):
        for name in ("input_subscription", "input_topic"):
            assert re.search("Give either this or a (topic|subscription), not both", FIELDS[name]["helpText"])

    def test_shows_parameters_of_a_window_type_only_for_that_type(self):
        shown = {name: (f["parentName"], f["parentTriggerValues"]) for name, f in FIELDS.items() if "parentName" in f}
        assert shown.pop("csv_columns") == ("format", ["csv"])
        assert shown == {
            "interval": ("window", ["fixed", "hopping"]),
            "hop": ("window", ["hopping"]),
            "session_gap": ("window", ["session"]),
            "fill_gaps": ("window", ["fixed", "hopping"]),
        }

    def test_labels_each_choice_that_the_regex_accepts(self):
        enums = {name: field["enumOptions"] for name, field in FIELDS.items() if field["paramType"] == "ENUM"}
        assert {name: [o["value"] for o in options] for name, options in enums.items()} == {
            "format": ["json", "influx", "senml", "csv", "form", "text", "avro"],
            "values": ["strict", "lenient"],
            "no_reading": ["dead_letter", "ignore"],
            "window": ["fixed", "hopping", "session"],
            "on_late": ["dead_letter", "revise"],
            "write_method": ["streaming_inserts", "storage_write", "upsert"],
        }
        assert all(option["label"] for options in enums.values() for option in options)

    def test_uses_only_fields_of_the_service(self):
        known = {"name", "label", "helpText", "paramType", "isOptional", "regexes", "groupName", "parentName"}
        known |= {"parentTriggerValues", "enumOptions", "defaultValue"}
        types = {"TEXT", "PUBSUB_TOPIC", "PUBSUB_SUBSCRIPTION", "BIGQUERY_TABLE", "BOOLEAN", "ENUM"}
        for field in FIELDS.values():
            assert field.keys() <= known
            assert field["paramType"] in types


class TestRegexes:
    def test_are_anchored_and_posix(self):
        for field in FIELDS.values():
            [regex] = field["regexes"]
            assert regex.startswith("^(")
            assert regex.endswith((")$", ")?$"))
            assert not re.search(r"\\|\(\?", regex), "egrep has no \\d, \\w or lookaround"
            # POSIX promises repeats up to 255.
            assert all(int(most) <= 255 for most in re.findall(r"\{\d+,(\d+)\}", regex))

    @pytest.mark.parametrize(("name", "value"), cases(GOOD))
    def test_accept_what_the_pipeline_accepts(self, name, value):
        assert egrep(FIELDS[name]["regexes"][0], value)
        assert reads(PARAMETERS[name], value)

    @pytest.mark.parametrize(("name", "value"), cases(BAD))
    def test_refuse_near_misses_as_the_pipeline_does(self, name, value):
        assert not egrep(FIELDS[name]["regexes"][0], value)
        assert not reads(PARAMETERS[name], value)

    @pytest.mark.parametrize("name", FIELDS)
    def test_accept_the_default_or_a_blank(self, name):
        field = FIELDS[name]
        assert egrep(field["regexes"][0], field.get("defaultValue", "")) == (name != "output_table")
        assert field["isOptional"] == egrep(field["regexes"][0], "")

    def test_accept_every_example_in_the_docs(self):
        pairs = re.findall(r"^(\w+)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
        pages = "\n".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
        text = Template(pages).safe_substitute(dict(pairs))
        examples = re.findall(
            rf"(?:(?<=--)|(?<![\w-]))({'|'.join(FIELDS)})=([^\s`'\"~;)\\]+?)(?=[\s`'\"~;)\\]|,\s|,\w+=)", text
        )
        assert {"timestamp_attribute", "input_subscription", "output_table", "group_by_device"} <= dict(examples).keys()
        assert [(n, v) for n, v in examples if not egrep(FIELDS[n]["regexes"][0], v)] == []

    def test_cover_every_parameter(self):
        assert GOOD.keys() == BAD.keys() == FIELDS.keys()


@settings(max_examples=200, deadline=None)
@given(st.from_regex(re.compile(PARAMETERS["output_table"].value_type.pattern, re.ASCII), fullmatch=True))
def test_table_id_parses_every_text_that_the_pattern_accepts(text):
    assume(len(text) < 60)
    assert str(TableId.parse(text)).replace(":", ".") == text.replace(":", ".")


def test_fake_service_accepts_every_default():
    given_ = {"output_table": "my-project:d.t"} | {name: p.default for name, p in PARAMETERS.items() if p.default}
    assert faults(template_metadata(), given_) == []
