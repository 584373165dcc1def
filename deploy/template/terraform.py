"""Writes deploy/terraform/parameters.tf, a variable for each parameter in pipeline/launch/parameters.py."""

import json
from pathlib import Path

from pipeline.launch.parameters import PARAMETERS, Parameter

VARIABLES = Path(__file__).parents[2] / "deploy/terraform/parameters.tf"

_HEAD = """\
# Written by `make metadata` from pipeline/launch/parameters.py. Null: the default of the template.

locals {
  template_parameters = {
"""


def variables() -> str:
    """Return the text of deploy/terraform/parameters.tf, formatted as by `terraform fmt`."""
    width = max(map(len, PARAMETERS))
    pairs = [f"    {name:<{width}} = var.{name}\n" for name in PARAMETERS]
    return _HEAD + "".join(pairs) + "  }\n}\n" + "".join(_variable(*each) for each in PARAMETERS.items())


def _variable(name: str, parameter: Parameter) -> str:
    default = f" Default: {parameter.default}." if parameter.default else ""
    # Parameters of a template are text, and Terraform converts true and 5 to text.
    return f"""
variable "{name}" {{
  description = {_quoted(parameter.help + default)}
  type        = string
  default     = null

  validation {{
    condition     = var.{name} == null || can(regex({_quoted(f"^({parameter.value_type.pattern})$")}, var.{name}))
    error_message = {_quoted(f"Expected {parameter.value_type.expected}.")}
  }}
}}
"""


def _quoted(text: str) -> str:
    """Return the text as an HCL literal."""
    return json.dumps(text, ensure_ascii=False, allow_nan=False).replace("${", "$${").replace("%{", "%%{")


if __name__ == "__main__":
    VARIABLES.write_text(variables())
