"""Whom a process talks to.

`contacts` sees what Python code of this process asks the socket module for. `traced` runs a command
under strace and sees every connection and every datagram of it and its children, native code's too.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

Contact = tuple[str, int]
"""Address, or name to be resolved, and port."""

_CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
_TARGET = re.compile(
    r'sin6?_port=htons\((\d+)\)(?:.*?inet_addr\("([^"]+)"\)|.*?inet_pton\(AF_INET6, "([^"]+)")',
)
_heard: list[Contact] = []


def _hear(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple):
        _heard.append((str(args[1][0]), int(args[1][1])))
    elif event == "socket.getaddrinfo":
        _heard.append((str(args[0]), int(str(args[1] or 0)) if str(args[1] or 0).isdigit() else 0))


sys.addaudithook(_hear)


@contextmanager
def contacts() -> Iterator[set[Contact]]:
    """Yield a set that holds, after the block, whom this process asked for during it."""
    first, found = len(_heard), set[Contact]()
    try:
        yield found
    finally:
        found.update(_heard[first:])


def traced(command: Sequence[str], log: Path, *, environment: Mapping[str, str]) -> set[Contact]:
    """Run a command to its end, which has to be a good one, and return whom it and its children contacted."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # Threads and children have a file each, as a call that is interrupted would be in two lines.
    arguments = ["strace", "-ff", "-qq", "-e", _CALLS, "-e", "signal=none", "-o", str(log), *command]
    done = subprocess.run(arguments, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr and done.returncode != 0:
        pytest.skip("no right to trace here")
    assert done.returncode == 0, done.stderr[-4000:]
    lines = "".join(path.read_text(errors="replace") for path in log.parent.glob(f"{log.name}.*"))
    return {(match[2] or match[3], int(match[1])) for match in _TARGET.finditer(lines)}
