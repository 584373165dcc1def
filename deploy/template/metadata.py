"""Writes metadata.json, the form of the template, from the parameters in pipeline/launch/parameters.py.

Its fields: https://cloud.google.com/dataflow/docs/reference/rest/v1b3/TemplateMetadata
"""

import json
from pathlib import Path
from typing import Any

from pipeline.launch.parameters import PARAMETERS, Parameter

METADATA = Path(__file__).parents[2] / "metadata.json"


def template_metadata() -> dict[str, Any]:
    """Return the content of metadata.json."""
    return {
        "name": "Sensor Stream",
        "description": "Reads sensor readings from Pub/Sub and writes one row of statistics per interval to BigQuery.",
        "streaming": True,
        # In at-least-once mode a reading may count twice, and a row may be written twice.
        "supportsAtLeastOnce": False,
        "supportsExactlyOnce": True,
        "defaultStreamingMode": "EXACTLY_ONCE",
        "parameters": [_field(name, parameter) for name, parameter in PARAMETERS.items()],
    }


def _field(name: str, parameter: Parameter) -> dict[str, Any]:
    # An optional parameter that is left blank arrives as empty text.
    blank = "" if parameter.required else "?"
    field: dict[str, Any] = {
        "name": name,
        "label": parameter.label,
        "helpText": parameter.help,
        "paramType": parameter.type,
        "isOptional": not parameter.required,
        "regexes": [f"^({parameter.value_type.pattern}){blank}$"],
    }
    if parameter.default:
        field["defaultValue"] = parameter.default
    if parameter.value_type.choices:
        field["enumOptions"] = [
            {"value": value, "label": label} for value, label in parameter.value_type.choices.items()
        ]
    if parameter.shown_when:
        parent, values = parameter.shown_when
        return {**field, "parentName": parent, "parentTriggerValues": list(values)}
    # The form ignores the group of a parameter that has a parent.
    return {**field, "groupName": parameter.group}


if __name__ == "__main__":
    METADATA.write_text(json.dumps(template_metadata(), indent=2, allow_nan=False) + "\n")
