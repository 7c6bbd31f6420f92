"""Child processes of a local installation: start and stop them, and run Prefect's command line."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

PREFECT = [sys.executable, "-m", "prefect"]


@contextmanager
def process(command: list[str], *, cwd: Path | None = None, stdout: object = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process in its own process group for as long as the block runs.

    The child also ends when this process is killed.

    Args:
        command: Program and arguments.
        cwd: Folder to run it in; the current one by default.
        stdout: Where its output and errors go; this process's output by default.

    Yields:
        The child.
    """
    child = subprocess.Popen(
        command, cwd=cwd, stdout=stdout, stderr=subprocess.STDOUT,  # type: ignore[call-overload]
        start_new_session=True, preexec_fn=_end_with_parent,
    )  # fmt: skip
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes], patience: float = 20) -> None:
    """End a child and its process group: SIGINT, then SIGTERM, then SIGKILL.

    Args:
        child: A child that leads its process group.
        patience: Seconds to wait after each signal.
    """
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sent)
        except ProcessLookupError:
            break
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, setting: str) -> None:
    """Exit with a message if a port is in use.

    Args:
        port: The port.
        setting: Environment variable that chooses another one.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SystemExit(
                f"Port {port} is in use. Stop `make ui` if it is running, or choose another port with {setting}=..."
            ) from None


def run_command(deployment: str, **parameters: object) -> list[str]:
    """Build a `prefect deployment run` command for a deployment ("flow/name") and parameters."""
    options = [option for name, value in parameters.items() for option in ("--param", f"{name}={json.dumps(value)}")]
    return [*PREFECT, "deployment", "run", deployment, *options]


def run_id(output: str) -> UUID:
    """Read the id of the new run from what `prefect deployment run` printed.

    Raises:
        ValueError: There is no id in it.
    """
    match = re.search(r"UUID: ([0-9a-f-]{36})", output)
    if match is None:
        raise ValueError(f"no run id in the output of `prefect deployment run`:\n{output}")
    return UUID(match[1])


def _end_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
