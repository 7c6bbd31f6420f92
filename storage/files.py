"""Locks between processes, and files that are replaced as a whole.

The kernel releases a lock when its holder ends, also when it is killed.
"""

import fcntl
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

# With one slash, too: a Path has dropped the other.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@contextmanager
def locked(path: Path, *, what: str, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file or a folder; wait, and log that once, while another process holds it.

    A lock file stays when the lock is released: removing it could leave two holders, one of the old
    file and one of a new one.

    Args:
        path: An existing folder, or a file, which is made when absent. On a file system that has
            `flock`: a local disk, a container's volume.
        what: The locked resource as the log names it: "the CPU of this machine".
        shared: A lock file is for everybody whom the umask lets in, not for this user alone.

    Raises:
        PermissionError: This user may not open the file.
    """
    is_folder = path.is_dir()
    handle, writable = (os.open(path, os.O_RDONLY | os.O_DIRECTORY), False) if is_folder else _lock_file(path, shared)
    try:
        if not _acquire(handle):
            holder = "another process" if is_folder else f"process {_holder(handle)}"
            log.info("Waiting for %s: %s has it (%s)", what, holder, path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if writable:
            os.pwrite(handle, f"{os.getpid():<20}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _lock_file(path: Path, shared: bool) -> tuple[int, bool]:
    """Open a lock file, made when absent; True if this user may write the name of its process into it."""
    # In a folder that others may write to, a link could lead the write to another file.
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666 if shared else 0o600), True
    except PermissionError:  # another user's, which can be locked if it can be read
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW), False


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


def local_folder(location: Path | str, *, what: str) -> Path:
    """Return a folder of this machine; `Path` alone would make "s3://bucket/x" a folder "s3:/bucket/x".

    Args:
        location: The folder as it was named.
        what: What lies there, as the message names it: "work files".

    Raises:
        ValueError: It is the address of an object store.
    """
    if _ADDRESS.match(str(location)):
        raise ValueError(f"{location} is not a folder of this machine: {what} stay on a local disk; name a folder")
    return Path(location)


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
