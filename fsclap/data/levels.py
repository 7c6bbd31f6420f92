"""What a style says, as numbers: one axis per scale of the style, and valence and arousal of the emotion.

Distances between clips that are to be ranked (fsclap.model.systems.emotion_rank_clap) need ordered
labels. A scale's words are ordered; an emotion has a place in Russell's circumplex (1980). The places
are this project's reading of that figure, to a twentieth.
"""

from collections.abc import Sequence

import numpy as np

from fsclap.corpus.captioning.bins import SCALES

EMOTIONS: dict[str, tuple[float, float]] = {
    "neutral": (0.5, 0.5),
    "happy": (0.9, 0.7),
    "angry": (0.15, 0.85),
    "sad": (0.1, 0.25),
    "fearful": (0.2, 0.8),
    "disgusted": (0.15, 0.6),
    "surprised": (0.65, 0.85),
    "contempt": (0.25, 0.55),
    "calm": (0.75, 0.2),
}
"""Valence and arousal, 0 to 1; unknown ones are in the middle."""
AXES = ("valence", "arousal", *SCALES)
MIDDLE = 0.5


def style_levels(style_keys: Sequence[str]) -> np.ndarray:
    """Place styles such as "emotion=happy;pitch=low": (clips, len(AXES)) float32, 0 to 1.

    What a style doesn't mention is in the middle of its axis, as is a word that no scale has.
    """
    known = {key: _levels(key) for key in set(style_keys)}
    return np.array([known[key] for key in style_keys], dtype=np.float32).reshape(-1, len(AXES))


def _levels(key: str) -> list[float]:
    style = dict(part.split("=", 1) for part in key.split(";") if "=" in part)
    return [*EMOTIONS.get(style.get("emotion", ""), (MIDDLE, MIDDLE)), *(_level(name, style) for name in SCALES)]


def _level(name: str, style: dict[str, str]) -> float:
    words, word = SCALES[name].words, style.get(name)
    ordinary = words.index(None) if None in words else None  # silence on "pauses" means none: the lowest
    at = words.index(word) if word in words else ordinary
    return MIDDLE if at is None else at / (len(words) - 1)
