"""Writes schema.json: the arguments of the resources that deploy/terraform/ uses, from the typed classes of pulumi-gcp.

    python -m tests.deploy.terraform.schema pulumi_gcp-VERSION-py3-none-any.whl

These classes are generated from the schema of Google's provider, and PyPI has them. The wheel is read, not installed.
They differ from the provider in three ways: an argument `name` is always optional, lists have plural names (RENAMED
reverses those that the module uses), and computed values cannot be distinguished from those known after the apply.
"""

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("schema.json")

# The package of pulumi_gcp and its module, for each resource.
RESOURCES = {
    "google_artifact_registry_repository": "artifactregistry/repository",
    "google_artifact_registry_repository_iam_member": "artifactregistry/repository_iam_member",
    "google_bigquery_dataset": "bigquery/dataset",
    "google_bigquery_dataset_iam_member": "bigquery/dataset_iam_member",
    "google_cloud_run_v2_job": "cloudrunv2/job",
    "google_cloudbuild_trigger": "cloudbuild/trigger",
    "google_compute_firewall": "compute/firewall",
    "google_compute_network": "compute/network",
    "google_compute_subnetwork": "compute/subnetwork",
    "google_dataflow_flex_template_job": "dataflow/flex_template_job",
    "google_kms_crypto_key_iam_member": "kms/crypto_key_iam_member",
    "google_logging_metric": "logging/metric",
    "google_monitoring_alert_policy": "monitoring/alert_policy",
    "google_monitoring_dashboard": "monitoring/dashboard",
    "google_monitoring_notification_channel": "monitoring/notification_channel",
    "google_project_iam_member": "projects/iam_member",
    "google_project_service": "projects/service",
    "google_project_service_identity": "projects/service_identity",
    "google_pubsub_subscription": "pubsub/subscription",
    "google_pubsub_subscription_iam_member": "pubsub/subscription_iam_member",
    "google_pubsub_topic": "pubsub/topic",
    "google_pubsub_topic_iam_member": "pubsub/topic_iam_member",
    "google_service_account": "serviceaccount/account",
    "google_storage_bucket": "storage/bucket",
    "google_storage_bucket_iam_member": "storage/bucket_iam_member",
}
RENAMED = {("google_compute_firewall", "allows"): "allow"}

# Arguments that only Pulumi has.
FOREIGN = {"pulumi_labels"}

Fields = dict[str, tuple[ast.expr, bool]]  # by name: the type, and whether it is required


def schema(wheel: Path) -> dict[str, Any]:
    """Return the version and, for each resource, its block: attributes as "TYPE RULE", and nested blocks."""
    with zipfile.ZipFile(wheel) as archive:
        version = json.loads(archive.read("pulumi_gcp/pulumi-plugin.json"))["version"]
        return {"pulumi-gcp": version, "resources": {name: _resource(archive, name) for name in RESOURCES}}


def _resource(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    package, module = RESOURCES[name].split("/")
    inputs = _classes(archive, f"pulumi_gcp/{package}/_inputs.py")
    own = _classes(archive, f"pulumi_gcp/{package}/{module}.py")
    [arguments] = [fields for cls, fields in own.items() if cls.endswith("Args")]
    [state] = [fields for cls, fields in own.items() if cls.startswith("_") and cls.endswith("State")]
    block = _block(arguments, inputs)
    known_after = {
        field: f"{_type(annotation)} computed"
        for field, (annotation, _) in state.items()
        if field not in arguments and not _type(annotation).endswith("Args")
    }
    block["attributes"] |= {"id": "string computed"} | known_after
    for (resource, plural), singular in RENAMED.items():
        if resource == name:
            block["blocks"][singular] = block["blocks"].pop(plural)
    return block


def _classes(archive: zipfile.ZipFile, path: str) -> dict[str, Fields]:
    """Return each class of a module with the keywords of its constructor."""
    if path not in archive.namelist():
        return {}
    classes: dict[str, Fields] = {}
    for node in ast.parse(archive.read(path)).body:
        for member in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                pairs = zip(member.args.kwonlyargs, member.args.kw_defaults, strict=True)
                classes[node.name] = {
                    argument.arg: (argument.annotation, default is None)
                    for argument, default in pairs
                    if argument.annotation and argument.arg not in FOREIGN
                }
    return classes


def _block(fields: Fields, inputs: dict[str, Fields]) -> dict[str, Any]:
    attributes, blocks = {}, {}
    for name, (annotation, required) in sorted(fields.items()):
        kind = _type(annotation)
        inner = kind.removeprefix("list of ")
        if inner.endswith("Args"):
            blocks[name] = {"repeated": inner != kind, "required": required, **_block(inputs[inner], inputs)}
        else:
            attributes[name] = f"{kind} {'required' if required else 'optional'}"
    return {"attributes": attributes, "blocks": blocks}


def _type(annotation: ast.expr) -> str:
    """Return a type as string, number, bool, list of TYPE, map of TYPE, or the name of a class of arguments."""
    match annotation:
        case ast.Constant(value=str(words)):
            pass
        case ast.Attribute(attr=name):
            words = {"str": "string", "int": "number", "float": "number", "bool": "bool"}.get(name, "string")
        case ast.Subscript(value=ast.Attribute(attr="Input") | ast.Name(id="Optional"), slice=inner):
            words = _type(inner)
        case ast.Subscript(value=ast.Name(id="Sequence"), slice=inner):
            words = f"list of {_type(inner)}"
        case ast.Subscript(value=ast.Name(id="Mapping"), slice=ast.Tuple(elts=[_, inner])):
            words = f"map of {_type(inner)}"
        case _:
            words = "string"  # Any, and files
    return words


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(Path(sys.argv[1])), indent=1) + "\n")
