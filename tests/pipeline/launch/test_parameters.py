"""The type that a parameter is declared with is the type that its text is read as."""

import dataclasses
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

import pytest

from pipeline.launch.parameters import PARAMETERS, Parameters

TYPES = get_type_hints(Parameters)
# A value for each parameter that has no default.
EXAMPLES = {
    "input_subscription": "projects/test-project/subscriptions/readings",
    "input_topic": "projects/test-project/topics/readings",
    "timestamp_attribute": "timestamp",
    "id_attribute": "reading_id",
    "csv_columns": "time,temperature",
    "sensor_name": "data[*].name",
    "sensor_value": "data[*].value",
    "hop": "5s",
    "rows_since": "2026-11-22T13:00:00Z",
    "silence_after": "5m",
    "silence_topic": "projects/test-project/topics/silences",
    "output_table": "test-project:sensors.readings",
    "dead_letter_table": "test-project:sensors.dead_letters",
    "dead_letter_topic": "projects/test-project/topics/dead-letters",
}


def alternatives(name: str) -> set[type]:
    declared = TYPES[name]
    members = get_args(declared) if isinstance(declared, UnionType) else [declared]
    return {get_origin(member) or member for member in members}


def test_parameters_are_declared_once_for_form_and_job():
    assert list(PARAMETERS) == [field.name for field in dataclasses.fields(Parameters)]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_is_read_as_its_declared_type(name):
    parameter = PARAMETERS[name]
    text = parameter.default or EXAMPLES[name]
    assert type(parameter.value_type.read(text)) in alternatives(name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_may_be_none_only_without_a_default(name):
    assert (NoneType in alternatives(name)) == (not PARAMETERS[name].default)
