"""An index: the vectors of a corpus version's clips and captions, computed by one model.

    {folder}/index.json                 the record; replaced last, so an index is complete or absent
    {folder}/{build}/vectors.npy        (clips, embedding) float32, rows of unit norm
    {folder}/{build}/rows.arrow         one row per vector: the corpus row without its audio
    {folder}/{build}/captions.npy       (captions, embedding) float32, rows of unit norm
    {folder}/{build}/captions.arrow     the distinct captions
    {folder}/{build}/half.npy           vectors in float16, only for a corpus of some size
    {folder}/{build}/approximate.faiss  only for a large corpus: `fsclap.retrieval.approximate`

The files are memory-mapped: opening takes no time, and processes share one copy.
`fsclap.retrieval.build` writes them.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from fsclap.queries.prompts import FILE as PROMPTS

RECORD = "index.json"
VECTORS, HALF, ROWS = "vectors.npy", "half.npy", "rows.arrow"
CAPTION_VECTORS, CAPTIONS = "captions.npy", "captions.arrow"
APPROXIMATE = "approximate.faiss"


class SearchError(RuntimeError):
    """An unusable index, or a search that can't be answered. The message says what to do."""


class ModelStatus(BaseModel):
    """How far a model can be trusted.

    Attributes:
        promoted: It was the current model of its store when the index was built.
        figure: Its headline figure in its newest evaluation, 0 to 1; None without one.
        low: Lower end of the 95 % interval of `figure`.
        chance: What a random order reaches.
        metric: What was measured, on what.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: bool
    figure: float | None = None
    low: float | None = None
    chance: float | None = None
    metric: str = ""

    @property
    def near_chance(self) -> bool:
        """Whether the evaluation can't tell the model from guessing."""
        low = self.figure if self.low is None else self.low
        return low is not None and self.chance is not None and low <= self.chance

    def sentence(self) -> str:
        """Say what the status is, in a sentence."""
        text = "The model is the current one" if self.promoted else "The model was not promoted"
        if self.figure is None or self.chance is None:
            return f"{text}, and was not evaluated."
        return f"{text}: {self.metric} is {100 * self.figure:.1f} %, chance is {100 * self.chance:.1f} %."

    def warning(self) -> str:
        """Say why the model's order can't be trusted; empty if it can."""
        if self.promoted and not self.near_chance:
            return ""
        return f"{self.sentence()} The order that it gives to clips means little; a search by words needs no model."


class Record(BaseModel):
    """Contents of an index.

    Attributes:
        corpus, table, version: The corpus version, as in `fsclap.retrieval.build.Version`.
        model: Folder of the model.
        beside: "corpus" and "model" -> the same places as seen from the index's folder, if they are
            local: they hold when all of it is moved.
        weights: `model_digest` of that folder.
        build: Folder of the files.
        embedding: Length of a vector.
        clips, captions: Number of vectors.
        left_out: Utterance id -> why the clip has no vector.
        date: ISO date and time.
        model_status: How far the model can be trusted; None if that is unknown.
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
    model_status: ModelStatus | None = None
    beside: dict[str, str] = {}

    def seen_from(self, folder: Path) -> "Record":
        """Say where corpus and model are, whatever folder the process works in.

        Args:
            folder: Folder of the index, as it lies now.
        """
        places = {"corpus": self.corpus, "model": self.model}
        found = {name: _found(folder.resolve(), place, self.beside.get(name)) for name, place in places.items()}
        return self.model_copy(update=found)

    def noted(self, folder: Path) -> "Record":
        """Note corpus and model in full, and as seen from the folder of the index."""
        full, beside = {}, {}
        for name, place in (("corpus", self.corpus), ("model", self.model)):
            if "://" not in place:
                full[name] = str(Path(place).resolve())
                beside[name] = os.path.relpath(full[name], folder.resolve())
        return self.model_copy(update={**full, "beside": beside})


@dataclass(frozen=True)
class Index:
    """An open index; its arrays and tables are memory-mapped.

    Attributes:
        vectors: (clips, embedding) float32, rows of unit norm.
        rows: One row per vector.
        caption_vectors: (captions, embedding) float32, rows of unit norm.
        captions: One caption per caption vector.
        approximate: File of the approximate index, if there is one.
        half: `vectors` in float16, for a first look; None for few clips, or many.
    """

    folder: Path
    record: Record
    vectors: np.ndarray
    rows: pa.Table
    caption_vectors: np.ndarray
    captions: pa.ChunkedArray
    approximate: Path | None
    half: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Open what `fsclap.retrieval.build.build_index` wrote.

        Raises:
            SearchError: There is no index, or one of its files is damaged.
        """
        refuse_address(folder)
        folder = Path(folder)
        record = read_record(folder)
        if record is None:
            raise SearchError(f"{folder} holds no index; make one: fsclap index build --index {folder}")
        place = folder / record.build
        try:
            index = cls(
                folder=folder,
                record=record,
                vectors=np.load(place / VECTORS, mmap_mode="r"),
                rows=_mapped(place / ROWS),
                caption_vectors=np.load(place / CAPTION_VECTORS, mmap_mode="r"),
                captions=_mapped(place / CAPTIONS)["caption"],
                approximate=file if (file := place / APPROXIMATE).is_file() else None,
                half=np.load(file, mmap_mode="r") if (file := place / HALF).is_file() else None,
            )
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise SearchError(f"{place} is damaged ({error}); remove {folder} and build the index again") from error
        shapes = [(len(index.rows), record.embedding), (len(index.captions), record.embedding)]
        halved = index.half is None or index.half.shape == index.vectors.shape
        if (
            [index.vectors.shape, index.caption_vectors.shape] != shapes
            or len(index.rows) != record.clips
            or not halved
        ):
            raise SearchError(
                f"{place} is damaged: its files do not fit together; remove {folder} and build the index again"
            )
        return index


def index_location(corpus: str) -> str:
    """Name the default location of an index: next to its corpus."""
    return f"{corpus.rstrip('/').removeprefix('file://')}-index"


def refuse_address(folder: Path | str) -> None:
    """Refuse what is not a folder of this machine, and would be taken for one.

    Raises:
        SearchError: It is an address.
    """
    if "://" in str(folder):
        raise SearchError(
            f"{folder} is in an object store, and files are read from a folder: take a copy of it first, with "
            "storage.copies.local_copy, as the commands `fsclap search` and `fsclap app` do"
        )


def read_record(folder: Path) -> Record | None:
    """Read the record of the index in a folder; None when there is no index.

    Raises:
        SearchError: The record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return Record.model_validate_json(file.read_bytes()).seen_from(folder)
    except ValidationError as error:
        raise SearchError(
            f"{file} is damaged, or from another release; remove {folder} and build the index again"
        ) from error


def _found(index: Path, place: str, beside: str | None) -> str:
    if "://" in place:
        return place
    if beside is not None and (index / beside).exists():
        return str((index / beside).resolve())
    if not Path(place).exists() and not Path(place).is_absolute():  # an earlier version noted it as it was typed
        return next((str(parent / place) for parent in index.parents if (parent / place).exists()), place)
    return place


def model_digest(folder: Path) -> str:
    """Compute the SHA-256 over the files that define a model: settings, features and weights.

    Raises:
        SearchError: The folder holds no model.
    """
    digest = hashlib.sha256()
    names = ["config.json", "encoders.json", "model.safetensors"]
    for name in [*names, PROMPTS] if (folder / PROMPTS).is_file() else names:
        try:
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise SearchError(f"{folder} holds no model: {name} can't be read ({error.strerror})") from error
    return digest.hexdigest()


def _mapped(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
