"""Build an index, or bring one up to date with its corpus.

The folder of a build is named by what goes into it, and vectors are written as they are computed,
so an interrupted build continues where it stopped.
"""

import datetime
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from tqdm import tqdm

from fsclap.data.clips import decode_clip
from fsclap.data.measured import speaker_context
from fsclap.files import locked, written_aside
from fsclap.model.systems import System, load_system
from fsclap.retrieval import approximate
from fsclap.retrieval.index import (
    APPROXIMATE,
    CAPTION_VECTORS,
    CAPTIONS,
    HALF,
    RECORD,
    ROWS,
    VECTORS,
    Index,
    ModelStatus,
    Record,
    SearchError,
    model_digest,
    read_record,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

HALF_ABOVE = 50_000
"""Clips above which a first look at vectors in half precision is faster than it costs."""
_CLIPS_AT_A_TIME = 64
NOT_FINITE = "the model gives it a vector with NaN or infinity"
_CAPTIONS_AT_A_TIME = 256
_COPIED_AT_A_TIME = 4096


class Version(Protocol):
    """A version of a corpus, as `storage.versions.CorpusVersion` provides it.

    Attributes:
        location: Path or URL of the corpus.
        table: Id that distinguishes the corpus from an earlier one at the same location.
        version: Number of the version.
    """

    @property
    def location(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def version(self) -> int: ...

    def rows(self) -> pa.Table:
        """Read one row per clip: `utterance_id`, `recipe`, `caption`, and columns to filter by."""
        ...

    def audio(self, utterance_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield utterance id and FLAC file of these clips, once each, in any order."""
        ...


def build_index(
    folder: Path,
    model_folder: Path,
    version: Version,
    *,
    model_location: str | None = None,
    status: ModelStatus | None = None,
    device: str = "auto",
    half_above: int = HALF_ABOVE,
    approximate_above: int = approximate.ABOVE,
    progress: bool = True,
) -> Index:
    """Embed a version of a corpus, or bring an index up to date with it.

    Vectors that the index already has from the same model are reused. Clips that can't be decoded
    are left out, logged and recorded. When several processes build one index, one works and the
    others wait.

    Args:
        folder: Folder of the index; created if absent.
        model_folder: Folder of the model, for `load_system`.
        version: The corpus version to embed.
        model_location: Where others find the model; by default `model_folder`, unless that is a copy.
        status: How far the model can be trusted, kept in the record; None: as an earlier index of
            the same model says.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        half_above: Number of clips above which vectors are kept in half precision too.
        approximate_above: Number of clips above which searches are approximate.
        progress: Show progress bars.

    Raises:
        SearchError: The version has no clip that can be embedded, or the model can't embed a clip
            without its caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = model_digest(model_folder)
    build = hashlib.sha256(json.dumps([version.table, version.version, weights]).encode()).hexdigest()[:16]
    with locked(folder):
        earlier = _reusable(folder, weights)
        if earlier is not None and earlier.record.build == build:
            log.info("%s is up to date: %s version %d", folder, version.location, version.version)
            return _with_status(folder, earlier, status)
        model = _load(model_folder, device)
        place = folder / build
        place.mkdir(exist_ok=True)
        embedded = _embed_version(place, model, version, earlier, progress=progress)
        if embedded.clips > approximate_above:
            with written_aside(place / APPROXIMATE) as aside:
                approximate.build(np.load(place / VECTORS, mmap_mode="r"), aside)
        elif embedded.clips > half_above:
            _halve(place)
        record = _record(version, embedded, model=model_location or str(model_folder), weights=weights, build=build)
        known = earlier.record.model_status if earlier is not None else None
        record = record.model_copy(update={"model_status": status or known})
        _publish(folder, record)
        _prune(folder, keep=build)
    return Index.open(folder)


def _halve(place: Path) -> None:
    """Write the vectors of a build in half precision."""
    vectors = np.load(place / VECTORS, mmap_mode="r")
    with written_aside(place / HALF) as aside:
        halved = open_memmap(aside, mode="w+", dtype=np.float16, shape=vectors.shape)
        for start in range(0, len(vectors), _COPIED_AT_A_TIME):
            halved[start : start + _COPIED_AT_A_TIME] = vectors[start : start + _COPIED_AT_A_TIME]
        halved.flush()


def _reusable(folder: Path, weights: str) -> Index | None:
    """Open the index that exists, if the same model computed its vectors."""
    try:
        record = read_record(folder)
        return Index.open(folder) if record is not None and record.weights == weights else None
    except SearchError as error:
        log.warning("%s is built from scratch: %s", folder, error)
        return None


def _with_status(folder: Path, index: Index, status: ModelStatus | None) -> Index:
    """Bring the status in the record of an index up to date."""
    if status is None or status == index.record.model_status:
        return index
    _publish(folder, index.record.model_copy(update={"model_status": status}))
    return Index.open(folder)


def _load(folder: Path, device: str) -> System:
    model = load_system(folder, device)
    if model.settings.fusion == "paired":
        raise SearchError(
            f"{folder}: a model with fusion=paired can't be used for search; train one with fusion=shared"
        )
    broken = [name for name, weights in model.state_dict().items() if not weights.isfinite().all()]
    if broken:
        raise SearchError(
            f"{folder}: {len(broken)} of the model's weights, such as {broken[0]}, hold NaN or infinity: the file is "
            "damaged, or the training went wrong. Train again, or name another model"
        )
    return model


@dataclass(frozen=True)
class _Embedded:
    """The fields of `Record` that say what `_embed_version` wrote."""

    embedding: int
    clips: int
    captions: int
    left_out: dict[str, str]


def _embed_version(place: Path, model: System, version: Version, earlier: Index | None, *, progress: bool) -> _Embedded:
    """Write the vectors of a version's clips and captions, with their rows."""
    rows = version.rows()
    captions = rows["caption"].unique().to_pylist()
    width = model.settings.embedding
    clip_vectors = _Filling(place / VECTORS, len(rows), width)
    caption_vectors = _Filling(place / CAPTION_VECTORS, len(captions), width)
    left_out = _embed_clips(clip_vectors, model, version, rows, earlier, progress=progress)
    _embed_captions(caption_vectors, model, captions, earlier, progress=progress)
    if len(left_out) == len(rows):
        raise SearchError(
            f"{version.location} version {version.version} has no clip that can be embedded; check the corpus: "
            f"fsclap corpus verify {version.location}"
        )
    rows = rows.take(clip_vectors.finish())
    caption_vectors.finish()
    _write(place / ROWS, rows)
    _write(place / CAPTIONS, pa.table({"caption": pa.array(captions, pa.string())}))
    return _Embedded(width, len(rows), len(captions), left_out)


def _record(version: Version, embedded: _Embedded, *, model: str, weights: str, build: str) -> Record:
    return Record(
        corpus=version.location,
        table=version.table,
        version=version.version,
        model=model,
        weights=weights,
        build=build,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **asdict(embedded),
    )


def _publish(folder: Path, record: Record) -> None:
    with written_aside(folder / RECORD) as aside:
        aside.write_text(record.noted(folder).model_dump_json(indent=1) + "\n", encoding="utf-8")


def _prune(folder: Path, *, keep: str) -> None:
    """Remove earlier builds; a process that has one mapped keeps its pages."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def _embed_clips(
    filling: "_Filling", model: System, version: Version, rows: pa.Table, earlier: Index | None, *, progress: bool
) -> dict[str, str]:
    """Fill in the vectors of the clips; return utterance id -> reason for those that have none."""
    if earlier is not None:
        known = _numbers(_keys(earlier.rows))
        _reuse(filling, [known.get(key) for key in _keys(rows)], earlier.vectors)
    ids = rows["utterance_id"].to_pylist()
    missing = {ids[row]: int(row) for row in filling.missing()}
    context = speaker_context(rows, model.audio_encoder)
    left_out = {}

    def features_of(clip: tuple[str, bytes]) -> np.ndarray | str:
        return _features(model, clip[1], None if context is None else context[missing[clip[0]]])

    bar = tqdm(version.audio(list(missing)), total=len(missing), desc="clips", unit=" clips", disable=not progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for clips in _groups(bar, _CLIPS_AT_A_TIME):
            usable = {}
            for (id_, _), features in zip(clips, pool.map(features_of, clips), strict=True):
                if isinstance(features, str):
                    log.warning("clip %s is left out: %s", id_, features)
                    left_out[id_] = features
                else:
                    usable[missing[id_]] = features
            if usable:
                vectors = model.embed_audio_features(list(usable.values())).cpu().numpy()
                finite = np.isfinite(vectors).all(axis=1)
                filling.put([row for row, ok in zip(usable, finite, strict=True) if ok], vectors[finite])
                for row, ok in zip(usable, finite, strict=True):
                    if not ok:
                        log.warning("clip %s is left out: %s", ids[row], NOT_FINITE)
                        left_out[ids[row]] = NOT_FINITE
    return left_out


def _features(model: System, flac: bytes, context: np.ndarray | None) -> np.ndarray | str:
    """Compute the features of a clip, or say why it has none."""
    try:
        return model.audio_features(decode_clip(flac, model.audio_encoder.sample_rate), context)
    except ValueError as error:
        return str(error)


def _embed_captions(
    filling: "_Filling", model: System, captions: Sequence[str], earlier: Index | None, *, progress: bool
) -> None:
    if earlier is not None:
        known = _numbers(earlier.captions.to_pylist())
        _reuse(filling, [known.get(caption) for caption in captions], earlier.caption_vectors)
    bar = tqdm(filling.missing().tolist(), desc="captions", unit=" captions", disable=not progress)
    for rows in _groups(bar, _CAPTIONS_AT_A_TIME):
        vectors = model.embed_text([captions[row] for row in rows]).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise SearchError(f"a caption such as {captions[rows[0]]!r} has no vector: {NOT_FINITE}")
        filling.put(rows, vectors)


def _reuse(filling: "_Filling", sources: Sequence[int | None], vectors: np.ndarray) -> None:
    """Copy vectors of an earlier index: row i of the new one is its row sources[i]."""
    known = [row for row in filling.missing().tolist() if sources[row] is not None]
    for rows in _groups(known, _COPIED_AT_A_TIME):
        filling.put(rows, vectors[[sources[row] for row in rows]])


def _keys(rows: pa.Table) -> list[tuple[str, str]]:
    """List what the sound of each clip depends on."""
    return list(zip(rows["utterance_id"].to_pylist(), rows["recipe"].to_pylist(), strict=True))


def _numbers(keys: Iterable[T]) -> dict[T, int]:
    return {key: number for number, key in enumerate(keys)}


class _Filling:
    """An array on disk, filled row by row; what an interrupted process filled is kept."""

    def __init__(self, file: Path, count: int, width: int) -> None:
        self.file, self._partial, self._marks = file, file.with_suffix(".partial"), file.with_suffix(".done")
        mode = "r+" if self._partial.is_file() and self._marks.is_file() else "w+"
        self.vectors = open_memmap(self._partial, mode=mode, dtype=np.float32, shape=(count, width))
        self._done = open_memmap(self._marks, mode=mode, dtype=np.bool_, shape=(count,))

    def missing(self) -> np.ndarray:
        """List the rows that have no vector yet."""
        return np.flatnonzero(~self._done)

    def put(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        self.vectors[rows] = vectors
        self.vectors.flush()
        self._done[rows] = True
        self._done.flush()

    def finish(self) -> np.ndarray:
        """Write the array of the rows that have a vector, and return their numbers."""
        filled = np.flatnonzero(self._done)
        if len(filled) == len(self._done):
            self._partial.replace(self.file)
        else:
            with written_aside(self.file) as aside, aside.open("wb") as sink:
                np.save(sink, self.vectors[filled])
            self._partial.unlink()
        self._marks.unlink()
        return filled


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
