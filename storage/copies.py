"""Local copies of what lies in an object store, for readers that need files: models and indexes.

    {FSCLAP_CACHE}/{digest}-{name}/     one folder per location, brought up to date by each `local_copy`

FSCLAP_CACHE is ~/.cache/fsclap by default. It can be deleted at any time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from storage.files import locked, written_aside
from storage.objects import Place, PlaceError

CACHE = "FSCLAP_CACHE"
_STATE = ".copy.json"
"""In a copy: name -> version of the object, and size and time of the file when it was the same."""
_ATTEMPTS = 20
_AT_ONCE = 8

State = dict[str, list[str | int]]


def cache() -> Path:
    """Return the folder of the copies."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "fsclap")


def local_copy(place: Place) -> Path:
    """Return a local folder with the files of a place: itself if it is local, else an up-to-date copy.

    Only what changed is fetched. A file that was made or changed in the copy alone stays, unless its object
    changed as well.

    Raises:
        PlaceError: The files were replaced again and again while they were fetched.
    """
    if place.is_local:
        return place.folder
    folder = _folder(place)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), what=f"the copy of {place}"):
        for _ in range(_ATTEMPTS):
            if _fetch(place, folder):
                return folder
    raise PlaceError(f"{place} was replaced again and again while it was fetched; try again later")


def drop_copy(place: Place) -> None:
    """Remove the local copy of a place in an object store."""
    if not place.is_local:
        shutil.rmtree(_folder(place), ignore_errors=True)


def _folder(place: Place) -> Path:
    return cache() / f"{hashlib.sha256(place.location.encode()).hexdigest()[:16]}-{place.name}"


def upload(folder: Path, place: Place, *, last: Sequence[str] = ()) -> None:
    """Bring the files of a local folder to a place, without hidden ones, and what is there already.

    What was removed from a copy is removed from the place.

    Args:
        folder: The local folder; nothing happens if it is the place itself.
        place: Where to.
        last: Names of the files that show that the others are complete, in the order of writing.
    """
    if place.is_local and place.folder.resolve() == folder.resolve():
        return
    state = {} if place.is_local else _read(folder)
    names = [name for name in _files(folder) if state.get(name, [None])[1:] != _facts(folder / name)]
    first, then = [name for name in names if name not in last], [name for name in last if name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        state |= dict(zip(first, pool.map(lambda name: _send(folder, place, name), first), strict=True))
    for name in then:
        state[name] = _send(folder, place, name)
    if not place.is_local:
        removed = [name for name in state if not (folder / name).is_file()]
        place.delete(*removed)
        _write(folder, {name: facts for name, facts in state.items() if name not in removed})


def _send(folder: Path, place: Place, name: str) -> list[str | int]:
    facts = _facts(folder / name)  # before: a file that changes meanwhile is sent again the next time
    return [place.store.put(name, folder / name), *facts]


def _fetch(place: Place, folder: Path) -> bool:
    """Bring a copy up to date; False if a file was replaced meanwhile."""
    listed = list(place.list())
    # Some object stores list a folder as if it were a file.
    folders = {str(parent) for entry in listed for parent in PurePosixPath(entry.name).parents}
    state, entries = _read(folder), {entry.name: entry for entry in listed if entry.name not in folders}

    def is_current(name: str) -> bool:
        return state.get(name, [None])[0] == entries[name].version and (folder / name).is_file()

    def save(name: str) -> bool:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        version = place.store.save(name, folder / name)
        if version is not None:
            modified = entries[name].modified.timestamp()
            os.utime(folder / name, (modified, modified))  # readers look for the newest
            state[name] = [version, *_facts(folder / name)]
        return version == entries[name].version

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        whole = all(list(pool.map(save, [name for name in entries if not is_current(name)])))
    for name in state.keys() - entries.keys():
        file = folder / name
        if file.is_file() and _facts(file) == state[name][1:]:  # else it was changed here since
            file.unlink()
        del state[name]
    _write(folder, state)
    return whole


def _files(folder: Path) -> list[str]:
    relative = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts)]


def _facts(file: Path) -> list[str | int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _read(folder: Path) -> State:
    try:
        state = json.loads((folder / _STATE).read_bytes())
    except (OSError, ValueError):
        return {}  # everything is fetched again
    return state if isinstance(state, dict) else {}


def _write(folder: Path, state: State) -> None:
    with written_aside(folder / _STATE) as part:
        part.write_text(json.dumps(state))
