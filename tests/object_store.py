"""A real S3 server on this machine: SeaweedFS, which keeps the promise of conditional puts.

It sends nothing and listens on this machine alone, which are not its defaults.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "fsclap"
_KEY = "fsclap-tests"
_ROLES = ("s3", "master", "volume", "filer", "admin")
_GRPC = 10_000
"""SeaweedFS adds this to a port for the one by which its parts talk."""


def environment(port: int) -> dict[str, str]:
    """What reads and writes the store needs, in any program."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _KEY,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def seaweedfs(folder: Path) -> Iterator[dict[str, str]]:
    """Run the server; yield the environment of its clients. The bucket is BUCKET."""
    ports = dict(zip(_ROLES, _free_ports(len(_ROLES)), strict=True))
    folder.mkdir(parents=True)
    command = [
        str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "mini", f"-dir={folder}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}",
        *(f"-{role}.port={port}" for role, port in ports.items()),
    ]  # fmt: skip
    given = environment(ports["s3"])
    with (
        (folder.with_name(f"{folder.name}.log")).open("wb") as log,
        subprocess.Popen(command, env=os.environ | given | {"TMPDIR": str(folder)}, stdout=log, stderr=log) as server,
    ):
        try:
            _wait(server, given["AWS_ENDPOINT_URL"], Path(log.name))
            yield given
        finally:
            server.kill()


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and whose grpc ports are, too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + _GRPC > 65_535 or port in found:
                continue
            try:
                other.bind(("127.0.0.1", port + _GRPC))
            except OSError:
                continue
            found.append(port)
    return found


def _wait(server: "subprocess.Popen[bytes]", endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=1):
                break
        except urllib.error.HTTPError as answer:
            if answer.code == 403:  # it wants to know who asks
                break
            time.sleep(0.05)
        except OSError:
            time.sleep(0.05)
    else:
        raise RuntimeError(f"the object store does not start:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def nanio(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server that takes `If-None-Match` and does not heed it; the bucket is BUCKET-careless."""
    (port,) = _free_ports(1)
    (folder / f"{BUCKET}-careless").mkdir(parents=True)
    given = environment(port)
    keys = {"NANIO_ACCESS_KEY": _KEY, "NANIO_SECRET_KEY": _KEY}
    command = [sys.executable, "-m", "nanio", "serve", f"--data-dir={folder}", "--host=127.0.0.1", f"--port={port}"]
    log = folder.with_name(f"{folder.name}.log")
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=os.environ | keys, stdout=output, stderr=output) as server,
    ):
        try:
            _wait(server, given["AWS_ENDPOINT_URL"], log)
            yield given
        finally:
            server.terminate()
