"""Imports every module of the installed wheel: wheel.py PACKAGE FOLDER, where FOLDER is the package's source.

Run it with a Python that has only the wheel and the packages of its lock. Fails if a module cannot be imported, is
in the source but not in the wheel, or if the wheel has another version than its dead letters.
"""

import importlib
import importlib.metadata
import pkgutil
import sys
from pathlib import Path


def main(package: str, folder: str) -> str | None:
    """Return the fault as one line, or None if there is none."""
    root = importlib.import_module(package)
    assert Path(root.__file__ or "").parent.resolve() != Path(folder).resolve(), "imported from the source"
    installed = {package, *(found.name for found in pkgutil.walk_packages(root.__path__, f"{package}."))}
    for module in sorted(installed):
        importlib.import_module(module)
    files = [file.relative_to(folder).with_suffix("") for file in Path(folder).rglob("*.py")]
    source = {".".join([package, *(part for part in file.parts if part != "__init__")]) for file in files}
    if missing := source - installed:
        return f"Not in the wheel: {', '.join(sorted(missing))}"
    version = importlib.import_module(f"{package}.version").VERSION
    if (built := importlib.metadata.version("sensor-stream")) != version:
        return f"The wheel is version {built}, and its dead letters say {version}"
    print(f"Imported the {len(installed)} modules of {package} from its wheel")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
