"""A PostgreSQL server of one's own, for as long as a block runs."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.processes import free_port, process

ACCOUNT = "postgres"
"""Who runs the server where this process is root's, as whom PostgreSQL refuses to run."""


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    on_path = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return Path(on_path).resolve().parent if on_path else installed[-1] if installed else None


@contextmanager
def postgres(log: Path) -> Iterator[str]:
    """Run a server in a temporary folder; yields its address, without a database.

    Args:
        log: File that its messages are added to.

    Raises:
        RuntimeError: PostgreSQL is not installed.
    """
    binaries = programs()
    if binaries is None:
        raise RuntimeError("PostgreSQL is not installed: `apt-get install postgresql` brings its programs")
    user = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
    # Not in a folder of the caller's, which the account may have no way into.
    with tempfile.TemporaryDirectory() as folder, log.open("ab") as messages:
        if user:
            shutil.chown(folder, ACCOUNT, ACCOUNT)
        data, port = f"{folder}/data", str(free_port())
        init = ["--pgdata", data, "--username", ACCOUNT, "--auth", "trust", "--encoding", "UTF8"]
        subprocess.run([*user, str(binaries / "initdb"), *init], check=True, cwd="/", stdout=subprocess.DEVNULL)
        serve = ["-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-k", folder]
        with process([*user, str(binaries / "postgres"), *serve], cwd=Path("/"), stdout=messages):
            ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", port]
            while subprocess.run(ready, check=False).returncode:
                time.sleep(0.2)
            yield f"postgresql://{ACCOUNT}@127.0.0.1:{port}"
