"""The files in deploy/monitoring/, checked with Google's own types and the real gcloud."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import pytest
from google.cloud.monitoring_dashboard_v1 import Dashboard
from google.cloud.monitoring_v3 import AlertPolicy

from deploy.monitoring.__main__ import FOLDER, files, text
from deploy.monitoring.alerts import ALERTS, DEAD_LETTERS_IN_LOG, LOG_METRICS
from deploy.monitoring.metrics import GOOGLE, OWN, REFUSALS
from tests.deploy.template.fake_google import ROOT, serving

PLACES = {"job_name": "sensors", "subscription": "sensor-readings-pipeline", "runbook": "https://example.com/runbook"}
COUNTERS = {metric.name for metric in OWN if "<" not in metric.name} | {f"refused_{error}" for error in REFUSALS}


def test_files_are_those_that_make_monitoring_writes():
    held = {str(file.relative_to(FOLDER)): file.read_text() for file in FOLDER.rglob("*.json")}
    assert held == {path: text(content) for path, content in files().items()}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alert_is_a_policy_that_links_its_runbook_section(alert):
    policy = AlertPolicy.from_json(filled(f"alerts/{alert.name}.json"))
    assert len(policy.conditions) == 1
    assert f"(https://example.com/runbook#{alert.name})" in policy.documentation.content
    assert f"\n## {alert.name}\n" in (ROOT / "docs/runbook.md").read_text()


def test_policy_type_refuses_a_misspelt_field():
    with pytest.raises(Exception, match="thresholdvalue"):
        AlertPolicy.from_json(filled("alerts/backlog.json").replace("thresholdValue", "thresholdvalue"))


def test_dashboard_charts_every_metric_but_the_distribution():
    content = filled("dashboard.json")
    assert len(Dashboard.from_json(content).grid_layout.widgets) == 17
    charted = types(content) | {f"dataflow.googleapis.com/job/{name}" for name in ("user_counter",)}
    assert charted == {metric.type for metric in GOOGLE} | {f"logging.googleapis.com/user/{DEAD_LETTERS_IN_LOG}"}
    assert matched(content) == COUNTERS - {"seconds_to_row"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alert_condition_queries_the_metrics_of_the_alert(alert):
    content = filled(f"alerts/{alert.name}.json")
    assert types(content) <= {metric.type for metric in GOOGLE}
    own = {name for name in COUNTERS if name in alert.metrics}
    refused = {name for name in COUNTERS if name.startswith("refused_") and "refused_<error>" in alert.metrics}
    # One alert matches lines of the log, not the counter of these lines.
    assert matched(content) == (own | refused) - {"dead_letter_failures"}


def test_files_have_only_the_three_placeholders():
    for path in files():
        assert set(re.findall(r"\$\{(\w+)}", (FOLDER / path).read_text())) <= set(PLACES), path
        assert "%{" not in (FOLDER / path).read_text(), path  # Terraform's templatefile would read it


def test_log_metric_matches_the_line_that_the_sink_logs():
    line = re.search(r'_LOGGER\.error\("([^"(]+) \(', (ROOT / "pipeline/sinks/rejected_rows.py").read_text())
    assert line
    assert f'jsonPayload.message : "{line[1]}"' in LOG_METRICS["dead_letters_in_log"]["filter"]


@dataclass
class FakeMonitoring:
    """Cloud Monitoring and Cloud Logging; records the requests."""

    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Record a body by the type of its resource, and return it with a name."""
        kind = path.rpartition("/")[2]
        self.kept.setdefault(kind, []).append(body)
        return 200, {"name": f"projects/sensor-stream-test/{kind}/1", **body}


def test_documented_commands_create_alerts_and_dashboard(gcloud_env, tmp_path):
    # gcloud takes two seconds for each, so one alert of each condition type.
    kinds = {next(key for key in alert.condition if key.startswith("condition")): alert.name for alert in ALERTS}
    assert len(kinds) == 4
    shutil.copytree(FOLDER, tmp_path / "deploy/monitoring")
    for alert in (tmp_path / "deploy/monitoring/alerts").glob("*.json"):
        if alert.stem not in kinds.values():
            alert.unlink()

    page = (ROOT / "docs/operate.md").read_text()
    lines = re.search(r"```sh\n(export job_name.*?)```", page, re.DOTALL)[1]
    google = FakeMonitoring()
    with serving(google) as address:
        services = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": address for name in ("MONITORING", "LOGGING")}
        given = {
            "SUBSCRIPTION_NAME": PLACES["subscription"],
            "RUNBOOK": PLACES["runbook"],
            "EMAIL": "a@example.com",
        }
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            cwd=tmp_path,
            env={**gcloud_env, **services, **given},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    kept = google.kept
    assert [channel["type"] for channel in kept["notificationChannels"]] == ["email"]
    assert kept["metrics"] == [LOG_METRICS["dead_letters_in_log"]]
    assert kept["dashboards"] == [json.loads(filled("dashboard.json"))]
    channel = {"notificationChannels": ["projects/sensor-stream-test/notificationChannels/1"]}
    by_name = sorted(kinds.values())
    assert kept["alertPolicies"] == [json.loads(filled(f"alerts/{name}.json")) | channel for name in by_name]


def filled(path: str) -> str:
    """Return a file with its placeholders replaced, as by `envsubst`."""
    return Template((FOLDER / Path(path)).read_text()).substitute(PLACES)


def types(content: str) -> set[str]:
    """Return the types of metrics in filters."""
    return set(re.findall(r'metric\.type = \\"([^\\]+)\\"', content))


def matched(content: str) -> set[str]:
    """Return the own counters that conditions query, by name or by pattern."""
    patterns = re.findall(r'metric_name(?:=~| = )\\"([^\\]+)\\"', content)
    return {name for name in COUNTERS if any(re.fullmatch(pattern, name) for pattern in patterns)}
