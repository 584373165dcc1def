"""deploy/terraform/parameters.tf has a variable for each parameter of the template."""

import re

from deploy.template.terraform import VARIABLES, variables
from pipeline.launch.parameters import PARAMETERS


def test_it_is_what_the_parameters_make():
    assert variables() == VARIABLES.read_text(), "run: make metadata"


def test_no_other_variable_of_the_module_has_a_parameters_name():
    names = re.findall(r'^variable "(\w+)"', (VARIABLES.with_name("variables.tf")).read_text(), re.MULTILINE)
    assert len(names) > 10
    assert not set(names) & PARAMETERS.keys()


def test_text_is_quoted_as_hcl_reads_it():
    from deploy.template.terraform import _quoted

    assert _quoted('a "b" \\ ${c} %{d}') == '"a \\"b\\" \\\\ $${c} %%{d}"'
