"""Roles that commands grant to accounts; deploy/accounts.sh is the reference for deploy/terraform/ and acceptance/."""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

_BINDING = re.compile(
    r"gcloud (?P<kind>.*) add-iam-policy-binding (?P<name>\S+) .*--member=serviceAccount:(?P<account>.*?)@.*"
    r"--role=roles/(?P<role>\S+)"
).match
_ON_DATASET = re.compile(
    r"bq query .*GRANT `roles/(?P<role>\S+)` ON SCHEMA `(?P<name>\S+)` TO 'serviceAccount:(?P<account>.*?)@"
).match


class Grant(NamedTuple):
    """A role of an account on a resource; `kind` is gcloud's group of commands, or dataset."""

    role: str
    account: str
    kind: str
    name: str


def granted(commands: Iterable[str]) -> list[Grant]:
    """Return the grants among commands of gcloud and bq, sorted."""
    found = (_BINDING(command) or _ON_DATASET(command) for command in commands)
    return sorted(Grant(**({"kind": "dataset"} | match.groupdict())) for match in found if match)


def granted_by_script(folder: Path) -> list[Grant]:
    """Return the grants of deploy/accounts.sh with the names sensor-stream; `folder` takes stubs of gcloud and bq."""
    calls = folder / "calls"
    for tool in ("gcloud", "bq"):
        (folder / tool).write_text(f'#!/bin/sh\necho "{tool} $*" >> {calls}\n')
        (folder / tool).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "PROJECT_ID": "my-project", "REGION": "europe-west1"}
    env |= {"BUCKET_NAME": "my-project-sensor-stream", "SUBSCRIPTION_NAME": "sensor-stream"}
    env |= {"BQ_TABLE": "my-project:sensor_stream.readings"}
    subprocess.run([ROOT / "deploy/accounts.sh"], env=env, check=True)
    return granted(calls.read_text().splitlines())
