"""The script that writes schema.json, without the wheel that it reads."""

import json
import re

from tests.deploy.terraform.schema import RESOURCES, SCHEMA


def test_resources_are_those_of_schema_json():
    assert RESOURCES.keys() == json.loads(SCHEMA.read_text())["resources"].keys()


def test_resources_name_a_package_and_a_module():
    assert {path for path in RESOURCES.values() if not re.fullmatch("[a-z0-9]+/[a-z_]+", path)} == set()
