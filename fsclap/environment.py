"""What libraries read from the environment when they are imported.

`fsclap/__init__.py` calls `prepare` before any of them can be.
"""

import os
import stat
import tempfile
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

SILENT = {
    # ONNX Runtime 1.29 and later report to their maker: path of the program, processor, memory.
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that keep libraries from reporting to their makers."""
CACHES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}
"""Variables for folders that libraries write to at their first use, and cannot do without."""


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set SILENT, and CACHES where the user's own folder for them cannot be written to.

    A variable that is set stays as it is. Child processes inherit them.
    """
    for name, value in SILENT.items():
        environ.setdefault(name, value)
    if CACHES.keys() <= environ.keys() or _can_cache(environ):
        return
    with suppress(OSError):  # no place at all: the libraries say so themselves
        folder = _private_folder()
        for name, part in CACHES.items():
            environ.setdefault(name, str(folder / part))


def _can_cache(environ: MutableMapping[str, str]) -> bool:
    """Whether the user's folder for caches is there to be written to, or can be made."""
    try:
        folder = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        while not folder.exists():
            if folder == folder.parent or folder == Path.home():  # a service user's home is not there
                return False
            folder = folder.parent
    except (OSError, RuntimeError):  # nobody knows where the home would be
        return False
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> Path:
    """Return a folder for temporary files that this user alone can write to: libraries run what lies there."""
    folder = Path(tempfile.gettempdir()) / f"fsclap-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="fsclap-"))
