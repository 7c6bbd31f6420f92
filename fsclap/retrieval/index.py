"""An index: the vectors of a corpus version's clips and captions, made with one model.

    {folder}/index.json                 what it holds; replaced last, so an index is whole or not there
    {folder}/{build}/vectors.npy        (clips, embedding) float32, rows of unit norm
    {folder}/{build}/rows.arrow         a row a vector: what the corpus says of the clip
    {folder}/{build}/captions.npy       (captions, embedding) float32, rows of unit norm
    {folder}/{build}/captions.arrow     the captions that occur, each once
    {folder}/{build}/approximate.faiss  of a large corpus alone: `fsclap.retrieval.approximate`

The files are mapped into memory, not read: opening takes no time, and processes share one copy. `{build}` is named by
what goes into it, so a build that was interrupted is taken up where it was.
"""

import datetime
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from fsclap.audio import decode_flac, resample
from fsclap.data.clips import MIN_CLIP
from fsclap.files import locked, written_aside
from fsclap.model.fsclap import FSCLAP, load_model
from fsclap.retrieval import approximate

log = logging.getLogger(__name__)

T = TypeVar("T")

RECORD, APPROXIMATE = "index.json", "approximate.faiss"
_CLIPS_AT_A_TIME = 64
_CAPTIONS_AT_A_TIME = 256


class SearchError(RuntimeError):
    """An index, or a question to it, that cannot be used. The message says what to do."""


