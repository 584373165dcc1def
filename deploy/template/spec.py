"""Completes a template spec: what gcloud drops from metadata.json, and the image that the workers run.

    gcloud dataflow flex-template build ... --print-only --format='value(.)' |
        python3 deploy/template/spec.py > spec.json

Without the keys that say how it streams, the console takes the template for a batch one. The image is the launcher's,
by digest; it is the default of a launch that names none. Needs nothing but Python, since gcloud's image has no more.
"""

import json
import sys
from pathlib import Path
from typing import Any

METADATA = Path(__file__).parents[2] / "metadata.json"


def complete(spec: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the spec with every key of the metadata, and its image for workers; what the spec has already stays."""
    environment = {"sdkContainerImage": spec["image"], **spec.get("defaultEnvironment", {})}
    return {**spec, "defaultEnvironment": environment, "metadata": {**metadata, **spec["metadata"]}}


if __name__ == "__main__":
    json.dump(complete(json.load(sys.stdin), json.loads(METADATA.read_text())), sys.stdout, indent=2, allow_nan=False)
