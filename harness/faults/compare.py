"""The results of a chain as values, to compare two chains."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fsclap.retrieval.index import Index
from storage.corpus import Corpus
from storage.models import ModelStore

CHANGING = ("stage_seconds", "committed_at")


def corpus_content(location: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a corpus, ordered by id, with the SHA-256 of the audio in its place."""
    corpus = Corpus.open(location)
    utterances = [
        row | {"audio": hashlib.sha256(row["audio"]["bytes"]).hexdigest()} for row in corpus.utterances().to_pylist()
    ]
    sources = [
        {name: value for name, value in row.items() if name not in CHANGING} for row in corpus.sources().to_pylist()
    ]
    return {"utterances": utterances, "rejects": corpus.rejects().to_pylist(), "sources": sources}


def lost_and_doubled(expected: dict[str, Any], found: dict[str, Any]) -> tuple[int, int]:
    """Count the rows of all tables that are missing or differ, and those that are repeated."""
    lost = doubled = 0
    for table in expected:
        expected_rows, found_rows = ([repr(row) for row in content[table]] for content in (expected, found))
        lost += sum(max(0, expected_rows.count(row) - found_rows.count(row)) for row in set(expected_rows))
        doubled += sum(max(0, found_rows.count(row) - expected_rows.count(row)) for row in set(found_rows))
    return lost, doubled


def models(location: Path) -> list[str]:
    """Return the SHA-256 of the weights of each finished model."""
    store = ModelStore.open(location)
    return [_weights(store.folder(name)) for name in store.names() if store.finished(name)]


def same_index(expected: Index, found: Index) -> bool:
    """Whether two indexes have the same clips and vectors, up to rounding."""
    ids = [index.rows["utterance_id"].to_pylist() for index in (expected, found)]
    return ids[0] == ids[1] and np.allclose(expected.vectors, found.vectors, atol=1e-5)


def _weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
