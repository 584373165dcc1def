"""Name, type, default and necessity of each parameter: a new version takes the parameters of a running job."""

from deploy.template.metadata import template_metadata
from pipeline.launch.parameters import PARAMETERS
from tests.contract.golden import ACCEPT, golden


def test_parameters_keep_names_types_and_defaults():
    now = {
        field["name"]: {
            "type": field["paramType"],
            "required": not field["isOptional"],
            "default": PARAMETERS[field["name"]].default,
        }
        for field in template_metadata()["parameters"]
    }
    assert now == golden("parameters", now), (
        "\nA parameter may be added, if it is optional and its default changes nothing. Every other change breaks "
        f"launches that worked, and needs a new major version. To accept the change, run\n  {ACCEPT}\n"
    )
