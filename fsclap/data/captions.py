"""When two captions are the same, for training negatives, splits, evaluation and judging."""

from collections.abc import Iterable

import numpy as np


def caption_key(caption: str) -> str:
    """Return what identifies a caption: its words, whatever their case or spacing."""
    return " ".join(caption.casefold().split())


def caption_groups(captions: Iterable[str]) -> np.ndarray:
    """Assign a number from 0 to each caption, the same to the same captions: (N,) int64."""
    return numbered(map(caption_key, captions))


def numbered(names: Iterable[str]) -> np.ndarray:
    """Assign a number from 0 to each name, the same to equal names: (N,) int64."""
    seen: dict[str, int] = {}  # an array of strings would be as wide as the longest one
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)
