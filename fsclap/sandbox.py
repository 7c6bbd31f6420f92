"""Bounds for a child process that reads what a stranger wrote: memory, size of a file, environment.

Limits of the kernel hold on Linux alone, where workers run.
"""

import contextlib
import os
import subprocess
import sys

PASSED = (
    "PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
)  # fmt: skip
"""Variables that a child needs; the others, such as API keys, are withheld."""


def environment(**extra: str) -> dict[str, str]:
    """Build the environment of a child: this process's variables in PASSED, and `extra`."""
    return {name: os.environ[name] for name in PASSED if name in os.environ} | extra


def limit(process: subprocess.Popen[bytes], *, memory: int, file_size: int) -> None:
    """Set a running child's limits; its own children inherit them.

    Args:
        process: The child. Start it so that it waits for input, or does little in its first
            millisecond.
        memory: Bytes that it may write to (RLIMIT_DATA, not RLIMIT_AS: address space that is only
            reserved, as thread stacks and JavaScript engines do by the gigabyte, costs nothing).
        file_size: Bytes of the largest file that it may write; pipes have no size.
    """
    if sys.platform != "linux":
        return
    import resource

    limits = ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, file_size), (resource.RLIMIT_CORE, 0))
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        for which, value in limits:
            _, hard = resource.prlimit(process.pid, which)
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.prlimit(process.pid, which, (most, most))
