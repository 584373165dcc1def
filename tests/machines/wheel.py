"""Import every module of an installed package: wheel.py PACKAGE FOLDER, where FOLDER is its source.

Run by a Python that has the package and what its lock names, and nothing else. Fails if a module cannot be imported, or
is in the source and not in the wheel, as happens to a sub-package that setup.py does not list.
"""

import importlib
import pkgutil
import sys
from pathlib import Path


def main(package: str, folder: str) -> str | None:
    """Return what is wrong, or None."""
    root = importlib.import_module(package)
    assert Path(root.__file__ or "").parent.resolve() != Path(folder).resolve(), "imported from the source"
    installed = {package, *(found.name for found in pkgutil.walk_packages(root.__path__, f"{package}."))}
    for module in sorted(installed):
        importlib.import_module(module)
    files = [file.relative_to(folder).with_suffix("") for file in Path(folder).rglob("*.py")]
    source = {".".join([package, *(part for part in file.parts if part != "__init__")]) for file in files}
    if missing := source - installed:
        return f"Not in the wheel: {', '.join(sorted(missing))}"
    print(f"Imported the {len(installed)} modules of {package} from its wheel")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
