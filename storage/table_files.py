"""The files of a table in an object store, as pyarrow reads them."""

import atexit
import time
import weakref
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from deltalake.fs import DeltaStorageHandler

RELEASED_WITHIN = 1.0
"""Seconds that the end of a process waits for pyarrow at most. A dataset that the program still holds costs it."""


class TableFiles(DeltaStorageHandler):
    """deltalake's file system of a table, which pyarrow lets go of before the process ends.

    Threads of pyarrow drop file systems and files after the rows were delivered, and need Python's global lock for it.
    Before Python 3.14, a thread that asks for the lock while the interpreter ends is ended within C++ code, and the
    process aborts with status 134 ("terminate called without an active exception").

    Args:
        location: Where the table lies.
        sizes: Path in the table -> bytes, of files whose size need not be asked for.
    """

    def __init__(self, location: str, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(location, known_sizes=dict(sizes or {}))
        _held.add(self)

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open a file for random access, by its path in the table."""
        return pa.PythonFile(_File(self._handler.open_input_file(path)), mode="r")

    open_input_stream = open_input_file


class _File:
    """A file of deltalake's, as `pyarrow.PythonFile` calls it. The file itself allows no weak reference."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.read = raw.read
        self.seek = raw.seek
        self.tell = raw.tell
        self.close = raw.close
        _held.add(self)

    @property
    def closed(self) -> bool:
        return bool(self._raw.closed)


_held: "weakref.WeakSet[TableFiles | _File]" = weakref.WeakSet()


@atexit.register
def _wait_for_pyarrow() -> None:
    if not _held:
        return
    until = time.monotonic() + RELEASED_WITHIN
    while _held and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.01)  # whoever dropped the last one holds the lock until it is gone
