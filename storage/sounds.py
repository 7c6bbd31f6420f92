"""Fingerprints of a corpus's recordings: `sounds.bin`, next to the tables.

Records of fixed length that are only appended: the last one of a source counts, and what a killed writer
left at the end is cut off by the next. Whatever is lost here is only compared with nothing.
"""

import numpy as np

from storage.corpus import Corpus

SOUNDS = "sounds.bin"
SHAPE = (3, 150)
"""Stretches and frames of a fingerprint (`fsclap.corpus.fingerprint`)."""
RECORD = np.dtype([("source_id", "S64"), ("twin", "S64"), ("duration", "<f4"), ("bits", "<u4", SHAPE)])


def read_sounds(corpus: Corpus) -> np.ndarray:
    """Return one RECORD per source that has one."""
    content = corpus.place.appended(SOUNDS)
    records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
    last = {source_id: number for number, source_id in enumerate(records["source_id"].tolist())}
    return records[sorted(last.values())]


def add_sound(corpus: Corpus, source_id: str, *, twin: str, duration: float, bits: np.ndarray) -> np.ndarray:
    """Add the record of a source; the caller holds the corpus's lock, if it has one.

    Args:
        corpus: The corpus.
        source_id: The source.
        twin: Source with the same sound; empty when there is none.
        duration: Seconds.
        bits: SHAPE, uint32.

    Returns:
        The record, (1,) RECORD.
    """
    record = np.array([(source_id.encode(), twin.encode(), duration, bits)], RECORD)
    corpus.place.append(SOUNDS, record.tobytes(), multiple=RECORD.itemsize)
    return record
