"""What a chain made, as values that two chains can be compared by."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fsclap.retrieval.index import Index
from storage.corpus import Corpus
from storage.models import ModelStore

CHANGING = ("stage_seconds", "committed_at")


def corpus_content(location: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of a corpus, audio as its SHA-256, in the order of their ids."""
    corpus = Corpus.open(location)
    utterances = [
        row | {"audio": hashlib.sha256(row["audio"]["bytes"]).hexdigest()} for row in corpus.utterances().to_pylist()
    ]
    sources = [
        {name: value for name, value in row.items() if name not in CHANGING} for row in corpus.sources().to_pylist()
    ]
    return {"utterances": utterances, "rejects": corpus.rejects().to_pylist(), "sources": sources}


def lost_and_doubled(expected: dict[str, Any], found: dict[str, Any]) -> tuple[int, int]:
    """Rows that are missing or differ, and rows that are there more often than they should be, over all tables."""
    lost = doubled = 0
    for table in expected:
        wanted, got = ([repr(row) for row in content[table]] for content in (expected, found))
        lost += sum(max(0, wanted.count(row) - got.count(row)) for row in set(wanted))
        doubled += sum(max(0, got.count(row) - wanted.count(row)) for row in set(got))
    return lost, doubled


def models(location: Path) -> list[str]:
    """SHA-256 of the weights of each finished model."""
    store = ModelStore.open(location)
    return [_weights(store.folder(name)) for name in store.names() if store.finished(name)]


def same_index(expected: Index, found: Index) -> bool:
    """Whether two indexes have the same clips with the same vectors; sums in batches of another size may differ."""
    ids = [index.rows["utterance_id"].to_pylist() for index in (expected, found)]
    return ids[0] == ids[1] and np.allclose(expected.vectors, found.vectors, atol=1e-5)


def _weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