class Version(Protocol):
    """A version of a corpus, as `storage.versions.CorpusVersion` gives it.

    Attributes:
        location: Of the corpus.
        table: What tells it from another corpus that was at the same place.
        version: Its number.
    """

    @property
    def location(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def version(self) -> int: ...

    def rows(self) -> pa.Table:
        """A row a clip: `utterance_id`, `recipe`, `caption`, and whatever else people search by."""
        ...

    def audio(self, utterance_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Utterance id and FLAC file of these clips, each once, in any order."""
        ...


class Record(BaseModel):
    """What an index holds.

    Attributes:
        corpus, table, version: The version of a corpus, as in `Version`.
        model: Folder of the model.
        weights: `model_digest` of that folder.
        build: Folder of the files.
        embedding: Length of a vector.
        clips, captions: Vectors.
        left_out: Utterance id -> why it has no vector.
        date: ISO date and time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str
    table: str
    version: int
    model: str
    weights: str
    build: str
    embedding: int
    clips: int
    captions: int
    left_out: dict[str, str]
    date: str


@dataclass(frozen=True)
class Index:
    """Attributes:
    record: What it holds.
    vectors: (clips, embedding) float32, rows of unit norm, mapped.
    rows: A row a vector, mapped.
    caption_vectors: (captions, embedding) float32, rows of unit norm, mapped.
    captions: Of each of those.
    approximate: File of the approximate index, when there is one.
    """

    folder: Path
    record: Record
    vectors: np.ndarray
    rows: pa.Table
    caption_vectors: np.ndarray
    captions: pa.ChunkedArray
    approximate: Path | None

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Open what `build_index` made.

        Raises:
            SearchError: There is none, or a file of it is damaged.
        """
        folder = Path(folder)
        record = read_record(folder)
        if record is None:
            raise SearchError(f"{folder} holds no index; make one: fsclap index build --index {folder}")
        place = folder / record.build
        try:
            index = cls(
                folder=folder,
                record=record,
                vectors=np.load(place / "vectors.npy", mmap_mode="r"),
                rows=_mapped(place / "rows.arrow"),
                caption_vectors=np.load(place / "captions.npy", mmap_mode="r"),
                captions=_mapped(place / "captions.arrow")["caption"],
                approximate=file if (file := place / APPROXIMATE).is_file() else None,
            )
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise SearchError(f"{place} is damaged ({error}); remove {folder} and build the index again") from error
        shapes = [(len(index.rows), record.embedding), (len(index.captions), record.embedding)]
        if [index.vectors.shape, index.caption_vectors.shape] != shapes or len(index.rows) != record.clips:
            raise SearchError(f"{place} is damaged: its files do not fit together; remove {folder} and build it again")
        return index


def build_index(
    folder: Path,
    model_folder: Path,
    version: Version,
    *,
    device: str = "auto",
    approximate_above: int = approximate.ABOVE,
    progress: bool = True,
) -> Index:
    """Embed a version of a corpus, or bring an index up to date with it.

    A clip or caption that the index has a vector of, by the same model, is not embedded again. Clips that cannot be
    heard are left out, logged and recorded. Of several processes that build one index, one works and the others wait.

    Args:
        folder: Of the index; made when absent.
        model_folder: `FSCLAP.from_pretrained`.
        device: "cpu", "cuda" or "auto": a GPU when there is one.
        approximate_above: Clips above which searches are approximate.

    Raises:
        SearchError: The version has no clip that can be embedded, or the model gives clips no vectors of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = model_digest(model_folder)
    build = hashlib.sha256(json.dumps([version.table, version.version, weights]).encode()).hexdigest()[:16]
    with locked(folder):
        earlier = _usable(folder, weights)
        if earlier is not None and earlier.record.build == build:
            log.info("%s is up to date: %s version %d", folder, version.location, version.version)
            return earlier
        model = load_model(model_folder, device)
        if model.settings.fusion == "paired":
            raise SearchError(
                f"{model_folder}: a model with fusion=paired can't be searched with; train one with shared"
            )
        place = folder / build
        place.mkdir(exist_ok=True)
        rows = version.rows()
        captions = rows["caption"].unique().to_pylist()
        width = model.settings.embedding
        clip_vectors = _Filling(place / "vectors.npy", len(rows), width)
        caption_vectors = _Filling(place / "captions.npy", len(captions), width)
        left_out = _embed_clips(clip_vectors, model, version, rows, earlier, progress=progress)
        _embed_captions(caption_vectors, model, captions, earlier, progress=progress)
        if len(left_out) == len(rows):
            raise SearchError(f"{version.location} version {version.version} has no clip that can be embedded")
        rows = rows.take(clip_vectors.finish())
        caption_vectors.finish()
        if len(rows) > approximate_above:
            with written_aside(place / APPROXIMATE) as aside:
                approximate.build(np.load(place / "vectors.npy", mmap_mode="r"), aside)
        _write(place / "rows.arrow", rows)
        _write(place / "captions.arrow", pa.table({"caption": pa.array(captions, pa.string())}))
        record = Record(
            corpus=version.location,
            table=version.table,
            version=version.version,
            model=str(model_folder),
            weights=weights,
            build=build,
            embedding=width,
            clips=len(rows),
            captions=len(captions),
            left_out=left_out,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        with written_aside(folder / RECORD) as aside:
            aside.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for other in folder.iterdir():
            if other.is_dir() and other.name != build:
                shutil.rmtree(other, ignore_errors=True)  # whoever has it mapped keeps it
    return Index.open(folder)


def index_folder(corpus: str) -> Path:
    """Where the index of a corpus is by default: beside it; in data/ when the corpus is in an object store."""
    location = corpus.rstrip("/").removeprefix("file://")
    return Path("data", f"{location.rsplit('/', 1)[-1]}-index") if "://" in location else Path(f"{location}-index")


def read_record(folder: Path) -> Record | None:
    """What the index in a folder holds; None when there is none.

    Raises:
        SearchError: Its record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise SearchError(f"{file} is damaged, or of another release; remove {folder} and build it again") from error


def model_digest(folder: Path) -> str:
    """SHA-256 over the files that make a model: its settings, what its features are computed with, its weights.

    Raises:
        SearchError: The folder holds no model.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "encoders.json", "model.safetensors"):
        try:
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise SearchError(f"{folder} holds no model: {name} can't be read ({error.strerror})") from error
    return digest.hexdigest()


def _usable(folder: Path, weights: str) -> Index | None:
    """The index that is there, when its vectors can be taken over."""
    try:
        record = read_record(folder)
        return Index.open(folder) if record is not None and record.weights == weights else None
    except SearchError as error:
        log.warning("%s: built anew: %s", folder, error)
        return None


def _embed_clips(
    filling: "_Filling", model: FSCLAP, version: Version, rows: pa.Table, earlier: Index | None, *, progress: bool
) -> dict[str, str]:
    """Fill in the vectors of the clips; those that have none, and why."""
    ids = rows["utterance_id"].to_pylist()
    if earlier is not None:
        known = _numbers(_keys(earlier.rows))
        _take_over(filling, [known.get(key) for key in _keys(rows)], earlier.vectors)
    missing = {ids[row]: int(row) for row in filling.missing()}
    left_out = {}
    bar = tqdm(version.audio(list(missing)), total=len(missing), desc="clips", unit=" clips", disable=not progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for clips in _groups(bar, _CLIPS_AT_A_TIME):
            found = {}
            heard = pool.map(lambda clip: _heard(model, clip[1]), clips)
            for (id_, _), features in zip(clips, heard, strict=True):
                if isinstance(features, str):
                    log.warning("left out: clip %s: %s", id_, features)
                    left_out[id_] = features
                else:
                    found[missing[id_]] = features
            if found:
                filling.put(list(found), model.embed_audio_features(list(found.values())).cpu().numpy())
    return left_out


def _embed_captions(
    filling: "_Filling", model: FSCLAP, captions: Sequence[str], earlier: Index | None, *, progress: bool
) -> None:
    if earlier is not None:
        known = _numbers(earlier.captions.to_pylist())
        _take_over(filling, [known.get(caption) for caption in captions], earlier.caption_vectors)
    bar = tqdm(filling.missing().tolist(), desc="captions", unit=" captions", disable=not progress)
    for some in _groups(bar, _CAPTIONS_AT_A_TIME):
        filling.put(some, model.embed_text([captions[number] for number in some]).cpu().numpy())


def _take_over(filling: "_Filling", places: Sequence[int | None], vectors: np.ndarray) -> None:
    """Copy the vectors that an earlier index has: row i of the new one is row places[i] there."""
    rows = [row for row in filling.missing().tolist() if places[row] is not None]
    for some in _groups(rows, 4096):
        filling.put(some, vectors[[places[row] for row in some]])


def _keys(rows: pa.Table) -> list[tuple[str, str]]:
    """What a clip's sound depends on."""
    return list(zip(rows["utterance_id"].to_pylist(), rows["recipe"].to_pylist(), strict=True))


def _numbers(keys: Iterable[T]) -> dict[T, int]:
    return {key: number for number, key in enumerate(keys)}


class _Filling:
    """An array on disk that is filled piece by piece; what an interrupted process had filled stays."""

    def __init__(self, file: Path, count: int, width: int) -> None:
        self.file, self._partial, self._marks = file, file.with_suffix(".partial"), file.with_suffix(".done")
        mode = "r+" if self._partial.is_file() and self._marks.is_file() else "w+"
        self.vectors = open_memmap(self._partial, mode=mode, dtype=np.float32, shape=(count, width))
        self._done = open_memmap(self._marks, mode=mode, dtype=np.bool_, shape=(count,))

    def missing(self) -> np.ndarray:
        """The rows that have no vector yet."""
        return np.flatnonzero(~self._done)

    def put(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        self.vectors[rows] = vectors
        self.vectors.flush()
        self._done[rows] = True
        self._done.flush()

    def finish(self) -> np.ndarray:
        """Make the array from the rows that have a vector; which they are."""
        there = np.flatnonzero(self._done)
        if len(there) == len(self._done):
            self._partial.replace(self.file)
        else:
            with written_aside(self.file) as aside, aside.open("wb") as sink:
                np.save(sink, self.vectors[there])
            self._partial.unlink()
        self._marks.unlink()
        return there


def _heard(model: FSCLAP, flac: bytes) -> np.ndarray | str:
    """What the model takes of a clip, or why it takes nothing."""
    try:
        wave, rate = decode_flac(flac)
        if len(wave) < MIN_CLIP * rate:
            return f"it lasts {len(wave)} samples at {rate} Hz; {MIN_CLIP:g} s are the least"
        return model.audio_features(resample(wave, rate, model.audio_encoder.sample_rate))
    except ValueError as error:
        return str(error)


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _write(file: Path, table: pa.Table) -> None:
    with (
        written_aside(file) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table.combine_chunks())


def _mapped(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
