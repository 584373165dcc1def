"""What the README says of parameters, targets and files is so."""

import re
import subprocess
from pathlib import Path

from pipeline.dead_letters import PIPELINE_VERSION
from pipeline.options import PARAMETERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_parameter_table_is_that_of_the_options():
    rows = [f"| `{p.name}` | {p.type} | {f'`{p.default}`' if p.default else ''} | {p.help} |" for p in PARAMETERS]
    table = README.partition("| name | type | default | meaning |\n| --- | --- | --- | --- |\n")[2].partition("\n\n")[0]
    assert table.splitlines() == rows


def test_every_make_target_it_names_exists():
    both = README + (ROOT / "benchmarks" / "README.md").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", both, re.MULTILINE))
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert named
    assert named <= set(re.findall(r"make ([a-z-]+)", help_text))


def test_every_module_of_the_pipeline_is_in_the_map():
    for module in (ROOT / "pipeline").glob("[a-z]*.py"):
        assert f" {module.name} " in README, module.name


def test_dead_letters_carry_the_version_of_the_package():
    assert f'version="{PIPELINE_VERSION}"' in (ROOT / "setup.py").read_text()


def test_every_metric_is_in_the_table():
    code = "".join(module.read_text() for module in (ROOT / "pipeline").glob("*.py"))
    named = set(re.findall(r'Metrics\.\w+\(METRICS, f?"(\w+)', code))
    assert len(named) > 10
    for metric in named - {"refused_"}:
        assert f"`{metric}`" in README, metric
    for error in re.findall(r"^class (\w+)\((?:Refused|BadTimestamp)\)", code, re.MULTILINE):
        assert f"`{error}`" in README, error
