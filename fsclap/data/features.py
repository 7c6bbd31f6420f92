"""Features for the encoders, computed once and kept on disk, keyed by the content they come from.

    {folder}/{revision}/part-*.arrow    key: SHA-256 of the audio or the caption;
                                        values: float16, mapped into memory

A new version of the corpus only adds the features of its new clips. Parts are written aside,
renamed into place and never changed, so readers need no lock.
"""

import functools
import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from fsclap.data.clips import ClipStore, CorruptClip
from fsclap.files import locked, written_aside
from fsclap.model.encoders import AudioEncoder, TextEncoder

log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
"""New features that are written as one part: a killed process loses at most this much."""
_CAPTIONS_AT_A_TIME = 256


class Features(Protocol):
    """Features by position: (frames, dim) float16 or float32, or (tokens,) int64."""

    @property
    def lengths(self) -> np.ndarray:
        """Length of each sequence, or a number that grows with it."""
        ...

    def __getitem__(self, position: int) -> np.ndarray: ...


@dataclass(frozen=True)
class FeatureCache:
    """Feature sequences, keyed by the digest of what they were computed from.

    Attributes:
        folder: Folder of all caches.
        revision: Revision of the encoder; each has a separate cache.
    """

    folder: Path
    revision: str

    @property
    def path(self) -> Path:
        """Folder of the parts."""
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", self.revision)[:60]
        return self.folder / f"{readable}-{hashlib.sha256(self.revision.encode()).hexdigest()[:8]}"

    @functools.cached_property
    def _parts(self) -> list[pa.Table]:
        tables = []
        for file in sorted(self.path.glob("part-*.arrow")):
            try:
                tables.append(pa.ipc.open_file(pa.memory_map(str(file))).read_all())
            except pa.ArrowInvalid as error:
                log.warning("%s is damaged (%s); its features will be computed again", file, error)
        return tables

    @functools.cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        return {
            key: (part, row)
            for part, table in enumerate(self._parts)
            for row, key in enumerate(table["key"].to_pylist())
        }

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "revision": self.revision}

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> np.ndarray:
        """Return the features of a key, (frames, dim) float16, a view of the file.

        Raises:
            KeyError: They were never computed.
        """
        part, row = self._places[key]
        table = self._parts[part]
        values = np.frombuffer(table["values"][row].as_buffer(), dtype=np.float16)
        return values.reshape(table["frames"][row].as_py(), -1)

    def frames(self, keys: Sequence[str]) -> np.ndarray:
        """Return the number of frames of each key."""
        counts = [table["frames"].to_numpy() for table in self._parts]
        return np.array([counts[part][row] for part, row in map(self._places.__getitem__, keys)], dtype=np.int64)

    def fill(self, keys: Sequence[str], compute: Callable[[list[int]], Iterable[tuple[int, np.ndarray]]]) -> None:
        """Compute missing features once; another process that needs the same waits.

        Args:
            keys: Keys, possibly repeated.
            compute: From positions in `keys` to (position, (frames, dim) array); may leave some
                out.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._read_again()
        if all(key in self for key in keys):
            return
        with locked(self.path):
            self._read_again()
            missing = {key: position for position, key in enumerate(keys) if key not in self}
            self._write_parts((keys[position], values) for position, values in compute(sorted(missing.values())))
        self._read_again()

    def _write_parts(self, items: Iterable[tuple[str, np.ndarray]]) -> None:
        for left_over in self.path.glob(".*.part"):  # of a killed process
            left_over.unlink()
        pending, size = [], 0
        for key, values in items:
            pending.append((key, np.ascontiguousarray(values, dtype=np.float16)))
            size += pending[-1][1].nbytes
            if size >= PART_BYTES:
                self._write(pending)
                pending, size = [], 0
        self._write(pending)

    def _write(self, items: list[tuple[str, np.ndarray]]) -> None:
        if not items:
            return
        table = pa.table(
            {
                "key": pa.array([key for key, _ in items], pa.string()),
                "frames": pa.array([len(values) for _, values in items], pa.int32()),
                "values": pa.array([values.tobytes() for _, values in items], pa.large_binary()),
            }
        )
        with (
            written_aside(self.path / f"part-{uuid.uuid4().hex}.arrow") as part,
            pa.OSFile(str(part), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)

    def _read_again(self) -> None:
        self.__dict__.pop("_parts", None)
        self.__dict__.pop("_places", None)


@dataclass(frozen=True)
class CachedFeatures:
    """Features from a cache."""

    cache: FeatureCache
    keys: Sequence[str]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        return self.cache.frames(self.keys)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.cache[self.keys[position]]


@dataclass(frozen=True)
class LazyFeatures:
    """Features of clips, decoded and computed on access."""

    store: ClipStore
    rows: Sequence[int]
    encoder: AudioEncoder

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Size in bytes of each clip's FLAC file, which grows with its length."""
        return self.store.audio_sizes()[np.asarray(self.rows, dtype=np.int64)]

    def __getitem__(self, position: int) -> np.ndarray:
        return self.encoder.features(self.store.wave(self.rows[position], self.encoder.sample_rate))


