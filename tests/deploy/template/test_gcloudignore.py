"""The real `gcloud builds submit` uploads what is under version control."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SECRETS = [
    ".env",
    ".env.local",
    "credentials.json",
    "sa-key.json",
    "key.pem",
    "terraform.tfvars",
    "terraform.tfstate",
    "notes.txt",
    "docs/images/sa-key.json",
    "deploy/monitoring/sub/sa-key.json",
    "pipeline/application_default_credentials.json",
    "publisher/.env",
    "deploy/terraform/examples/minimal/terraform.tfvars",
    "deploy/terraform/examples/minimal/terraform.tfvars.json",
    "deploy/terraform/examples/minimal/.terraform/modules.py",
    "tests/deploy/template/key.json",
    ".venv/lib/module.py",
    "build/sbom/made.py",
    "pipeline/__pycache__/x.py",
]


def uploaded(folder: Path, env: dict[str, str]) -> set[str]:
    """Return the names of the files that gcloud would upload from the folder."""
    command = ["gcloud", "meta", "list-files-for-upload", str(folder)]
    return set(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines())


def write(folder: Path, name: str) -> None:
    """Write a file, and its folder."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("content")


def test_upload_holds_sources_and_no_secret(tmp_path, gcloud_env) -> None:
    sources = {
        "Makefile",
        "cloudbuild.yaml",
        "pipeline/main.py",
        "deploy/terraform/job.tf",
        "deploy/monitoring/alerts/backlog.json",
    }
    for name in (*SECRETS, *sources):
        write(tmp_path, name)
    shutil.copy(ROOT / ".gcloudignore", tmp_path)
    assert uploaded(tmp_path, gcloud_env) == {*sources, ".gcloudignore"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an uploaded copy is not under version control")
def test_upload_holds_what_is_under_version_control(tmp_path, gcloud_env) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.splitlines() if (ROOT / name).exists()}
    for name in tracked:
        write(tmp_path, name)
    shutil.copy(ROOT / ".gcloudignore", tmp_path)
    assert uploaded(tmp_path, gcloud_env) == tracked
