"""A provider with the resources of schema.json that creates nothing, for plans and applies of the real terraform.

Terraform itself checks every argument and block against the schema. The stand-in invents Google's answers, with ids in
the form that the provider documents.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
from grpc_tools import protoc

from tests.deploy.terraform.schema import SCHEMA

RESOURCES = json.loads(SCHEMA.read_text())["resources"]
UNKNOWN = msgspec.msgpack.Ext(0, b"\x00")
LIST = 3
EMPTY: dict[str, Any] = {"string": "", "number": 0, "bool": False, "list": [], "map": {}}

IDS = {
    "google_pubsub_topic": "projects/{project}/topics/{name}",
    "google_pubsub_subscription": "projects/{project}/subscriptions/{name}",
    "google_service_account": "projects/{project}/serviceAccounts/{account_id}@{project}.iam.gserviceaccount.com",
    "google_monitoring_dashboard": "projects/1234/dashboards/a-dashboard",
    "google_monitoring_notification_channel": "projects/{project}/notificationChannels/1",
}


def _kind(words: str) -> Any:
    """Return a type of schema.json in Terraform's notation."""
    outer, of, inner = words.partition(" of ")
    return [outer, _kind(inner)] if of else outer


def _block(messages: Any, block: dict[str, Any]) -> Any:
    made = messages.Schema.Block()
    for name, words in block["attributes"].items():
        kind, rule = words.rsplit(" ", 1)
        made.attributes.add(name=name, type=json.dumps(_kind(kind)).encode(), **{rule: True})
    for name, inner in block["blocks"].items():
        at_most = 0 if inner["repeated"] else 1
        made.block_types.add(
            type_name=name,
            block=_block(messages, inner),
            nesting=LIST,
            min_items=int(inner["required"]),
            max_items=at_most,
        )
    return made


def _computed(resource: str) -> list[str]:
    return [name for name, words in RESOURCES[resource]["attributes"].items() if words.endswith(" computed")]


def planned(resource: str, proposed: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the planned state: computed values are unknown, unless the prior state has them."""
    if proposed is None:
        return None
    return proposed | {name: UNKNOWN for name in _computed(resource) if proposed[name] is None}


def applied(resource: str, plan: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the state after the apply."""
    if plan is None:
        return None
    known: dict[str, Any] = {"id": IDS.get(resource, f"{resource}/id").format(**plan), "job_id": "2026-11-24_a-job"}
    known["email"] = known["id"].rpartition("/")[2]
    if resource == "google_project_service_identity":
        known["email"] = f"service-1234@gcp-sa-{plan['service'].partition('.')[0]}.iam.gserviceaccount.com"
    kinds = RESOURCES[resource]["attributes"]
    said = {
        name: known.get(name, EMPTY[kinds[name].split()[0]]) for name in _computed(resource) if plan[name] == UNKNOWN
    }
    return plan | said


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the provider, with its files in `folder`; yields the environment in which terraform uses it."""
    source = Path(__file__).with_name("provider.proto")
    protoc.main(["protoc", f"-I{source.parent}", f"--python_out={folder}", str(source)])
    sys.path.insert(0, str(folder))
    import provider_pb2 as messages

    sys.path.remove(str(folder))

    def value(content: Any) -> Any:
        return messages.DynamicValue(msgpack=msgspec.msgpack.encode(content))

    def content(value: Any) -> Any:
        return msgspec.msgpack.decode(value.msgpack)

    schemas = {name: messages.Schema(block=_block(messages, block)) for name, block in RESOURCES.items()}
    project = messages.Schema.Attribute(name="project", type=b'"string"', optional=True)
    provider = messages.Schema(block=messages.Schema.Block(attributes=[project]))

    def no_complaint(_: Any) -> Any:
        return messages.Empty()

    answers: dict[str, tuple[type, Callable[[Any], Any]]] = {
        "GetProviderSchema": (
            messages.Empty,
            lambda _: messages.Provider(provider=provider, resource_schemas=schemas),
        ),
        "ValidateProviderConfig": (messages.Empty, no_complaint),
        "ValidateResourceConfig": (messages.Empty, no_complaint),
        "ConfigureProvider": (messages.Empty, no_complaint),
        "StopProvider": (messages.Empty, no_complaint),
        "UpgradeResourceState": (
            messages.Upgrade,
            lambda asked: messages.Upgraded(upgraded_state=value(json.loads(asked.raw_state.json))),
        ),
        "ReadResource": (messages.Read, lambda asked: messages.State(new_state=asked.current_state)),
        "PlanResourceChange": (
            messages.Plan,
            lambda asked: messages.Planned(
                planned_state=value(planned(asked.type_name, content(asked.proposed_new_state)))
            ),
        ),
        "ApplyResourceChange": (
            messages.Apply,
            lambda asked: messages.State(new_state=value(applied(asked.type_name, content(asked.planned_state)))),
        ),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda asked, _, answer=answer: answer(asked),
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name, (request, answer) in answers.items()
    }
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("tfplugin6.Provider", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    attached = {
        "Protocol": "grpc",
        "ProtocolVersion": 6,
        "Pid": os.getpid(),
        "Test": True,  # terraform must not stop it
        "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
    }
    names = [f"registry.terraform.io/hashicorp/{name}" for name in ("google", "google-beta")]
    yield {"TF_REATTACH_PROVIDERS": json.dumps(dict.fromkeys(names, attached)), "NO_PROXY": "127.0.0.1"}
    server.stop(None).wait()
