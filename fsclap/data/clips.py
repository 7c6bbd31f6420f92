"""A corpus version on local disk, for fast reads of any clip, in any order and from any process.

A Delta table is read in batches, while a trainer needs clip 4711, then clip 12. `ClipStore.create`
copies the rows once into an Arrow file that is mapped into memory, and decodes every clip on the
way: unreadable clips are known before training starts.
"""

import functools
import hashlib
import itertools
import logging
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from fsclap import Hertz, Seconds
from fsclap.audio import decode_flac, resample
from fsclap.data.splits import TooSmall
from fsclap.files import locked, written_aside

log = logging.getLogger(__name__)

FILE = "clips.arrow"
KEPT_VERSIONS = 2
"""Versions of a corpus to keep: the newest, and one that an evaluation may still read."""
MIN_CLIP: Seconds = 0.1
"""Shorter clips are refused: they have no style, and an encoder's frame is up to 80 ms."""
MISSING: Seconds = 0.1
"""A clip that ends this much earlier than its row says was cut off."""
_ROWS_AT_A_TIME = 256


class CorruptClip(ValueError):  # noqa: N818 (an outcome, as `Refused` is)
    """A clip that cannot be trained on.

    Attributes:
        utterance_id: Id of the clip.
        reason: Why, in words.
    """

    def __init__(self, utterance_id: str, reason: str) -> None:
        super().__init__(utterance_id, reason)
        self.utterance_id = utterance_id
        self.reason = reason

    def __str__(self) -> str:
        return f"clip {self.utterance_id}: {self.reason}"


@dataclass(frozen=True)
class ClipStore:
    """The clips of one corpus version. Can be pickled: each process maps the file when it reads."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, batches: Iterable[pa.RecordBatch], *, key: str, progress: bool = True) -> "ClipStore":
        """Copy clips to `folder`, or reuse an existing copy with the same key.

        A copy appears whole or not at all. If several processes create one, the first does and the
        others wait.

        Args:
            folder: Folder of the copy.
            batches: Rows with at least `utterance_id`, `caption` and `audio`; not read if the copy
                exists. A clip that cannot be trained on is copied, and marked in the column
                `defect`.
            key: Identity of the rows: the location and version of the corpus.
            progress: Show a bar.

        Raises:
            TooSmall: There are no rows.
            OSError: The disk is full.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if _key_of(folder / FILE) == key:
                log.info("clips of %s are at %s", key, folder)
            else:
                _copy(folder / FILE, batches, key=key, progress=progress)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "ClipStore":
        """Open a copy that `create` made.

        Raises:
            FileNotFoundError: There is none, or it is unreadable.
        """
        if _key_of(folder / FILE) is None:
            raise FileNotFoundError(f"{folder} has no clips; create them with ClipStore.create")
        return cls(folder)

    @classmethod
    def create_version(
        cls,
        folder: Path,
        version: int,
        batches: Iterable[pa.RecordBatch],
        *,
        key: str,
        keep: int = KEPT_VERSIONS,
        progress: bool = True,
    ) -> "ClipStore":
        """Create or open the clips of one version of a corpus, and remove old versions.

        Args:
            folder: Folder of all versions of the corpus; each gets a folder "v{version}".
            version: Version of the rows.
            batches: Rows, as `create` takes them.
            key: Identity of the rows, as `create` takes it.
            keep: Number of newest versions to keep; `version` is kept in any case.
            progress: Show a bar.

        Raises:
            TooSmall: There are no rows.
        """
        clips = cls.create(folder / f"v{version}", batches, key=key, progress=progress)
        versions = sorted((int(path.name[1:]) for path in folder.glob("v*") if path.name[1:].isdigit()), reverse=True)
        for old in versions[keep:]:
            if old != version:
                shutil.rmtree(folder / f"v{old}", ignore_errors=True)
        return clips

    @functools.cached_property
    def _rows(self) -> pa.Table:
        return pa.ipc.open_file(pa.memory_map(str(self.folder / FILE))).read_all()

    def __getstate__(self) -> dict[str, Path]:
        return {"folder": self.folder}

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @property
    def key(self) -> str:
        """Identity of the rows, as given to `create`."""
        return str(self._rows.schema.metadata[b"key"].decode())

    @functools.cached_property
    def table(self) -> pa.Table:
        """All columns but `audio`, plus `audio_sha256` and `defect`, why a clip is unusable."""
        return self._rows.drop_columns(["audio"])

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Utterance id -> row."""
        return {id_: row for row, id_ in enumerate(self._rows["utterance_id"].to_pylist())}

    def column(self, name: str, ids: Iterable[str]) -> list[Any]:
        """Return the values of a column for these utterances, in their order.

        Raises:
            KeyError: There is no such column or utterance.
        """
        values = self.table[name].to_pylist()
        return [values[self.rows[id_]] for id_ in ids]

    def languages(self, ids: Iterable[str]) -> list[str]:
        """Return the language codes of these clips, sorted; empty if the corpus has no languages.

        Utterances that are not in the store are ignored.
        """
        if "language" not in self.table.column_names:
            return []
        stored = [id_ for id_ in ids if id_ in self.rows]
        return sorted({code for code in self.column("language", stored) if code and re.fullmatch("[a-z]{2,3}", code)})

    def defect(self, row: int) -> CorruptClip | None:
        """Return why a clip cannot be used; None if it can."""
        defect = self._rows["defect"][row].as_py()
        return CorruptClip(self._id(row), defect) if defect else None

    def audio(self, row: int) -> bytes:
        """Return the FLAC file of a clip."""
        data: bytes = self._rows["audio"][row].as_py()
        return data

    def audio_sizes(self) -> np.ndarray:
        """Return the size of each clip's file in bytes, (rows,)."""
        return np.asarray(pc.fill_null(pc.binary_length(self._rows["audio"]), 0).to_numpy())

    def wave(self, row: int, sample_rate: Hertz) -> np.ndarray:
        """Decode a clip to (samples,) float32 at `sample_rate`.

        Raises:
            CorruptClip: It cannot be decoded, is shorter than MIN_CLIP, or has NaN or infinite
                samples.
        """
        if defect := self.defect(row):
            raise defect
        try:
            return decode_clip(self._rows["audio"][row].as_buffer(), sample_rate)
        except ValueError as error:
            raise CorruptClip(self._id(row), str(error)) from error

    def _id(self, row: int) -> str:
        return str(self._rows["utterance_id"][row].as_py())


