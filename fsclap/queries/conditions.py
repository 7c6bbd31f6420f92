"""Which clips a query is true of, as bit sets: one integer per attribute, one bit per word.

A clip has the bits of its words; a query allows the bits of the words it is true of. The query is
true of the clip if they share a bit in every attribute. Whole corpora are compared with whole banks
of queries by a few integer operations.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from fsclap.corpus.captioning.bins import SCALES
from fsclap.queries.wordings import load_wordings

ANY = -1
"""All bits: a query that says nothing of an attribute; a clip of which it is unknown."""
SILENT = 1
"""The bit of an attribute that the style doesn't mention: its value is ordinary."""
SILENT_WORDS = {"pauses": "none"}
"""What silence on an attribute means, where there is a word for it."""
UNTAGGED = ("emotion", "events")
"""Attributes of which nothing is known where no word is given: no engine tags them, or it was
unsure."""


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, dict[str, int]]:
    """Attribute -> word -> its bit."""
    bits: dict[str, dict[str, int]] = {}
    for attribute, word, *_ in load_wordings():
        words = bits.setdefault(attribute, {})
        if word == SILENT_WORDS.get(attribute):
            words[word] = SILENT
        elif word not in words:
            words[word] = 2 << sum(bit != SILENT for bit in words.values())
    return bits


def clip_words(style_keys: Iterable[str]) -> np.ndarray:
    """Encode styles such as "pitch=low;energy=soft": (clips, attributes) int64.

    A clip without a style, or with words that have no wording, could be anything: ANY.
    """
    attributes = vocabulary()
    rows = [[ANY] * len(attributes) if not key else _row(key) for key in style_keys]
    return np.array(rows, dtype=np.int64).reshape(-1, len(attributes))


def _row(key: str) -> list[int]:
    style = dict(part.split("=", 1) for part in key.split(";"))
    return [_bits(attribute, words, style.get(attribute)) for attribute, words in vocabulary().items()]


def _bits(attribute: str, words: Mapping[str, int], given: str | None) -> int:
    if given is None:
        return ANY if attribute in UNTAGGED else SILENT
    bits = [words.get(word) for word in given.split("+")]
    return ANY if None in bits else sum(bit for bit in bits if bit)


def allowed(conditions: Mapping[str, Iterable[str]]) -> np.ndarray:
    """Encode the words that a query is true of, by attribute: (attributes,) int64."""
    known = vocabulary()
    bits = dict.fromkeys(known, ANY)
    for attribute, words in conditions.items():
        bits[attribute] = sum(known[attribute][word] for word in words)
    return np.array(list(bits.values()), dtype=np.int64)


def surely_met(queries: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Decide which queries are true of which clips, where the clips are known.

    Args:
        queries: (queries, attributes) int64, as `allowed` encodes them.
        clips: (clips, attributes) int64, as `clip_words` encodes them.

    Returns:
        (queries, clips) bool; false where the query asks for something unknown of the clip.
    """
    met = np.ones((len(queries), len(clips)), dtype=bool)
    for wanted, words in zip(queries.T, clips.T, strict=True):
        unasked = wanted == ANY
        met &= unasked[:, None] | (((wanted[:, None] & words[None]) != 0) & (words != ANY)[None])
    return met


def nothing_heard(clips: np.ndarray) -> bool:
    """Whether no clip has a word at all, as in a corpus whose captions came with it."""
    return len(unheard(clips)) == sum(map(len, vocabulary().values()))


def unheard(clips: np.ndarray) -> frozenset[tuple[str, str]]:
    """List the (attribute, word) that no query can be read by, because no clip meets them.

    On a scale that has clips, every word can be asked for: the clips nearest to it are found. A word
    beside the scales ("whispered") needs a clip that has it.

    Args:
        clips: (clips, attributes) int64, as `clip_words` encodes them.
    """
    found = set()
    for (attribute, bits), column in zip(vocabulary().items(), clips.T, strict=True):
        known = column[column != ANY]
        heard = {word for word, bit in bits.items() if ((known & bit) != 0).any()}
        scale = [word for word in scale_words(attribute) if word] if heard else []
        found |= {(attribute, word) for word in bits if word not in heard and word not in scale}
    return frozenset(found)


def scale_words(attribute: str) -> list[str | None]:
    """List the words of an attribute from the lowest to the highest; None: it has none there."""
    scale = SCALES[attribute].words if attribute in SCALES else ()
    return [word or SILENT_WORDS.get(attribute) for word in scale]
