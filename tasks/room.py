"""Room on the disk of the work folder: nothing is downloaded for which there is none."""

import logging
import shutil
import time

from storage.work import WorkStore

log = logging.getLogger("fsclap.tasks")

PATIENCE = 3600.0
"""Seconds to wait for the batch that is being computed to be committed."""
_PAUSE = 10.0


class NoRoomError(RuntimeError):
    """The disk of the work folder stayed full."""


def wait_for_room(store: WorkStore, gigabytes: float, *, patience: float = PATIENCE) -> None:
    """Remove what was not used for longest, then wait, until so much of the work folder's disk is free.

    Raises:
        NoRoomError: Nothing made room within `patience` seconds.
    """
    deadline, told = time.monotonic() + patience, False
    while True:
        removed = store.make_room(1e9 * gigabytes)
        if removed:
            log.info("%s: %d outputs removed that were not used for longest, for want of room", store.root, removed)
        free = shutil.disk_usage(store.root).free / 1e9
        if free >= gigabytes:
            return
        if time.monotonic() >= deadline:
            raise NoRoomError(
                f"{store.root}: {free:.1f} GB are free and {gigabytes:g} GB needed before anything is downloaded "
                "(disk.reserve_gb). Free some space, name another work folder, or let outputs go when they are "
                'committed: settings={"disk": {"work_files": "drop"}}'
            )
        if not told:
            log.warning("%s: %.1f GB are free of %g: the next download waits", store.root, free, gigabytes)
            told = True
        time.sleep(min(_PAUSE, patience))
