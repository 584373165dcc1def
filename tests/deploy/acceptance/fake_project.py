"""A fake of the services that acceptance calls through gcloud, with a Dataflow that runs jobs on this machine.

The launcher runs as in tests.deploy.template.fake_google. Then the local pipeline runs with the job's parameters on the
emulators of Pub/Sub and BigQuery. `made` holds the paths of existing resources.
"""

import base64
import hashlib
import json
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import requests

from local.stack.emulators import all_rows, bigquery_client
from local.stack.processes import running
from tests.deploy.template.fake_google import BUILDS, IMAGE, JOB, LAUNCH, ROOT, FakeGoogle

Answer = tuple[int, dict[str, Any]]

BUILD = re.compile(r"/v1/projects/[^/]+/(?:locations/[^/]+/)?builds/([^/:]+)").fullmatch
JOBS = re.compile(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs").fullmatch
CREATE = {
    "bucket": re.compile(r"/storage/v1/b").fullmatch,
    "repository": re.compile(r"/v1/projects/[^/]+/locations/[^/]+/repositories").fullmatch,
    "account": re.compile(r"/v1/projects/[^/]+/serviceAccounts").fullmatch,
}
ONE = re.compile(
    r"/storage/v1/b/(?P<bucket>[^/]+)|/v1/projects/[^/]+/locations/[^/]+/repositories/(?P<repository>[^/:]+)"
    r"|/v1/projects/[^/]+/serviceAccounts/(?P<account>[^/:]+)"
).fullmatch
PUBSUB = re.compile(r"/v1/projects/[^/]+/(topics|subscriptions)/[^/]+").fullmatch
OBJECTS = re.compile(r"/storage/v1/b/[^/]+/(o|storageLayout|managedFolders)(/.+)?").fullmatch
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o").fullmatch
POLICY = re.compile(r"(/.+)(?::getIamPolicy|:setIamPolicy|/iam)").fullmatch


@dataclass
class FakeProject(FakeGoogle):
    """The project. It answers requests whose path contains `refuse` with an error."""

    made: set[str] = field(default_factory=set)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: ExitStack = field(default_factory=ExitStack)
    names: list[str] = field(default_factory=list)  # names of jobs
    table: str = ""
    refuse: str = ""

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Return the status and body of the answer to a request."""
        if self.refuse and self.refuse in path:
            return 403, {"error": {"code": 403, "message": f"refused: {path}", "status": "PERMISSION_DENIED"}}
        if match := POLICY(path):
            if body.get("policy") or method == "PUT":
                self.policies[match[1]] = body.get("policy", body)
            return 200, self.policies.get(match[1], {"version": 1})
        return self._resource(method, path, body) or self._work(method, path, body)

    def _resource(self, method: str, path: str, body: dict[str, Any]) -> Answer | None:
        """Return the answer to a request that creates or deletes a resource; None for other requests."""
        if PUBSUB(path):
            # The Pub/Sub emulator has no policies.
            answer = requests.request(
                method, f"http://{self.emulators['PUBSUB_EMULATOR_HOST']}{path}", json=body, timeout=60
            )
            return answer.status_code, answer.json()
        for kind, is_one in CREATE.items():
            if method == "POST" and is_one(path):
                name = body.get("accountId") or body["name"].rpartition("/")[2]
                self.made.add(f"{kind} {name}")
                return 200, _operation(path) if kind == "repository" else {"name": name}
        if OBJECTS(path):
            return 200, {"items": []}
        if match := ONE(path):
            [(kind, name)] = [(kind, name) for kind, name in match.groupdict().items() if name]
            if method == "DELETE":
                self.made.discard(f"{kind} {name.partition('@')[0]}")
                return 200, _operation(path)
            return 200, {"name": path[4:]}
        return None

    def _work(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if path.endswith("services:batchEnable"):
            return 200, {"name": "operations/noop.DONE_OPERATION", "done": True}
        if match := BUILD(path):
            return 200, {"id": match[1], "status": "SUCCESS"}
        if BUILDS(path):
            self._build(body["substitutions"])
        if LAUNCH(path):
            return self._run(path, body["launchParameter"])
        if path.endswith("/metrics"):
            rows = len(all_rows(self._bigquery(), self.table))
            return 200, {"metrics": [{"name": {"origin": "user", "name": "rows"}, "scalar": rows}]}
        if JOBS(path):
            active = [job for job, launch in enumerate(self.launches) if launch.state == "JOB_STATE_RUNNING"]
            times = {"createTime": "2026-11-24T13:00:00Z", "currentStateTime": "2026-11-24T13:03:00Z"}
            return 200, {"jobs": [{"id": str(job), "name": self.names[job], **times} for job in active]}
        if JOB(path) and method == "PUT":
            self.running.close()
        return super().answer(method, path, body)

    def store(self, path: str, content: bytes) -> Answer:
        """Store an upload of two parts, metadata and content."""
        boundary = content.split(b"\r\n" if b"\r\n" in content[:80] else b"\n", 1)[0]
        part = content.split(boundary)[2].partition(b"\n\n")[2].rstrip(b"\n")
        digest = base64.b64encode(hashlib.md5(part, usedforsecurity=False).digest()).decode()
        match = UPLOAD(path)
        assert match
        return 200, {"bucket": match[1], "name": "source", "generation": "1", "size": str(len(part)), "md5Hash": digest}

    def _build(self, substitutions: dict[str, str]) -> None:
        spec = self.path(f"gs://{substitutions['_BUCKET']}/templates/{substitutions['_TAG']}.json")
        spec.parent.mkdir(parents=True)
        metadata = json.loads((ROOT / "metadata.json").read_text())
        spec.write_text(json.dumps({"image": IMAGE, "metadata": metadata, "sdkInfo": {"language": "PYTHON"}}))

    def _run(self, path: str, asked: dict[str, Any]) -> Answer:
        answer = super().answer("POST", path, {"launchParameter": asked})
        launch = self.launches[-1]
        self.names.append(asked["jobName"])
        if launch.exit_code:
            return answer
        self.running.close()
        if asked.get("update"):
            self.launches[-2].state = "JOB_STATE_UPDATED"
        parameters = asked["parameters"]
        self.table = parameters["output_table"].replace(":", ".")
        command = [sys.executable, "-m", "local", "pipeline", *(f"--{k}={v}" for k, v in parameters.items())]
        self.running.enter_context(running("the job", command, launch.directory / "job.log", self.emulators))
        return answer

    def _bigquery(self) -> Any:
        return bigquery_client(self.emulators["BIGQUERY_EMULATOR_HOST"].removeprefix("http://"), "sensor-stream-test")


def _operation(path: str) -> dict[str, Any]:
    """Return a long-running operation that has finished."""
    place = re.match(r"/v1/(projects/[^/]+/locations/[^/]+)/", path)
    return {"name": f"{place[1]}/operations/1" if place else "", "done": True}
