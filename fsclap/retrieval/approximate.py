"""Approximate search for more than a million clips: FAISS's inverted file over 8-bit codes.

The lists nearest to the query are scanned by their codes, and the best candidates are scored
exactly. Clips outside those lists are missed: almost none if the vectors form clusters, as those of
speech styles do; most of them if the vectors have no structure (docs/measurements.md).
"""

from pathlib import Path

import faiss
import numpy as np

ABOVE = 1_000_000
"""Clips above which an index gets one; below, exact search is fast enough and misses nothing."""
PROBES = 64
"""Lists scanned per query."""

# Vectors per list that the centres of the lists are trained on; FAISS needs at least 39.
_TRAINED_PER_LIST = 50


def build(vectors: np.ndarray, file: Path) -> None:
    """Write an approximate index of rows of unit norm, (rows, width) float32, to a file."""
    lists = max(1, min(int(4 * np.sqrt(len(vectors))), len(vectors) // _TRAINED_PER_LIST))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(len(vectors))[: lists * _TRAINED_PER_LIST]
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
    for start in range(0, len(vectors), 65_536):  # piece by piece: the vectors are mapped, and need not fit into memory
        index.add(np.ascontiguousarray(vectors[start : start + 65_536]))
    faiss.write_index(index, str(file))


def load(file: Path) -> "faiss.Index":
    """Open what `build` wrote, memory-mapped."""
    return faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def candidates(index: "faiss.Index", query: np.ndarray, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """Find rows that are probably nearest to a query, in no particular order.

    Args:
        index: Index from `load`.
        query: (width,) float32.
        count: Maximal number of rows.
        among: (rows,) bool, the rows to consider; None: all.
    """
    selector = None
    if among is not None:
        bits = np.packbits(among, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
    parameters = faiss.SearchParametersIVF(sel=selector, nprobe=PROBES)
    rows = index.search(query[None], count, params=parameters)[1][0]
    return np.asarray(rows[rows >= 0])
