"""Work files: the output of each stage, at a path derived from everything it depends on.

    {root}/{stage}/{key[:2]}/{key}/     the files of one output, and manifest.json
    {root}/.partial/                    outputs that are being written

An output appears as a whole: it is written in .partial/, synced and renamed into place.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from storage.files import local_folder, sync, try_lock

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNUSED = timedelta(hours=6)
"""An output that was not used for this long is needed by no run: longer than a batch takes."""
_PARTIAL = ".partial"
_STAGE = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a stage: everything that its output depends on.

    Attributes:
        stage: Name of the stage: lower-case letters, digits, "-" and "_".
        version: Version of the stage's code; increase it when equal inputs would give another
            output.
        engine: Engine with the revision of its weights, "name@revision"; empty for a stage without
            one.
        parameters: The settings that the output depends on: JSON values, with strings as keys.
        inputs: Digests of the stage's inputs, in order: keys of earlier steps, or `sha256_file`.

    Raises:
        ValueError: The name or the parameters do not fit this description.
    """

    stage: str
    version: int
    engine: str
    parameters: Mapping[str, Any]
    inputs: Sequence[str]

    def __post_init__(self) -> None:
        if not _STAGE.fullmatch(self.stage):
            raise ValueError(f"stage {self.stage!r} cannot name a folder: use a-z, 0-9, - and _")
        _check_keys(self.parameters, where=f"parameters of stage {self.stage}")
        _ = self.key

    @property
    def key(self) -> str:
        """SHA-256 of the step as canonical JSON, 64 hexadecimal digits."""
        try:
            canonical = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters of stage {self.stage} cannot be digested: {error}") from error
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "version": self.version,
            "engine": self.engine,
            "parameters": dict(self.parameters),
            "inputs": list(self.inputs),
        }


class WorkStore:
    """Work files in a local folder that any number of processes may share.

    The file system must have atomic rename and `flock` on folders: a local disk, a container's
    volume.

    Args:
        root: The folder, created when absent. Files that killed writers left in it are removed.

    Raises:
        ValueError: It is in an object store.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = local_folder(root, what="work files")
        self._partial = self.root / _PARTIAL
        self._partial.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()

    def folder(self, step: Step) -> Path | None:
        """Return the folder of a step's output; None when the output is yet to be computed.

        A damaged output (no manifest, a file missing or of another size) is removed, to be computed
        again.
        """
        folder = self._place(step)
        if not os.path.lexists(folder):  # a dangling link would block an output, too
            return None
        damage = _damage(folder)
        if damage is None:
            _note_use(folder)
            return folder
        log.warning(
            "work files of %s in %s are damaged (%s): removed, to be computed again",
            step.stage,
            folder,
            damage,
        )
        self._remove(folder)
        return None

    @contextmanager
    def write(self, step: Step) -> Iterator[Path]:
        """Yield a new folder for a step's output, which is published when the block ends well.

        When the block raises, the folder is removed. When another writer was first, its output
        stays and this one is discarded: equal steps have equal outputs.
        """
        with self._partial_folder() as folder:
            yield folder
            _seal(folder, step)
            self._publish(folder, step)

    def discard(self, step: Step) -> bool:
        """Remove a step's output, to be computed again; return whether there was one."""
        folder = self._place(step)
        if not os.path.lexists(folder):
            return False
        self._remove(folder)
        return True

    def make_room(self, free: float, *, unused: timedelta = UNUSED) -> int:
        """Remove outputs, those first that were not used for longest, until so much of the disk is free.

        Args:
            free: Bytes to be free.
            unused: Outputs that were used within this time stay: a run may be about to read them.

        Returns:
            The number of outputs removed.
        """
        if shutil.disk_usage(self.root).free >= free:
            return 0
        until = time.time() - unused.total_seconds()
        used = sorted((manifest.stat().st_atime, manifest.parent) for manifest in self.root.glob(f"*/*/*/{MANIFEST}"))
        removed = 0
        for last, folder in used:
            if last > until or shutil.disk_usage(self.root).free >= free:
                break
            self._remove(folder)
            removed += 1
        return removed

    def manifest(self, step: Step) -> dict[str, Any] | None:
        """Return the step and the size and SHA-256 of each output file; None without an output."""
        folder = self.folder(step)
        return None if folder is None else json.loads((folder / MANIFEST).read_text())

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a temporary folder on the store's disk."""
        with self._partial_folder() as folder:
            yield folder

    def _place(self, step: Step) -> Path:
        return self.root / step.stage / step.key[:2] / step.key

    def _publish(self, folder: Path, step: Step) -> None:
        place = self._place(step)
        place.parent.mkdir(parents=True, exist_ok=True)
        while self.folder(step) is None:
            try:
                folder.rename(place)
            except OSError:
                # A folder with files cannot be replaced by a rename: another writer was first. If
                # its output is damaged, the check above removes it. Otherwise the error is about
                # this writer's folder.
                if not place.exists():
                    raise
            else:
                for parent in (place.parent, place.parent.parent, self.root):
                    sync(parent)
                return

    @contextmanager
    def _partial_folder(self) -> Iterator[Path]:
        folder, lock = self._locked_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # already gone if it was published
            os.close(lock)

    def _locked_folder(self) -> tuple[Path, int]:
        while True:
            folder = self._partial / uuid.uuid4().hex
            folder.mkdir()
            lock = try_lock(folder)
            if lock is not None and folder.exists():
                return folder, lock
            if lock is not None:  # removed as abandoned before it was locked
                os.close(lock)

    def _remove_abandoned(self) -> None:
        # The kernel drops a writer's lock with the writer. Unlike a process id or an age, that is
        # reliable, also between containers.
        for folder in self._partial.iterdir():
            lock = try_lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)

    def _remove(self, folder: Path) -> None:
        with self._partial_folder() as aside:
            try:
                folder.rename(aside / folder.name)
            except FileNotFoundError:
                log.info("%s was removed by another worker", folder)


def _note_use(folder: Path) -> None:
    """Set the time of the last use; file systems are often mounted not to."""
    with suppress(FileNotFoundError):  # another worker made room
        manifest = folder / MANIFEST
        os.utime(manifest, (time.time(), manifest.stat().st_mtime))


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_keys(value: Any, *, where: str) -> None:
    # JSON writes the key 1 as "1", so two different mappings would have one digest.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {key!r} is not a string")
            _check_keys(item, where=f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item, where=where)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _seal(folder: Path, step: Step) -> None:
    """Sync the files of an output and write its manifest."""
    files = {}
    for path in _files(folder):
        sync(path)
        files[path.relative_to(folder).as_posix()] = {
            "size": path.stat().st_size,
            "sha256": sha256_file(path),
        }
    if not files:
        raise ValueError(f"stage {step.stage} wrote no file into {folder}")
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"step": step.as_dict(), "files": files}, indent=1, sort_keys=True))
    sync(manifest)
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)


def _damage(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    except (OSError, ValueError, RecursionError) as error:
        return f"unreadable manifest: {error}"
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not files:
        return "the manifest names no files"
    for name, entry in files.items():
        size = entry.get("size") if isinstance(entry, dict) else None
        if size is None or sizes.get(name) != size:
            return f"{name} has {sizes.get(name, 'no')} bytes, not {size}"
    return None
