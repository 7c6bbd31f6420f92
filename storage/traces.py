"""Erase sources from what was made of a corpus: models' lists of clips, an index, work files."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.copies import drop_copy
from storage.models import ModelStore
from storage.objects import Place
from storage.work import MANIFEST

_NOTHING = object()


def erase_from_models(store: ModelStore, source_ids: Iterable[str]) -> list[str]:
    """Take clips of sources out of the lists of every model, and remove reports, which have their sound.

    The weights stay: what they were trained on can't be taken out of them.

    Returns:
        The models that had a clip of them, sorted: train again if the weights may not stay either.
    """
    ids = frozenset(source_ids)
    changed = set()
    for entry in list(store.root.list()):
        content = store.root.read(entry.name) or b""
        if "/" in entry.name and any(source_id.encode() in content for source_id in ids):
            changed.add(entry.name.split("/")[0])
            _scrub(store.root, entry.name, content, ids)
    for name in changed:
        place = store.place(name)
        place.delete(*(entry.name for entry in place.list("evaluation/")))
        drop_copy(place)
    return sorted(changed)


def _scrub(place: Place, name: str, content: bytes, ids: frozenset[str]) -> None:
    """Write a JSON file without what names one of the ids; remove any other file that does."""
    if name.endswith(".json"):
        place.write(name, json.dumps(_without(json.loads(content), ids), indent=1).encode())
    elif name.endswith(".jsonl"):
        left = (_without(json.loads(line), ids) for line in content.splitlines() if line.strip())
        place.write(name, "".join(f"{json.dumps(value)}\n" for value in left if value not in ({}, [])).encode())
    else:
        place.delete(name)


def _without(value: Any, ids: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [left for each in value if (left := _without(each, ids)) is not _NOTHING]
    if isinstance(value, dict):
        parts = {key: _without(each, ids) for key, each in value.items() if _without(key, ids) is not _NOTHING}
        return {key: each for key, each in parts.items() if each is not _NOTHING}
    return _NOTHING if isinstance(value, str) and any(source_id in value for source_id in ids) else value


def erase_index(index: Place) -> bool:
    """Remove an index, to be built again without the sources; return whether there was one."""
    names = [entry.name for entry in index.list()]
    index.delete(*names)
    drop_copy(index)
    return bool(names)


def erase_from_work(work: Path, source_ids: Iterable[str]) -> int:
    """Remove the outputs of all stages of sources, and the clips and features of trainings, which are made again.

    Returns:
        The number of outputs.
    """
    # A step depends on earlier ones by their keys, or by the digest of a file that they wrote.
    gone = set(source_ids)
    left = {path.parent: json.loads(path.read_bytes()) for path in work.glob(f"*/*/*/{MANIFEST}")}
    removed: list[Path] = []
    while found := [folder for folder, manifest in left.items() if gone.intersection(manifest["step"]["inputs"])]:
        for folder in found:
            gone |= {folder.name, *(file["sha256"] for file in left.pop(folder)["files"].values())}
        removed += found
    for folder in [*removed, work / "clips", work / "features"]:
        shutil.rmtree(folder, ignore_errors=True)
    return len(removed)
