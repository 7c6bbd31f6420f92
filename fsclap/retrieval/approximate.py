"""Approximate search for an index of more than a million clips: FAISS's inverted file over 8-bit codes.

The lists nearest to the query are looked through by their codes, and the best candidates compared exactly. What is not
in those lists is missed: on vectors that lie in clusters, as speech by its style does, next to nothing; on vectors
without any structure most of it (docs/measurements.md).
"""

from pathlib import Path

import faiss
import numpy as np

ABOVE = 1_000_000
"""Clips above which an index gets one; up to there the exact search is fast enough, and misses nothing."""
PROBES = 64
"""Lists that are looked through for a query."""
_A_LIST = 50
"""Vectors to a list that the lists' centres are trained on: FAISS wants 39 at least."""


def build(vectors: np.ndarray, file: Path) -> None:
    """Write an approximate index of rows of unit norm, (rows, width) float32, to a file."""
    lists = max(1, min(int(4 * np.sqrt(len(vectors))), len(vectors) // _A_LIST))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(len(vectors))[: lists * _A_LIST]
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
    for start in range(0, len(vectors), 65_536):  # the vectors are mapped: not all of them need be in memory
        index.add(np.ascontiguousarray(vectors[start : start + 65_536]))
    faiss.write_index(index, str(file))


def load(file: Path) -> "faiss.Index":
    """Open what `build` wrote, mapped into memory."""
    return faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def candidates(index: "faiss.Index", query: np.ndarray, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """Rows that are likely nearest to a query, in no order.

    Args:
        query: (width,) float32.
        count: Of rows, at most.
        among: (rows,) of bool, the rows to look at; None: all.
    """
    selector = None
    if among is not None:
        bits = np.packbits(among, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
    parameters = faiss.SearchParametersIVF(sel=selector, nprobe=PROBES)
    rows = index.search(query[None], count, params=parameters)[1][0]
    return np.asarray(rows[rows >= 0])
