"""Fetch weights from a model hub: the one place that needs a network.

Both hubs' own clients do the download (resuming, in parallel, with a mirror from
MODELSCOPE_ENDPOINT or HF_ENDPOINT and a token from `modelscope login` or HF_TOKEN); what arrived is
then compared with what the hub lists.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from fsclap.weights import (
    LIBRARY,
    MANIFEST,
    Hub,
    Manifest,
    WeightsError,
    WeightsSettings,
    library,
    place,
    write_manifest,
)

T = TypeVar("T")

UNUSED = ("example/*", "examples/*", "fig/*", "image/*", "*.png", "*.jpg", "*.svg", "*.wav", "*.mp3", "*.gif", ".git*")
"""Files that hubs keep with a model and no engine reads."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the hub lists it; small files have no SHA-256 there."""

    path: str
    size: int
    sha256: str | None


def fetch(settings: WeightsSettings) -> Manifest:
    """Download a model into the library, compare it with the hub's list, and leave a manifest.

    Interrupted, it goes on where it stopped; complete, it only compares again.

    Raises:
        WeightsError: The hub can't be reached, has no such model or revision, requires a login, the
            disk is too small, or a file isn't what the hub lists.
    """
    if settings.folder is not None:
        raise WeightsError(f"{settings.name} is read from your own folder {settings.folder}: there is nothing to fetch")
    folder = place(settings)
    listing, download = HUBS[settings.hub]
    listed = _asked(settings, lambda: listing(settings.name, settings.revision))
    _require_space(folder, sum(file.size for file in listed))
    folder.mkdir(parents=True, exist_ok=True)
    _asked(settings, lambda: download(settings.name, settings.revision, folder))
    manifest = write_manifest(
        folder, name=settings.name, hub=settings.hub, revision=settings.revision, licence=declared_licence(folder)
    )
    try:
        _compare(manifest, listed, folder)
    except WeightsError:
        (folder / MANIFEST).unlink()
        raise
    return manifest


def declared_licence(folder: Path) -> str:
    """Read the licence in the front matter of a model's README.md, or "unknown"."""
    readme = folder / "README.md"
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---", 2) if readme.exists() else []
    if len(parts) < 3 or parts[0].strip():
        return "unknown"
    try:
        fields = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return "unknown"
    return str(fields.get("license") or "unknown") if isinstance(fields, dict) else "unknown"


def _list_huggingface(name: str, revision: str) -> list[Listed]:
    from huggingface_hub import HfApi

    siblings = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
    return [Listed(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None) for file in siblings]


def _download_huggingface(name: str, revision: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(name, revision=revision, local_dir=folder, ignore_patterns=list(UNUSED))


def _list_modelscope(name: str, revision: str) -> list[Listed]:
    from modelscope_hub import HubApi

    files = HubApi().list_repo_files(name, "model", revision=revision)
    return [Listed(file.path, file.size or 0, file.sha256) for file in files if file.type != "tree"]


def _download_modelscope(name: str, revision: str, folder: Path) -> None:
    from modelscope.hub.snapshot_download import snapshot_download

    snapshot_download(name, revision=revision, local_dir=str(folder), ignore_patterns=list(UNUSED))


HUBS: dict[Hub, tuple[Callable[[str, str], list[Listed]], Callable[[str, str, Path], None]]] = {
    "huggingface": (_list_huggingface, _download_huggingface),
    "modelscope": (_list_modelscope, _download_modelscope),
}
"""Hub -> how to list the files of a model, and how to download them."""


def _asked(settings: WeightsSettings, ask: Callable[[], T]) -> T:
    """Call a hub's client; turn its exceptions into WeightsError."""
    from huggingface_hub.errors import HTTPError  # of whichever HTTP library the client is built on
    from modelscope_hub.errors import HubError

    try:
        return ask()
    except (OSError, HTTPError, HubError) as error:
        where = f"{settings.hub}: {settings.name}, revision {settings.revision}"
        what = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{where}: {what}. {_advice(error, settings.hub)}") from error


def _advice(error: Exception, hub: Hub) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status_code", None)
    endpoint = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}[hub]
    if status in (401, 403):
        login = {"modelscope": "run `modelscope login`", "huggingface": "run `hf auth login` or set HF_TOKEN"}[hub]
        return f"The hub gives it to those who are logged in and have accepted its terms, if it exists: {login}"
    if status == 404 or "NotFound" in type(error).__name__ or "NotExist" in type(error).__name__:
        return "The hub has no such model or revision: check the name, and --hub and --revision"
    return (
        f"Check the network and its proxy; {endpoint} names a mirror. Or run this where the hub can be reached and "
        f"copy {library()} over"
    )


def _require_space(folder: Path, size: int) -> None:
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    require_free(folder, size - held)


def require_free(folder: Path, missing: int) -> None:
    """Refuse to fetch more bytes into a folder than its disk has left.

    Raises:
        WeightsError: Too little space is left.
    """
    ground = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(ground).free
    if missing > free:
        raise WeightsError(
            f"{folder}: {missing / 1e9:.1f} GB to fetch, but the disk has {free / 1e9:.1f} GB left; make "
            f"room, or name a folder on another disk in {LIBRARY}"
        )


def _compare(manifest: Manifest, listed: list[Listed], folder: Path) -> None:
    for file in listed:
        record = manifest.files.get(file.path)
        if record is None:
            continue  # not downloaded, or no part of the model
        if record.size != file.size or (file.sha256 is not None and record.sha256 != file.sha256):
            (folder / file.path).unlink()
            raise WeightsError(
                f"{folder / file.path} is not the file that {manifest.hub} lists ({record.size} bytes for {file.size}, "
                "or another SHA-256). It was removed: fetch again; if it persists, mistrust the mirror or the proxy"
            )
    if not manifest.files:
        raise WeightsError(f"{manifest.hub} lists no file for {manifest.name}, revision {manifest.revision}")
