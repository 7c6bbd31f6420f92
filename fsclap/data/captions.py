"""When two captions are the same: one answer for training negatives, splits, evaluation and judging."""

from collections.abc import Iterable

import numpy as np


def caption_key(caption: str) -> str:
    """Return what decides whether two captions are the same: the words, whatever their case or spacing."""
    return " ".join(caption.casefold().split())


def caption_groups(captions: Iterable[str]) -> np.ndarray:
    """Number captions from 0, the same captions with the same number: (N,) int64."""
    return numbered(map(caption_key, captions))


def numbered(names: Iterable[str]) -> np.ndarray:
    """Number names from 0, equal names with the same number: (N,) int64."""
    seen: dict[str, int] = {}  # an array of strings would be as wide as the longest one
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)
