"""Search by words: what a query asks for, and which clips of an index have it in their styles."""

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from fsclap.data.measured import clip_measures, percentiles
from fsclap.queries.conditions import ANY, clip_words, unheard, vocabulary
from fsclap.queries.reading import Encode, Heard, Reader, Reading, words

MEANT = 0.1
"""Share of a reading from which a word is named as one that the query means."""
UNUSED = 0.3
"""Share of a reading from which it is said that no clip has the attribute."""
_PHRASES = {
    "pitch": "{} pitch",
    "timbre": "{} timbre",
    "voice_quality": "{} voice",
    "pauses": "{} pauses",
    "pitch_range": "{} melody",
    "intonation": "{} intonation",
    "dynamics": "{} dynamics",
    "relative_pitch": "{} pitch",
    "relative_rate": "{} than usual",
}
"""Attribute -> how its words are shown; others are shown as they are."""
_LABELS = {"emotion": "an emotion", "events": "a sound event"}


class Styles:
    """The styles of the clips of an index, and queries read by the words that these can have.

    Attributes:
        heard: The words and the order of the clips.
        without: Attributes for which no clip has a word.

    Args:
        rows: One row per clip: `style_key`, and the columns that `clip_measures` takes. Without
            `style_key` nothing is known of any clip.
        encode: The sentence encoder of the package: texts -> (texts, 384) unit rows.
    """

    def __init__(self, rows: pa.Table, encode: Encode) -> None:
        styles = _words_of(rows)
        self.heard = Heard(styles, percentiles(clip_measures(rows)))
        absent = unheard(styles)
        self.without = tuple(
            name for name, known in vocabulary().items() if absent.issuperset((name, w) for w in known)
        )
        self._encode = _remembering(encode)
        self._reader = Reader(self._encode, without=absent) if self.known else None
        self._unrestricted = Reader(self._encode)

    @property
    def known(self) -> bool:
        """Whether any clip has a word at all."""
        return len(self.without) < len(vocabulary())

    def read(self, query: str) -> Reading:
        """Read a query by the words that clips have; it asks for nothing if they have none."""
        return self._reader.read(query) if self._reader else Reading(np.zeros(len(words())))

    def why(self, reading: Reading, rows: np.ndarray) -> list[tuple[str, ...]]:
        """Name what the query meant and clips have, such as "very low pitch", the most important first.

        Args:
            reading: What `read` returned.
            rows: (clips,) rows of the index.

        Returns:
            One tuple per clip. A clip has a word if it has it or one beyond it on its scale.
        """
        words = self.heard.words[rows]
        found: list[dict[str, None]] = [{} for _ in rows]
        for (attribute, word), weight in reading.asked().items():
            if weight < MEANT:
                continue
            column = words[:, list(vocabulary()).index(attribute)]
            met = (Heard(words, {}).meets(attribute, word) >= 1) & (column != ANY)
            for at in np.flatnonzero(met):
                found[at][phrase(attribute, _own(attribute, word, int(column[at])))] = None
        return [tuple(phrases) for phrases in found]

    def unused(self, query: str) -> list[str]:
        """Say what the query asks for in attributes that no clip has: one sentence each."""
        if not self.known or not self.without:
            return []
        asked = self._unrestricted.read(query).asked()
        total = sum(map(abs, asked.values()))
        sentences = []
        for attribute in self.without:
            shares = {word: abs(weight) for (name, word), weight in asked.items() if name == attribute}
            if shares and sum(shares.values()) >= UNUSED * total:
                label = _LABELS.get(attribute, f"a word for its {attribute.replace('_', ' ')}")
                word = max(shares, key=lambda word: shares[word])
                sentences.append(f"No clip of this corpus has {label}, so {word!r} was not used.")
        return sentences


def phrase(attribute: str, word: str) -> str:
    """Word one word of a style so that it can stand alone: "low pitch", "no pauses", "slow"."""
    return _PHRASES.get(attribute, "{}").format("no" if word == "none" else word)


def _words_of(rows: pa.Table) -> np.ndarray:
    """Encode the styles of the clips: (clips, attributes) int64."""
    if "style_key" not in rows.column_names:
        return np.full((len(rows), len(vocabulary())), ANY, dtype=np.int64)
    keys = rows["style_key"].combine_chunks().dictionary_encode()  # many clips have the same style
    words = clip_words(key or "" for key in keys.dictionary.to_pylist())
    unknown = np.full((1, words.shape[1]), ANY, dtype=np.int64)
    numbers = keys.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return np.concatenate([words, unknown])[numbers]


def _own(attribute: str, word: str, bits: int) -> str:
    """Return the word of a clip that meets `word`: the same, or one beyond it."""
    known = vocabulary()[attribute]
    return word if bits & known[word] else next(own for own, bit in known.items() if bits & bit)


def _remembering(encode: Encode) -> Encode:
    """Embed a text once: a search and its notes read the same parts."""

    @functools.lru_cache(maxsize=512)
    def one(text: str) -> np.ndarray:
        return np.asarray(encode([text])[0])

    def all_of(texts: Sequence[str]) -> np.ndarray:
        return np.stack([one(text) for text in texts])

    return all_of
