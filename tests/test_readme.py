"""The pages agree with the code: parameters, make targets, files, metrics, names and versions."""

import re
import subprocess
from pathlib import Path

import pytest

from deploy.monitoring.metrics import OWN, REFUSALS
from deploy.monitoring.page import google_metrics, own_metrics
from deploy.template import recipes
from deploy.template.reference import HEADING, reference
from pipeline.launch.parameters import PARAMETERS
from pipeline.version import VERSION

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("pipeline", "redrive", "publisher", "local")


def test_parameter_reference_equals_the_declared_parameters():
    page = (ROOT / "docs/parameters.md").read_text()
    assert page.partition(HEADING)[2] == reference(), "run: make metadata"
    assert re.findall(r"^- `(\w+)`", page, re.MULTILINE) == list(PARAMETERS)


def test_page_of_messages_is_generated_from_their_file():
    assert (ROOT / "docs/messages.md").read_text() == recipes.page(), "run: make metadata"


def test_pages_name_existing_make_targets():
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", pages, re.MULTILINE))
    targets = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert named
    assert named <= set(re.findall(r"make ([a-z-]+)", targets))


def test_contributing_lists_every_module_of_the_pipeline():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for module in (ROOT / "pipeline").rglob("[a-z]*.py"):
        assert f" {module.name} " in page, module.name


def test_links_lead_to_existing_files_and_headings():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    assert len(links) > 10
    for page, link in links:
        if not link.startswith("https://"):
            file, _, heading = link.partition("#")
            target = (page.parent / file) if file else page
            assert target.exists(), f"{page.name}: {link}"
            assert not heading or heading in _anchors(target.read_text()), f"{page.name}: {link}"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_metrics_list_equals_the_counters_of_the_code():
    code = "".join(module.read_text() for module in (ROOT / "pipeline").rglob("*.py"))
    counted = set(re.findall(r'Metrics\.\w+\(METRICS, f?"(\w+)', code))
    assert {metric.name.removesuffix("<error>") for metric in OWN} == counted
    # TooManyRefused stands for items that are counted by their own errors.
    rejections = set(re.findall(r"^class (\w+)\((?:InvalidReading|BadTimestamp)\)", code, re.MULTILINE))
    assert set(REFUSALS) == rejections - {"TooManyRefused"}


@pytest.mark.parametrize("metrics", [own_metrics(), google_metrics()], ids=["own", "google"])
def test_metric_lists_equal_the_metrics(metrics):
    assert f"\n\n{metrics}\n\n" in (ROOT / "docs/operate.md").read_text()


def test_glossary_defines_each_term_once_in_alphabetical_order():
    terms = re.findall(r"^\*\*([^*]+)\*\*", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert len(terms) > 40
    assert terms == sorted(set(terms))


def test_glossary_names_exist_in_the_code_and_cover_the_metrics():
    names = set(re.findall(r"`([^`]+)`", (ROOT / "docs/glossary.md").read_text()))
    code = "".join(module.read_text() for package in PACKAGES for module in (ROOT / package).rglob("*.py"))
    assert {name for name in names if name not in code} == set()
    assert {metric.name.removesuffix("<error>") for metric in OWN} <= names


def test_changelog_says_how_to_update_to_each_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, newest, *older = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert unreleased.startswith("[Unreleased]\n")
    assert newest.startswith(f"[{VERSION}] - ")
    assert all(re.match(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d\n", version) for version in (newest, *older))
    # There is nothing to update from to the first version, and nothing to say of no entries.
    for version in [*([unreleased] if "### " in unreleased else []), newest, *older[:-1]]:
        assert re.search(r"\*\*Update: (drain first|update in place)\b", version), version.partition("\n")[0]