@dataclass(frozen=True)
class TokenFeatures:
    """Token ids of captions, in memory."""

    tokens: Sequence[np.ndarray]
    captions: Sequence[int]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(self[position]) for position in range(len(self.captions))])

    def __getitem__(self, position: int) -> np.ndarray:
        return self.tokens[self.captions[position]]


def audio_features(
    store: ClipStore, rows: Sequence[int], encoder: AudioEncoder, *, folder: Path, cached: bool, progress: bool = True
) -> tuple[Features, list[CorruptClip]]:
    """Return the features of the usable clips, and the unusable clips.

    Args:
        store: Clips of the corpus version.
        rows: Rows of the store.
        encoder: Encoder that computes the features.
        folder: Folder of the caches.
        cached: Compute all features now and keep them on disk; otherwise compute each on access.
        progress: Show a bar.

    Returns:
        Features, by position among the usable rows; and why the others are unusable.
    """
    corrupt = {row: defect for row in rows if (defect := store.defect(row)) is not None}
    sound = [row for row in rows if row not in corrupt]
    if not cached:
        return LazyFeatures(store, sound, encoder), list(corrupt.values())
    digests = store.table["audio_sha256"].to_pylist()
    cache = FeatureCache(folder / "audio", encoder.revision)
    keys = [digests[row] for row in sound]

    def compute(positions: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for position in tqdm(positions, desc="audio features", unit=" clips", disable=not progress):
            try:
                yield position, _computed(store, sound[position], encoder)
            except CorruptClip as error:
                corrupt[sound[position]] = error

    cache.fill(keys, compute)
    left = [(row, key) for row, key in zip(sound, keys, strict=True) if key in cache]
    return CachedFeatures(cache, [key for _, key in left]), list(corrupt.values())


def _computed(store: ClipStore, row: int, encoder: AudioEncoder) -> np.ndarray:
    wave = store.wave(row, encoder.sample_rate)
    id_ = store.table["utterance_id"][row].as_py()
    try:
        with np.errstate(over="ignore"):  # checked below
            values = encoder.features(wave).astype(np.float16)
    except ValueError as error:
        raise CorruptClip(id_, f"its features cannot be computed: {error}") from error
    if not np.isfinite(values).all():
        raise CorruptClip(id_, "its features are not all finite in float16")
    return values


def text_features(captions: Sequence[str], encoder: TextEncoder, *, folder: Path, progress: bool = True) -> Features:
    """Return the features of captions: on disk for a frozen encoder, otherwise token ids in memory.

    Equal captions are computed once.
    """
    if encoder.frozen:
        cache = FeatureCache(folder / "text", encoder.revision)
        keys = [hashlib.sha256(caption.encode()).hexdigest() for caption in captions]

        def compute(positions: list[int]) -> Iterator[tuple[int, np.ndarray]]:
            bar = tqdm(total=len(positions), desc="text features", unit=" captions", disable=not progress)
            with bar:
                for start in range(0, len(positions), _CAPTIONS_AT_A_TIME):
                    batch = positions[start : start + _CAPTIONS_AT_A_TIME]
                    yield from zip(batch, encoder.features([captions[position] for position in batch]), strict=True)
                    bar.update(len(batch))

        cache.fill(keys, compute)
        return CachedFeatures(cache, keys)
    distinct = list(dict.fromkeys(captions))
    number = {caption: at for at, caption in enumerate(distinct)}
    return TokenFeatures(encoder.features(distinct), [number[caption] for caption in captions])
