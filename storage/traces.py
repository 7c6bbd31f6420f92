"""Erase sources or people from what was made of a corpus: models' lists of clips, an index, work files."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from storage.copies import drop_copy
from storage.models import ModelStore
from storage.objects import Place
from storage.sought import Sought
from storage.work import MANIFEST

_NOTHING = object()


def erase_from_models(
    store: ModelStore, sought: Sought, *, of_version: Callable[[str, int | None], Sought] = lambda *_: Sought()
) -> list[str]:
    """Take what is sought out of the lists of every model, and remove reports, which have clips' sound.

    The weights stay: what they were trained on can't be taken out of them.

    Args:
        store: The models.
        sought: Ids of sources, or ids of clips and names of speakers.
        of_version: Location and version of the corpus that a model was trained on -> what is sought besides: another
            version may have had another clip of that id.

    Returns:
        The models that had any of it, sorted: train again if the weights may not stay either.
    """
    changed = set()
    texts: dict[str, Sought] = {}
    for entry in list(store.root.list()):
        name, _, within = entry.name.partition("/")
        if within and name not in texts:
            texts[name] = sought | of_version(*_trained_on(store.place(name)))
        content = store.root.read(entry.name) or b""
        if within and texts[name].in_file(entry.name, content):
            changed.add(name)
            _scrub(store.root, entry.name, content, texts[name])
    for name in changed:
        place = store.place(name)
        place.delete(*(entry.name for entry in place.list("evaluation/")))
        drop_copy(place)
    return sorted(changed)


def _trained_on(model: Place) -> tuple[str, int | None]:
    run = json.loads(model.read("run.json") or b"{}")
    return str(run.get("corpus", "")), run.get("version")


def _scrub(place: Place, name: str, content: bytes, sought: Sought) -> None:
    """Write a JSON file without what names one of the texts; remove any other file that does."""
    if name.endswith(".json"):
        place.write(name, json.dumps(_without(json.loads(content), sought), indent=1).encode())
    elif name.endswith(".jsonl"):
        left = (_without(json.loads(line), sought) for line in content.splitlines() if line.strip())
        place.write(name, "".join(f"{json.dumps(value)}\n" for value in left if value not in ({}, [])).encode())
    else:
        place.delete(name)


def _without(value: Any, sought: Sought) -> Any:
    if isinstance(value, list):
        return [left for each in value if (left := _without(each, sought)) is not _NOTHING]
    if isinstance(value, dict):
        parts = {key: _without(each, sought) for key, each in value.items() if not sought.in_text(key)}
        return {key: each for key, each in parts.items() if each is not _NOTHING}
    return _NOTHING if isinstance(value, str) and sought.in_text(value) else value


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
