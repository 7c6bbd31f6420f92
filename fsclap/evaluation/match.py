"""A matcher that uses no model: what retrieval can reach if the words of a style are all it knows.

It reads the style back from a caption, and ranks clips by how many attributes have the same word in
both, silence being a word as well. That is what a model would reach that heard every attribute
without error, so it lies between chance and the ceiling: below it, the model misses what the
captions say; above it, the model knows more than the words, such as a value within a word.

Some words compare a clip with its speaker's others (`CONTEXT`). No one can know these from
the clip alone, so the matcher runs twice: with the words that are audible in one clip, and with all.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from fsclap.data.captions import caption_groups
from fsclap.evaluation.protocol import evaluate_embeddings
from fsclap.evaluation.results import ALL_WORDS, AUDIBLE, RetrievalFigures
from fsclap.model.functionals import CONTEXT

_WITHOUT = {AUDIBLE: CONTEXT, ALL_WORDS: ()}


def match_attributes(
    captions: Sequence[str], style_keys: Sequence[str], *, seed: int = 0, **settings: Any
) -> list[RetrievalFigures]:
    """Evaluate the matcher as `evaluate_embeddings` evaluates a model: same pools, ties, intervals.

    Args:
        captions: One per clip.
        style_keys: Style of each clip and its caption, such as "pitch=low;energy=soft".
        seed: Seed of pools and bootstrap; that of the model's evaluation.
        settings: Other settings of `evaluate_embeddings`.

    Returns:
        All figures, those of stage AUDIBLE first, then those of ALL_WORDS.

    Raises:
        ValueError: Lengths differ, or there is no clip.
    """
    figures = []
    for stage in _WITHOUT:
        clips, texts = matcher_rows(captions, style_keys, stage)
        found = evaluate_embeddings(clips, texts, captions, style_keys, seed=seed, **settings)
        figures += [row.model_copy(update={"stage": stage}) for row in found]
    return figures


def matcher_rows(captions: Sequence[str], style_keys: Sequence[str], stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Encode clips and captions as the matcher knows them: rows as of `word_rows`, (N, width) each.

    Args:
        captions: One per clip.
        style_keys: Style of each clip.
        stage: AUDIBLE or ALL_WORDS.
    """
    clips = word_rows(style_keys, without=_WITHOUT[stage])
    # A caption is read in one way, also where two styles are worded alike: as its first clip's.
    _, first, which = np.unique(caption_groups(captions), return_index=True, return_inverse=True)
    return clips, clips[first[which]]


def word_rows(style_keys: Sequence[str], *, without: Collection[str] = ()) -> np.ndarray:
    """Encode styles so that the inner product of two is the number of attributes that agree, plus 1.

    The rows are not of unit norm: sums of ones are exact, so equal counts tie to the last bit.

    Args:
        style_keys: Styles; an attribute that one doesn't name has the word of silence there.
        without: Attributes that don't count.

    Returns:
        (styles, width) float32 of zeros and ones.
    """
    styles = [dict(part.partition("=")[::2] for part in key.split(";") if part) for key in style_keys]
    attributes = sorted({name for style in styles for name in style} - set(without))
    words = [[style.get(name, "") for style in styles] for name in attributes]
    columns = [np.unique(column, return_inverse=True)[1][:, None] == np.arange(len(set(column))) for column in words]
    return np.concatenate([np.ones((len(styles), 1)), *columns], axis=1).astype(np.float32)
