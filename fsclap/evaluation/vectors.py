"""The embeddings of an evaluated part, as a file next to its report: what systems are compared by."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsclap.files import written_aside

FILE = "embeddings.npz"
_ARRAYS, _TEXTS = ("audio", "text"), ("ids", "captions", "styles")


class VectorsError(ValueError):
    """A file of embeddings that can't be read. The message names it."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The pairs of a part and their embeddings; row i of everything is pair i.

    Attributes:
        ids: Utterance ids.
        captions: Captions.
        styles: Style keys.
        audio: (pairs, embedding) float32 unit rows.
        text: (pairs, embedding) float32 unit rows of the captions.
    """

    ids: list[str]
    captions: list[str]
    styles: list[str]
    audio: np.ndarray
    text: np.ndarray

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        texts: dict[str, Any] = {
            name: np.frombuffer(json.dumps(getattr(self, name)).encode(), dtype=np.uint8) for name in _TEXTS
        }
        arrays: dict[str, Any] = {name: getattr(self, name).astype(np.float32) for name in _ARRAYS}
        with written_aside(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **texts, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Vectors":
        """Read a file.

        Raises:
            VectorsError: It is damaged, or its rows are not of the same pairs.
            FileNotFoundError: There is none.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                texts = {name: json.loads(file[name].tobytes()) for name in _TEXTS}
                vectors = cls(**texts, **{name: file[name] for name in _ARRAYS})
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise VectorsError(f"{path} is damaged ({error}): evaluate the model again") from error
        lengths = {name: len(getattr(vectors, name)) for name in (*_TEXTS, *_ARRAYS)}
        if len(set(lengths.values())) != 1:
            raise VectorsError(f"{path} is damaged (rows: {lengths}): evaluate the model again")
        return vectors
