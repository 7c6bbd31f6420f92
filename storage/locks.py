"""Locks between the processes of one machine. The kernel drops a lock with its holder, however that one ends."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold a file's lock; wait, and say so once, while another process holds it.

    The file stays when the lock goes: removing it could leave two holders, one of the old file and one of a new.

    Args:
        path: Made when absent. On a file system that has `flock`: a local disk, a container's volume.
        what: What is waited for, in the log: "the CPU of this machine".
    """
    # In a folder that others may write to, a link could lead the write below to another file.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Waiting for %s: process %s has it (%s)", what, _holder(handle), path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.pwrite(handle, f"{os.getpid():<20}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    return os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
