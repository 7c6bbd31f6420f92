"""Locks between processes, and files that are replaced as a whole.

The kernel releases a lock when its holder ends, also when it is killed.
"""

import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock of a file or a folder; wait, and log that once, while another process holds it.

    A lock file stays when the lock is released: removing it could leave two holders, one of the old
    file and one of a new one.

    Args:
        path: An existing folder, or a file, which is made when absent. On a file system that has
            `flock`: a local disk, a container's volume.
        what: The locked resource as the log names it: "the CPU of this machine".
    """
    is_folder = path.is_dir()
    # In a folder that others may write to, a link could lead the write below to another file.
    flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    handle = os.open(path, flags, 0o600)
    try:
        if not _acquire(handle):
            holder = "another process" if is_folder else f"process {_holder(handle)}"
            log.info("Waiting for %s: %s has it (%s)", what, holder, path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if not is_folder:
            os.pwrite(handle, f"{os.getpid():<20}".encode(), 0)
        yield
    finally:
        os.close(handle)


def try_lock(folder: Path) -> int | None:
    """Lock a folder without waiting.

    Returns:
        A handle; `os.close` releases the lock. None when another process holds it, or the folder is
        gone.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if _acquire(handle):
        return handle
    os.close(handle)
    return None


@contextmanager
def written_aside(file: Path) -> Iterator[Path]:
    """Yield a path to write to; what is written there replaces `file` when the block ends well.

    The new content is on disk by then. What a killed process leaves behind is hidden and ends in
    ".tmp".
    """
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield part
        sync(part)
        part.replace(file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _acquire(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    return os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
