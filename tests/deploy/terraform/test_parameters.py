"""deploy/terraform/parameters.tf has a variable for each parameter of the template."""

import re

from deploy.template.terraform import VARIABLES, variables
from pipeline.launch.parameters import PARAMETERS


def test_parameters_tf_is_what_make_metadata_writes():
    assert variables() == VARIABLES.read_text(), "run: make metadata"


def test_variables_tf_shares_no_name_with_a_parameter():
    names = re.findall(r'^variable "(\w+)"', (VARIABLES.with_name("variables.tf")).read_text(), re.MULTILINE)
    assert len(names) > 10
    assert not set(names) & PARAMETERS.keys()


def test_quoted_text_is_read_unchanged_by_hcl():
    from deploy.template.terraform import _quoted

    assert _quoted('a "b" \\ ${c} %{d}') == '"a \\"b\\" \\\\ $${c} %%{d}"'
