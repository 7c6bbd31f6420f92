"""Nearest vectors: exact, exact by way of half precision, or approximate."""

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsclap.retrieval import approximate

FEW = 0.1
"""Below this share of clips that meet the conditions, only those are scored; else all are."""
BLOCK = 64
"""Scores of which only the highest is looked at to find how high the best are."""
SLACK = 0.004
"""By how much a cosine in half precision may be wrong: each of its two factors by 2^-11, and the sum
and what is kept of it by as much, twice over."""


class Vectors:
    """The vectors of an index, and the fastest way to the rows nearest to one.

    Args:
        exact: (rows, width) float32, rows of unit norm.
        half: The same in float16; None: not there.
        approximate: File of the approximate index; None: not there.
    """

    def __init__(self, exact: np.ndarray, half: np.ndarray | None, approximate: Path | None) -> None:
        self._exact, self._file = exact, approximate
        self._half = None if half is None else Halved(half)

    def near(self, vector: np.ndarray, top: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows nearest to a vector, best first, and their cosines.

        Args:
            vector: (width,) float32 of unit norm.
            top: Number of rows to find.
            among: (rows,) bool, the rows to consider; None: all.
        """
        # A few clips that meet the conditions are faster to score than to look up.
        if among is not None and among.mean() < FEW:
            return nearest(self._exact, vector, top, among)
        if self._approximate is not None:
            likely = approximate.candidates(self._approximate, vector, max(100, 10 * top), among)
        elif self._half is not None:
            likely = self._half.candidates(vector, top, among)
        else:
            return nearest(self._exact, vector, top, among)
        order, scores = nearest(self._exact[likely], vector, top)
        return likely[order], scores

    @functools.cached_property
    def _approximate(self) -> Any:
        return None if self._file is None else approximate.load(self._file)


def nearest(
    vectors: np.ndarray, query: np.ndarray, top: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Search exactly: the rows with the largest inner product, best first, and those products.

    Args:
        vectors: (rows, width).
        query: (width,).
        top: Number of rows to find.
        among: (rows,) bool, the rows to consider; None: all.
    """
    if among is None:
        scores = vectors @ query
        rows = best(scores, top)
        return rows, scores[rows]
    chosen = np.flatnonzero(among)
    scores = vectors[chosen] @ query if len(chosen) < FEW * len(vectors) else (vectors @ query)[chosen]
    order = best(scores, top)
    return chosen[order], scores[order]


def ranked(scores: np.ndarray, top: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rank rows by their scores: the best rows, best first, and their scores.

    Args:
        scores: (rows,).
        top: Number of rows to find.
        among: (rows,) bool, the rows to consider; None: all.
    """
    if among is None:
        rows = best(scores, top)
        return rows, scores[rows]
    chosen = np.flatnonzero(among)
    rows = chosen[best(scores[chosen], top)]
    return rows, scores[rows]


def best(scores: np.ndarray, top: int) -> np.ndarray:
    """Rank scores: the positions of the highest, in descending order; ties in order of position."""
    top = max(1, top)
    candidates = np.flatnonzero(scores >= least(scores, top)) if top < len(scores) else np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:top]


def least(scores: np.ndarray, top: int) -> float:
    """Find a score that at least `top` scores reach, and few others do.

    That is the score of rank `top` among the maxima of blocks: one pass over all scores, where the
    exact score of that rank takes several.
    """
    blocks = len(scores) // BLOCK
    if blocks < 4 * top:
        return float(np.partition(scores, len(scores) - top)[len(scores) - top])
    maxima = scores[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
    return float(np.partition(maxima, blocks - top)[blocks - top])


class Halved:
    """The vectors of an index in half precision: half the memory to read, and still an exact answer.

    Args:
        vectors: (rows, width) float16, rows of unit norm.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file is mapped to be read, which torch can't express
            self._vectors = torch.from_numpy(vectors)

    def candidates(self, query: np.ndarray, top: int, among: np.ndarray | None = None) -> np.ndarray:
        """Find rows among which the `top` nearest to a query are, in ascending order.

        Args:
            query: (width,) float32 of unit norm.
            top: Number of rows.
            among: (rows,) bool, the rows to consider; None: all.
        """
        with torch.inference_mode():
            scores = (self._vectors @ torch.from_numpy(query).half()).float().numpy()
        if among is not None:
            scores[~among] = -2.0
        return np.flatnonzero(scores >= max(least(scores, min(top, len(scores))) - 2 * SLACK, -1.5))
