"""Completes a template spec with what gcloud drops from metadata.json, and with the image of the workers.

    gcloud dataflow flex-template build ... --print-only --format='value(.)' |
        python3 deploy/template/spec.py > spec.json

Without the keys that declare streaming, the console treats the template as a batch template. The default image of the
workers is that of the launcher, by digest. Needs only Python's standard library, because gcloud's image has no more.
"""

import json
import sys
from pathlib import Path
from typing import Any

METADATA = Path(__file__).parents[2] / "metadata.json"


def complete(spec: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the spec with every key of the metadata and the image of workers; values of the spec take precedence."""
    environment = {"sdkContainerImage": spec["image"], **spec.get("defaultEnvironment", {})}
    return {**spec, "defaultEnvironment": environment, "metadata": {**metadata, **spec["metadata"]}}


if __name__ == "__main__":
    json.dump(complete(json.load(sys.stdin), json.loads(METADATA.read_text())), sys.stdout, indent=2, allow_nan=False)