def decode_clip(flac: Any, sample_rate: Hertz) -> np.ndarray:
    """Decode a clip of a corpus for an encoder.

    Args:
        flac: The FLAC file, as bytes or a buffer.
        sample_rate: Rate of the result, in hertz.

    Returns:
        (samples,) float32 at `sample_rate`.

    Raises:
        ValueError: The clip can't be decoded, is shorter than MIN_CLIP, or has samples that are not
            finite.
    """
    wave, rate = _sound(flac, None)
    return resample(wave, rate, sample_rate)


def _key_of(file: Path) -> str | None:
    try:
        metadata = pa.ipc.open_file(pa.memory_map(str(file))).schema.metadata
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return str(metadata[b"key"].decode())


def _copy(file: Path, batches: Iterable[pa.RecordBatch], *, key: str, progress: bool) -> None:
    pieces = (batch.slice(at, _ROWS_AT_A_TIME) for batch in batches for at in range(0, len(batch), _ROWS_AT_A_TIME))
    first = next(pieces, None)
    if first is None:
        raise TooSmall(f"the corpus ({key}) has no utterances; build it first")
    with written_aside(file) as part, ThreadPoolExecutor() as pool:
        schema = _examined(first, pool).schema.with_metadata({"key": key})
        bar = tqdm(desc="clips", unit=" clips", disable=not progress)
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer, bar:
            for piece in itertools.chain([first], pieces):
                writer.write_batch(_examined(piece, pool).replace_schema_metadata({"key": key}))
                bar.update(len(piece))


def _examined(batch: pa.RecordBatch, pool: ThreadPoolExecutor) -> pa.RecordBatch:
    """Add the digest of the audio, and why a clip is unusable."""
    audio = [row["bytes"] if row is not None else None for row in batch["audio"].to_pylist()]
    captions = batch["caption"].to_pylist()
    durations = batch["duration"].to_pylist() if "duration" in batch.schema.names else [None] * len(batch)
    defects = list(pool.map(_defect, captions, audio, durations))
    digests = list(pool.map(lambda data: hashlib.sha256(data or b"").hexdigest(), audio))
    columns = {name: batch[name] for name in batch.schema.names if name != "audio"}
    added = {
        "audio": pa.array(audio, pa.binary()),
        "audio_sha256": pa.array(digests, pa.string()),
        "defect": pa.array(defects, pa.string()),
    }
    # Not the schema of the corpus: columns declared without nulls may have some in a broken row.
    return pa.RecordBatch.from_pydict(columns | added)


def _defect(caption: str | None, audio: bytes | None, duration: Seconds | None) -> str | None:
    if caption is None or not caption.strip():
        return "it has no caption"
    if not audio:
        return "it has no audio"
    try:
        _sound(audio, duration)
    except ValueError as error:
        return str(error)
    return None


def _sound(data: Any, duration: Seconds | None) -> tuple[np.ndarray, Hertz]:
    """Decode a FLAC file; a ValueError says why the sound is unusable."""
    wave, rate = decode_flac(data)
    if not np.isfinite(wave).all():
        raise ValueError(f"{int((~np.isfinite(wave)).sum())} of its samples are NaN or infinite")
    if len(wave) < MIN_CLIP * rate:
        raise ValueError(f"it has {len(wave)} samples at {rate} Hz, less than {MIN_CLIP:g} s")
    if duration is not None and len(wave) / rate < duration - MISSING:
        raise ValueError(f"its sound ends after {len(wave) / rate:.2f} of {duration:.2f} s")
    return wave, rate
