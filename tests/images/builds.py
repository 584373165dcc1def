"""Builds images with buildah from the unchanged Dockerfiles, on substitutes for their base images."""

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
# The Debian release with the Python of the images.
DEBIAN, PYTHON = "trixie", (3, 13)
# The Dockerfiles whose base is a plain Python.
ON_PYTHON = ("publisher/Dockerfile",)
TOOLS = ("buildah", "debootstrap")


class Builder:
    """Runs buildah, which stores everything in `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._store = [f"--root={scratch}/store", f"--runroot={scratch}/run", "--storage-driver=vfs"]
        self._pip_mounts = _pip_mounts(scratch)

    def create_bases(self) -> None:
        """Create images with the names of the Dockerfiles' bases.

        The plain Python is a Debian with Python, and the template's base is the same with boot.sh. Neither contains
        packages, so that the locks must be complete.
        """
        debian = self._scratch / "debian"
        self._call("debootstrap", "--variant=minbase", "--include=python3-venv", DEBIAN, str(debian))
        # Installs python and pip in the folder where the real images have them.
        self._call("chroot", str(debian), "python3", "-m", "venv", "/usr/local")
        launcher, beam = _bases(ROOT / "Dockerfile")
        for python in {base for dockerfile in ON_PYTHON for base in _bases(ROOT / dockerfile)}:
            self._create(python, "scratch", debian, "/")
        self._create(beam, python, HERE / "boot.sh", "/opt/apache/beam/boot")
        self._create(launcher, "scratch", HERE / "launcher.sh", "/opt/google/dataflow/python_template_launcher")
        shutil.rmtree(debian)

    def _create(self, name: str, base: str, source: Path, target: str) -> None:
        container = self.container(base)
        self._buildah("copy", container, str(source), target)
        self._buildah("commit", "--rm", container, name)

    def build(self, dockerfile: str, image: str, **arguments: str) -> int:
        """Build `image` from a Dockerfile; returns the MB, unpacked, that it adds to its base."""
        build_arguments = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        file = ROOT / dockerfile
        flags = ["--pull=never", "--isolation=chroot", *self._pip_mounts, *build_arguments]
        self._buildah("build", *flags, f"--file={file}", f"--tag={image}", str(ROOT))
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
        """Return the command that runs `command` in a container, with `volume` mounted at the same path."""
        flags = [f"--env={name}={value}" for name, value in (env or {}).items()]
        flags += [f"--volume={volume}:{volume}"] if volume else []
        return ["buildah", *self._store, "run", "--isolation=chroot", *flags, container, "--", *command]

    def run(
        self, container: str, *command: str, env: Mapping[str, str] | None = None, volume: Path | None = None
    ) -> str:
        """Run `command` in a container; returns its output."""
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
            raise LocalStackError(f"{command[0]} failed. The end of its output:\n{child.tail()}")
        return log.read_text().strip()


@contextmanager
def builder() -> Iterator[Builder]:
    """Yield a Builder; everything that it stored is removed at the end of the block."""
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
        # One file system only, because an interrupted debootstrap may have left mounts in the folder.
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(scratch)], check=False)


def _bases(dockerfile: Path) -> list[str]:
    """Return the images in the FROM lines, with the defaults of their arguments."""
    text = dockerfile.read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    names = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    return [re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], name) for name in names]


def _pip_mounts(scratch: Path) -> list[str]:
    """Return flags that mount this machine's pip settings, and the files that they name, into a build.

    Behind a proxy, or with a private index, pip cannot download anything without them.
    """
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():  # those of the environment come first and take precedence
        name, _, value = line.partition("=")
        settings.setdefault(name.rpartition(".")[2], " ".join(ast.literal_eval(value).split()))
    for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if variable in os.environ:
            settings.setdefault("cert", os.environ[variable])

    conf = scratch / "pip.conf"
    conf.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    mounts = {Path("/etc/pip.conf"): conf}
    for word in " ".join(settings.values()).split():
        # An index in a folder may link to files outside of it.
        path = Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
        if path.is_absolute() and path.exists():
            mounts[path] = path
    return [f"--volume={source}:{target}:ro" for target, source in mounts.items()]
