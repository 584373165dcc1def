"""Images built with buildah from the Dockerfiles as they are, on stand-ins for their base images."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.stack.processes import LocalStackError, running

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The Debian release whose own Python is that of the images.
DEBIAN, PYTHON = "trixie", (3, 13)
# The Dockerfiles that build on a plain Python.
ON_PYTHON = ("publisher/Dockerfile",)
TOOLS = ("buildah", "debootstrap")


class Builder:
    """buildah, with all that it stores below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._store = [f"--root={scratch}/store", f"--runroot={scratch}/run", "--storage-driver=vfs"]
        self._lent = _lend_pip_settings(scratch)

    def stand_in_for_bases(self) -> None:
        """Make images of the names that the Dockerfiles build on.

        A plain Python is a Debian with Python, the template's base the same with boot.sh. Neither has a package
        installed, so the locks must be complete.
        """
        debian = self._scratch / "debian"
        self._call("debootstrap", "--variant=minbase", "--include=python3-venv", DEBIAN, str(debian))
        # Puts a python and a pip where the real images have them.
        self._call("chroot", str(debian), "python3", "-m", "venv", "/usr/local")
        launcher, beam = _bases(ROOT / "Dockerfile")
        for python in {base for dockerfile in ON_PYTHON for base in _bases(ROOT / dockerfile)}:
            self._stand_in(python, "scratch", debian, "/")
        self._stand_in(beam, python, HERE / "boot.sh", "/opt/apache/beam/boot")
        self._stand_in(launcher, "scratch", HERE / "launcher.sh", "/opt/google/dataflow/python_template_launcher")
        shutil.rmtree(debian)

    def _stand_in(self, name: str, base: str, source: Path, target: str) -> None:
        container = self.container(base)
        self._buildah("copy", container, str(source), target)
        self._buildah("commit", "--rm", container, name)

    def build(self, dockerfile: str, image: str, **arguments: str) -> int:
        """Build `image` from a Dockerfile; returns how many MB, unpacked, it adds to its base."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        file = ROOT / dockerfile
        how = ["--pull=never", "--isolation=chroot", *self._lent, *given]
        self._buildah("build", *how, f"--file={file}", f"--tag={image}", str(ROOT))
        return self._megabytes(image) - self._megabytes(_bases(file)[-1])

    def container(self, image: str) -> str:
        """Return a new container of `image`."""
        return self._buildah("from", "--pull=never", image)

    def config(self, image: str) -> dict[str, Any]:
        """Return an image's labels, environment, entry point and the like."""
        return json.loads(self._buildah("inspect", "--type=image", image))["OCIv1"]["config"]

    def command(
        self, container: str, *command: str, env: Mapping[str, str] | None = None, volume: Path | None = None
    ) -> list[str]:
        """Return the command that runs `command` in a container; `volume` has the same path in there."""
        flags = [f"--env={name}={value}" for name, value in (env or {}).items()]
        flags += [f"--volume={volume}:{volume}"] if volume else []
        return ["buildah", *self._store, "run", "--isolation=chroot", *flags, container, "--", *command]

    def run(
        self, container: str, *command: str, env: Mapping[str, str] | None = None, volume: Path | None = None
    ) -> str:
        """Run `command` in a container; returns what it prints."""
        return self._call(*self.command(container, *command, env=env, volume=volume))

    def _megabytes(self, image: str) -> int:
        container = self.container(image)
        used = self._call("du", "--summarize", "--block-size=1000000", self._buildah("mount", container))
        self._buildah("rm", container)
        return int(used.split()[0])

    def _buildah(self, *arguments: str) -> str:
        return self._call("buildah", *self._store, *arguments)

    def _call(self, *command: str) -> str:
        log = self._scratch / "log"
        with running(command[0], command, log) as child:
            failed = child.process.wait()
        if failed:
            raise LocalStackError(f"{command[0]} failed. The end of what it said:\n{child.tail()}")
        return log.read_text().strip()


@contextmanager
def builder() -> Iterator[Builder]:
    """A Builder for the length of the block; what it stored is removed at the end."""
    if sys.version_info[:2] != PYTHON:
        version = ".".join(map(str, PYTHON))
        raise LocalStackError(
            f"This needs the images' Python: make PYTHON=python{version} VENV=build/python{version} image-test"
        )
    if any(not shutil.which(tool) for tool in TOOLS):
        raise LocalStackError(f"{' and '.join(TOOLS)} are needed; on Debian: apt-get install {' '.join(TOOLS)}")
    if os.geteuid():
        raise LocalStackError("buildah without Docker needs root: sudo make image-test")
    scratch = Path(tempfile.mkdtemp(prefix="sensor-stream-images-"))
    try:
        yield Builder(scratch)
    finally:
        # Not beyond a mount that an interrupted debootstrap has left in there.
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(scratch)], check=False)


def _bases(dockerfile: Path) -> list[str]:
    """Return what the FROM lines name, with the defaults of the arguments in them."""
    text = dockerfile.read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    names = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    return [re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], name) for name in names]


def _lend_pip_settings(scratch: Path) -> list[str]:
    """Return flags that mount this machine's pip settings, and the files they name, into a build.

    A machine behind a proxy or with an index of its own has settings without which pip reaches nothing.
    """
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():  # those of the environment first, which outrank a file's
        name, _, value = line.partition("=")
        settings.setdefault(name.rpartition(".")[2], " ".join(ast.literal_eval(value).split()))
    for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if variable in os.environ:
            settings.setdefault("cert", os.environ[variable])

    conf = scratch / "pip.conf"
    conf.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    mounts = {Path("/etc/pip.conf"): conf}
    for word in " ".join(settings.values()).split():
        # An index in a folder links to files beside that folder.
        path = Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
        if path.is_absolute() and path.exists():
            mounts[path] = path
    return [f"--volume={source}:{target}:ro" for target, source in mounts.items()]
