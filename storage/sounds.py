"""Fingerprints of a corpus's recordings: `sounds.bin`, next to the tables.

Records of fixed length that are only appended: the last one of a source counts, and what a killed writer
left at the end is cut off by the next. Whatever is lost here is only compared with nothing.
"""

from pathlib import Path

import numpy as np

from storage.corpus import Corpus
from storage.files import sync

SOUNDS = "sounds.bin"
SHAPE = (3, 150)
"""Stretches and frames of a fingerprint (`fsclap.corpus.fingerprint`)."""
RECORD = np.dtype([("source_id", "S64"), ("twin", "S64"), ("duration", "<f4"), ("bits", "<u4", SHAPE)])


def read_sounds(corpus: Corpus) -> np.ndarray:
    """Return one RECORD per source that has one."""
    path = corpus.folder / SOUNDS
    whole = path.stat().st_size // RECORD.itemsize if path.exists() else 0
    records = np.frombuffer(path.read_bytes()[: whole * RECORD.itemsize], RECORD) if whole else np.zeros(0, RECORD)
    last = {source_id: number for number, source_id in enumerate(records["source_id"].tolist())}
    return records[sorted(last.values())]


def add_sound(corpus: Corpus, source_id: str, *, twin: str, duration: float, bits: np.ndarray) -> np.ndarray:
    """Add the record of a source; the caller holds the corpus's lock.

    Args:
        corpus: In a local folder.
        source_id: The source.
        twin: Source with the same sound; empty when there is none.
        duration: Seconds.
        bits: SHAPE, uint32.

    Returns:
        The record, (1,) RECORD.
    """
    path: Path = corpus.folder / SOUNDS
    record = np.array([(source_id.encode(), twin.encode(), duration, bits)], RECORD)
    with path.open("ab") as file:
        file.truncate(file.tell() // RECORD.itemsize * RECORD.itemsize)
        file.write(record.tobytes())
    sync(path)
    return record
